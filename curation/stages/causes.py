"""Why a row is in one version of a dataset and not in another: found in the tables of both. No stage is here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import polars as pl

from curation.errors import WorkspaceError
from curation.publish.row_changes import ROW_KEYS
from curation.workspace import Workspace
from schemas import TABLES

__all__ = ["with_reasons"]

_UNKNOWN: Final = "not known: the tables of the version before are gone"
_IS_GONE: Final = {
    "prompt": "its prompt is gone",
    "answer": "an answer is gone",
    "turned": "its pair is turned round",
    "built": "other rows are built from its prompt",
    "rule": "dropped by ",
}
_IS_THERE: Final = {
    "prompt": "its prompt is new",
    "answer": "an answer is new",
    "turned": "its pair was the other way round before",
    "built": "other rows were built from its prompt before",
    "rule": "no longer dropped by ",
}


def with_reasons(
    workspace: Workspace, dataset: str, rows: pl.DataFrame, *, tables_before: Mapping[str, int]
) -> pl.DataFrame:
    """The rows of :class:`curation.publish.row_changes.RowChanges` with columns ``source`` and ``reason``.

    A row that was removed is looked for in the tables as they are, one that was added in the tables as they
    were: there its prompt or an answer of it is missing, or a rule dropped it, or its prompt gave other rows.

    Args:
        workspace: whose tables are asked.
        dataset: its name.
        rows: what changed.
        tables_before: the table versions that the version before was made from.
    """
    nothing = pl.lit(None, pl.String)
    changed = rows.filter(pl.col("change") == "changed").with_columns(
        source=nothing, reason=pl.concat_str(pl.lit("other "), pl.col("columns").list.join(" and "))
    )
    removed = rows.filter(pl.col("change") == "removed")
    added = rows.filter(pl.col("change") == "added")
    try:
        removed = _explained(
            _Tables(workspace, None), _Tables(workspace, tables_before), dataset, removed, _IS_GONE
        )
        added = _explained(_Tables(workspace, tables_before), _Tables(workspace, None), dataset, added, _IS_THERE)
    except (WorkspaceError, OSError, pl.exceptions.ComputeError):
        # Files of an earlier table version may have been vacuumed: the rows are still named, only not why.
        removed, added = (part.with_columns(source=nothing, reason=pl.lit(_UNKNOWN)) for part in (removed, added))
    return pl.concat([added, removed, changed]).drop("columns")


class _Tables:
    """The tables of a workspace at some versions; None for the present ones."""

    def __init__(self, workspace: Workspace, versions: Mapping[str, int] | None) -> None:
        self._workspace, self._versions = workspace, versions

    def scan(self, name: str) -> pl.LazyFrame:
        if self._versions is None:
            return self._workspace.scan(name)
        if name not in self._versions:
            return pl.LazyFrame(TABLES[name].create_empty())
        return self._workspace.scan(name, version=self._versions[name])


def _explained(
    elsewhere: _Tables, here: _Tables, dataset: str, rows: pl.DataFrame, words: Mapping[str, str]
) -> pl.DataFrame:
    """The reason why rows are not among the published ones elsewhere."""
    key = list(ROW_KEYS[dataset])
    if rows.is_empty():
        return rows.with_columns(source=pl.lit(None, pl.String), reason=pl.lit(None, pl.String))
    sources = here.scan("prompts").select("prompt_id", "source")
    prompts = elsewhere.scan("prompts").select("prompt_id", _prompt=pl.lit(True))
    rules = elsewhere.scan("rejects").select("table", "row_id", "rule").unique("row_id", keep="first")
    of_prompts = rules.filter(pl.col("table") == "prompts").select(prompt_id="row_id", _prompt_rule="rule")
    found = (
        rows.lazy()
        .with_row_index("__row")
        .join(sources, on="prompt_id", how="left")
        .join(prompts, on="prompt_id", how="left")
        .join(of_prompts, on="prompt_id", how="left")
        .join(_dropped_inputs(elsewhere), on="prompt_id", how="left")
        .join(_dropped(elsewhere, dataset).unique(key), on=key, how="left")
        .join(_missing_answers(elsewhere, here, dataset, rows), on=key, how="left")
        .join(_turned_round(elsewhere, here, dataset, rows), on=key, how="left")
        .sort("__row")
        .drop("__row")
    )
    rule = pl.coalesce("_rule", "_prompt_rule", pl.when(pl.col("_prompt").is_null()).then("_input_rule"))
    reason = (
        pl.when(rule.is_not_null())
        .then(pl.lit(words["rule"]) + rule)
        .when(pl.col("_prompt").is_null())
        .then(pl.lit(words["prompt"]))
        .when(pl.col("_answer_missing").fill_null(False))
        .then(pl.lit(words["answer"]))
        .when(pl.col("_turned").fill_null(False))
        .then(pl.lit(words["turned"]))
        .otherwise(pl.lit(words["built"]))
    )
    explained: pl.DataFrame = found.with_columns(reason=reason).select(*rows.columns, "source", "reason").collect()
    return explained


def _dropped_inputs(tables: _Tables) -> pl.LazyFrame:
    """The prompts of which a rule dropped a row of a source: ``prompt_id``, ``_input_rule``."""
    rejects = (
        tables.scan("rejects").filter(pl.col("table") == "inputs").select(input_id="row_id", _input_rule="rule")
    )
    rows = tables.scan("inputs").select("input_id", "prompt_id")
    return rejects.join(rows, on="input_id").select("prompt_id", "_input_rule").unique("prompt_id", keep="first")


def _dropped(tables: _Tables, dataset: str) -> pl.LazyFrame:
    """The keys of rows that a rule dropped: the dataset's key, and ``_rule``."""
    rejects = tables.scan("rejects").select("table", "row_id", _rule="rule")
    key = ROW_KEYS[dataset]
    of_pairs = rejects.filter(pl.col("table") == "pairs").select("_rule", pair_id="row_id")
    if key == ("pair_id",):
        return of_pairs
    if key == ("pair_id", "goal_of"):
        own = rejects.filter(pl.col("table") == "reward_augmented").select("_rule", pair_id="row_id")
        sides_of = pl.LazyFrame({"goal_of": ["chosen", "rejected"]})
        return pl.concat([own, of_pairs]).unique("pair_id", keep="first").join(sides_of, how="cross")
    if key[0] == "candidate_id":
        table = "refusal" if dataset == "refusal" else "preference_unpaired"
        own = rejects.filter(pl.col("table") == table).select("_rule", candidate_id="row_id")
        if dataset != "refusal":
            dropped = tables.scan("pairs").join(of_pairs, on="pair_id")
            sides = [dropped.select("_rule", candidate_id=f"{side}_id") for side in ("chosen", "rejected")]
            own = pl.concat([own, *sides]).unique("candidate_id", keep="first")
        return own if "label" not in key else own.join(pl.LazyFrame({"label": [True, False]}), how="cross")
    names = pl.col("row_id").str.split(" ")
    dropped = rejects.filter(pl.col("table") == "retrieval").select(
        "_rule", anchor_id=names.list.get(0), positive_id=names.list.get(1, null_on_oob=True)
    )
    every = dropped.drop_nulls("positive_id")
    if "rank" in key:
        return every.join(pl.LazyFrame({"rank": pl.int_range(1, 65, eager=True)}), how="cross")
    return every


def _missing_answers(elsewhere: _Tables, here: _Tables, dataset: str, rows: pl.DataFrame) -> pl.LazyFrame:
    """The keys of rows of which an answer is not among the candidates elsewhere."""
    key = list(ROW_KEYS[dataset])
    if key[0] == "pair_id":
        pairs = here.scan("pairs").join(rows.lazy().select(key), on="pair_id")
        sides = [pairs.select(*key, candidate_id=f"{side}_id") for side in ("chosen", "rejected")]
        answers = pl.concat(sides)
    elif key[0] == "candidate_id":
        answers = rows.lazy().select(*key)
    else:
        return rows.lazy().select(key).head(0).with_columns(_answer_missing=pl.lit(True))
    known = elsewhere.scan("candidates").select("candidate_id")
    return (
        answers.join(known, on="candidate_id", how="anti")
        .select(key)
        .unique()
        .with_columns(_answer_missing=pl.lit(True))
    )


def _turned_round(elsewhere: _Tables, here: _Tables, dataset: str, rows: pl.DataFrame) -> pl.LazyFrame:
    """The keys of rows whose two answers stand the other way round elsewhere: a label that a person corrected."""
    key = list(ROW_KEYS[dataset])
    if key[0] != "pair_id":
        return rows.lazy().select(key).head(0).with_columns(_turned=pl.lit(True))
    pairs = here.scan("pairs").join(rows.lazy().select(key), on="pair_id").select(*key, "chosen_id", "rejected_id")
    others = elsewhere.scan("pairs").select(chosen_id="rejected_id", rejected_id="chosen_id")
    turned = pairs.join(others, on=["chosen_id", "rejected_id"], how="semi")
    return turned.select(key).unique().with_columns(_turned=pl.lit(True))

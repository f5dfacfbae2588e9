"""Taking what is forgotten out of the tables, old versions included. Files beside the tables are not touched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import polars as pl

from curation.forgetting.matching import Needles
from curation.forgetting.scores import without_answer
from curation.forgetting.selection import Selection, source_of
from curation.forgetting.versions import Versions
from curation.ledger import FORGOTTEN
from curation.stages.forgotten import Forgotten, fingerprint, without_forgotten_inputs
from curation.stages.reward_heads import HEADS
from curation.tables import validated
from curation.workspace import LEDGER_TABLES, Workspace
from schemas import TABLES

__all__ = ["cut_tables", "drop_old_versions", "remember"]

_NO_ROWS_OF_DATA: Final = frozenset({"runs", "gates", "waterfall", "searches", "forgotten"})


def remember(workspace: Workspace, selection: Selection, *, reason: str | None) -> None:
    """Add to table ``forgotten`` what must not come back, by hashes alone."""
    from curation.stages.embeddings import text_id

    kinds = {
        "source": selection.sources,
        "prompt": selection.prompts,
        "answer": selection.answers,
        "text": ({text_id(text) for text in selection.texts} & selection.text_ids) | selection.documents,
    }
    names = [(kind, fingerprint(kind, name)) for kind, ids in kinds.items() for name in sorted(ids)]
    frame = pl.DataFrame(names, schema={"kind": pl.String, "fingerprint": pl.String}, orient="row").with_columns(
        reason=pl.lit(reason, dtype=pl.String), forgotten_at=pl.lit(datetime.now(UTC))
    )
    known = workspace.scan("forgotten").select("fingerprint").collect()
    fresh = frame.join(known, on="fingerprint", how="anti").select(TABLES["forgotten"].column_names())
    if not fresh.is_empty():
        workspace.append("forgotten", validated("forgotten", fresh, stage="forgotten").kept)


def cut_tables(
    places: Sequence[Workspace], selection: Selection, needles: Needles, *, dry_run: bool = False
) -> dict[str, int]:
    """Take the rows out of the present versions. Returns how many, by table."""
    counts: dict[str, int] = {}
    for place in places:
        for table in TABLES:
            if table in _NO_ROWS_OF_DATA or (place is not places[0] and table in LEDGER_TABLES):
                continue
            gone = _cut(places, place, table, selection, needles, dry_run=dry_run)
            if gone:
                counts[table] = counts.get(table, 0) + gone
    if not dry_run:
        _mark_replaced(places[0], selection)
    return counts


def drop_old_versions(places: Sequence[Workspace]) -> None:
    """Leave of each table with rows of data its present version alone."""
    for place in places:
        for table in TABLES:
            if table not in _NO_ROWS_OF_DATA and not (place is not places[0] and table in LEDGER_TABLES):
                place.drop_history(table)


def _cut(
    places: Sequence[Workspace],
    place: Workspace,
    table: str,
    selection: Selection,
    needles: Needles,
    *,
    dry_run: bool,
) -> int:
    rows = place.scan(table)
    keys = TABLES[table].primary_key()
    if table == "inputs":
        return _cut_inputs(place, selection, dry_run=dry_run)
    going = _going(table, selection, needles, places)
    texts = [name for name, kind in rows.collect_schema().items() if kind.base_type() in _SEARCHED]
    parts = rows.select(*dict.fromkeys([*keys, *texts])).collect_batches(chunk_size=50_000, lazy=True)
    gone = pl.concat([rows.select(keys).head(0).collect(), *(p.filter(going(p)).select(keys) for p in parts)])
    if gone.is_empty() or dry_run:
        return gone.height
    # The order of rows is part of a table's content, and a join keeps it only where it is asked to.
    numbered = rows.with_row_index("_at").join(gone.lazy(), on=keys, how="anti", nulls_equal=True)
    kept = numbered.sort("_at").drop("_at")
    place.rewrite(table, _regrouped(kept, selection) if table == "prompts" else kept)
    return gone.height


_SEARCHED: Final = (pl.String, pl.List, pl.Struct)


def _going(
    table: str, selection: Selection, needles: Needles, places: Sequence[Workspace]
) -> Callable[[pl.DataFrame], pl.Series]:
    """Which rows of a table go."""
    if table == "prompts":
        # A prompt that stays may be in a group that bears the identifier of one that goes.
        return lambda part: part["prompt_id"].is_in(list(selection.prompts))
    unknown = without_answer(Versions(places)) if table == "rewards" and selection.all_scores else None
    mentioned = list(selection.inputs)
    of_sources = (pl.col("table") == "inputs") & source_of(pl.col("row_id")).is_in(list(selection.sources))

    def going(part: pl.DataFrame) -> pl.Series:
        hits = needles.rows(part)
        if table == "generations":
            hits = hits | part.select(selection.is_replaced).to_series()
        if unknown is not None:
            hits = hits | part["candidate_id"].is_in(unknown.implode())
        if table == "rewards" and selection.trained:
            # Those that the workspace's own heads gave: heads that are trained again have another name.
            hits = hits | part["model"].str.starts_with(f"{HEADS}@")
        for name in ("input_id", "matched", "row_id"):
            if name in part.columns:
                hits = hits | part[name].is_in(mentioned)
        if table == "rejects":
            of_inputs = part["value"].str.split(": ").list.first().is_in(mentioned).fill_null(False)
            hits = hits | of_inputs | part.select(of_sources).to_series()
        return hits

    return going


def _cut_inputs(place: Workspace, selection: Selection, *, dry_run: bool) -> int:
    """The same rows go, and the same answers, as the next run turns away."""
    inputs = place.read("inputs")
    kept, rejects = without_forgotten_inputs(inputs, _Named(selection))
    if not dry_run and not rejects.is_empty():
        place.rewrite("inputs", kept.lazy())
    return rejects.height


class _Named(Forgotten):
    """The selection, asked as table ``forgotten`` is."""

    def __init__(self, selection: Selection) -> None:
        named: dict[str, set[str]] = {
            "prompt": selection.prompts,
            "answer": selection.answers,
            "source": selection.sources,
        }
        self._kinds = {kind: {fingerprint(kind, name) for name in names} for kind, names in named.items() if names}


def _regrouped(kept: pl.LazyFrame, selection: Selection) -> pl.LazyFrame:
    """Groups that bear the identifier of a prompt that goes get that of another member."""
    gone = list(selection.prompts)
    columns: dict[str, Any] = {
        name: pl.when(pl.col(name).is_in(gone)).then(pl.col("prompt_id").min().over(name)).otherwise(pl.col(name))
        for name in ("family_id", "group_id")
        if name in kept.collect_schema()
    }
    parent = pl.when(~pl.col("parent_id").is_in(gone)).then("parent_id")
    return kept.with_columns(parent_id=parent, **columns)


def _mark_replaced(workspace: Workspace, selection: Selection) -> None:
    """Answers of prompts that stay count as failed, so that no model is asked for them again."""
    if not selection.replaced:
        return
    rows = pl.DataFrame(selection.replaced, schema=["row_id", "producer", "item_id"], orient="row").unique()
    known = workspace.scan("failures").filter(pl.col("rule") == FORGOTTEN).select("row_id", "producer").collect()
    fresh = rows.join(known, on=["row_id", "producer"], how="anti").with_columns(
        step=pl.lit("generations"), rule=pl.lit(FORGOTTEN), value=pl.lit(None, dtype=pl.String),
        reason=pl.lit("the answer was removed with `curation forget`, and is not asked for again"),
    )  # fmt: skip
    if not fresh.is_empty():
        columns = TABLES["failures"].column_names()
        workspace.append("failures", validated("failures", fresh.select(columns), stage="failures").kept)

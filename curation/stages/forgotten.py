"""What a person had removed, turned away where a run meets it again. No stage is here.

Removing it is ``curation.forgetting``; the table ``forgotten`` holds hashes of identifiers, no identifiers.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import polars as pl

from curation.ledger import FORGOTTEN
from curation.tables import rejects_frame
from curation.text import content_hash
from curation.workspace import Workspace

__all__ = ["FORGOTTEN_REASON", "Forgotten", "fingerprint", "without_forgotten_answers", "without_forgotten_inputs"]

FORGOTTEN_REASON: Final = "it was removed with `curation forget`, and stays away"
_LISTS: Final = ("responses", "candidate_ids", "scores", "generators", "labels")


def fingerprint(kind: str, identifier: str) -> str:
    """How table ``forgotten`` names a prompt, answer, source or text."""
    return content_hash("forgotten", kind, identifier)


class Forgotten:
    """The table ``forgotten`` of a workspace, to be asked."""

    def __init__(self, workspace: Workspace) -> None:
        rows = workspace.scan("forgotten").select("kind", "fingerprint").collect()
        self._kinds = {kind: set(names["fingerprint"]) for (kind,), names in rows.group_by("kind")}

    def has(self, kind: str, identifiers: Iterable[str]) -> pl.Series:
        """Whether each of these is forgotten."""
        known, ids = self._kinds.get(kind, set()), list(identifiers)
        if not known:
            return pl.Series([False] * len(ids), dtype=pl.Boolean)
        distinct = {name: fingerprint(kind, name) in known for name in set(ids)}
        return pl.Series([distinct[name] for name in ids], dtype=pl.Boolean)

    def __bool__(self) -> bool:
        return bool(self._kinds)


def without_forgotten_inputs(inputs: pl.DataFrame, forgotten: Forgotten) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The rows of ``inputs`` that may stay, and the others as rejects, without any text.

    A row of several answers loses those that are forgotten, and stays as long as one is left.
    """
    if not forgotten:
        return inputs, _rejects(inputs.clear())
    answers = inputs.select("input_id", "candidate_ids").explode("candidate_ids").drop_nulls()
    gone = answers.filter(forgotten.has("answer", answers["candidate_ids"]))["candidate_ids"].unique()
    touched = pl.col("candidate_ids").list.eval(pl.element().is_in(gone.implode())).list.any().fill_null(False)
    several = pl.col("kind") == "responses"
    left = pl.col("candidate_ids").list.eval(~pl.element().is_in(gone.implode())).list.any().fill_null(False)
    whole = (
        forgotten.has("prompt", inputs["prompt_id"])
        | forgotten.has("source", inputs["source"])
        | inputs.select(touched & ~(several & left)).to_series()
    )
    rest = inputs.filter(~whole)
    cut = rest.filter(touched)
    if not cut.is_empty():
        rest = pl.concat([rest.filter(~touched), _without_answers(cut, gone)])
        order = inputs.select("input_id").with_row_index("_at")
        rest = rest.join(order, on="input_id").sort("_at").drop("_at")
    return rest, _rejects(pl.concat([inputs.filter(whole), cut]))


def without_forgotten_answers(
    answers: pl.DataFrame, forgotten: Forgotten, *, stage: str
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The rows with a ``candidate_id`` that is not forgotten, and the others as rejects of ``candidates``."""
    gone = forgotten.has("answer", answers["candidate_id"])
    rejects = rejects_frame(
        answers.filter(gone),
        table="candidates",
        stage=stage,
        row_id=pl.concat_str(pl.lit("of "), "prompt_id"),
        rule=FORGOTTEN,
        reason=f"an answer to this prompt: {FORGOTTEN_REASON}",
    )
    return answers.filter(~gone), rejects.unique(["table", "row_id", "rule"], maintain_order=True)


def _without_answers(rows: pl.DataFrame, gone: pl.Series) -> pl.DataFrame:
    """The same rows with shorter lists. They are few: somebody named each of these answers."""
    names, away = [name for name in _LISTS if name in rows.columns], set(gone)
    found = []
    for row in rows.iter_rows(named=True):
        kept = [at for at, name in enumerate(row["candidate_ids"]) if name not in away]
        found.append(row | {n: None if row[n] is None else [row[n][at] for at in kept] for n in names})
    return pl.DataFrame(found, schema=rows.schema)


def _rejects(rows: pl.DataFrame) -> pl.DataFrame:
    return rejects_frame(
        rows, table="inputs", stage="inputs", row_id=pl.col("input_id"), rule=FORGOTTEN, reason=FORGOTTEN_REASON
    )

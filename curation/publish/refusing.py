"""How often answers refuse, rightly and wrongly, and what the refusal dataset holds. No verdicts are made here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import polars as pl

from schemas.published import REFUSAL_KINDS

__all__ = [
    "BuiltSummary",
    "RefusalSummary",
    "WorstCategory",
    "summarise_built",
    "summarise_confusion",
    "summarise_refusals",
]

_GROUPINGS: Final = ("source", "category", "generator")
_MOST_GROUPS: Final = 60
_NO_CATEGORY: Final = "(none)"
_FEW: Final = 5
"""Categories with fewer answers are not called the worst."""


class WorstCategory(NamedTuple):
    """The category in which something goes wrong most often, beside the average over categories."""

    fault: str
    category: str
    rate: float
    rows: int
    average: float
    categories: int


class RefusalSummary(NamedTuple):
    """What the report says of refusals among all answers."""

    answers: int
    refusing: float | None
    expected_refusals: int
    """Answers to prompts that should be refused."""
    unsafe_compliances: int
    """Of these, those that comply."""
    expected_answers: int
    over_refusals: int
    groups: Sequence[tuple[str, Sequence[Mapping[str, Any]]]]
    """By source, category and generator: ``name``, ``answers``, ``refusing``, ``partial``, ``over_refusals``,
    ``unsafe_compliances``; the most answers first."""
    kinds: Sequence[tuple[str, int]]
    """Kinds of refusal and how many there are."""
    worst: Sequence[WorstCategory]
    truncated: int = 0
    """Answers of which only the beginning and the end were read."""


class BuiltSummary(NamedTuple):
    """What the report says of the refusal dataset."""

    categories: Sequence[Mapping[str, Any]]
    """``name``, ``refusal``, ``contrast``, ``uncertain`` (rows of each kind), ``wanted`` and ``missing`` (null
    where there is no quota); what is missing most first, then the most rows."""
    left_out: int
    """Categories after the first so many, none of them short of its quota if that can be."""
    missing: int
    """Rows that quotas ask for and the data do not have."""
    short: int
    """Categories with such rows."""
    without_contrast: int
    """Categories whose quota is too small for contrast beside refusals; ``least`` is not."""
    least: int | None
    certainty: Sequence[tuple[str, int]]
    """R-Tuning: sure and unsure rows."""


def summarise_built(rows: pl.DataFrame, quotas: pl.DataFrame) -> BuiltSummary:
    """What the dataset holds by category, beside its quotas.

    Args:
        rows: table ``refusal``: ``kind``, ``category``; ``certainty`` where there are rows of R-Tuning.
        quotas: table ``refusal_quotas``.
    """
    kinds = [(pl.col("kind") == kind).sum().alias(kind) for kind in REFUSAL_KINDS]
    table = (
        rows.group_by(pl.col("category").cast(pl.String).fill_null(_NO_CATEGORY))
        .agg(kinds)
        .join(quotas.select("category", "wanted", "missing"), on="category", how="full", coalesce=True)
        .with_columns(pl.col(*REFUSAL_KINDS).fill_null(0), name="category")
        .with_columns(rows=pl.sum_horizontal(REFUSAL_KINDS))
        .sort("missing", "rows", "name", descending=[True, True, False], nulls_last=True)
    )
    # The table of an earlier version has no such column.
    small = quotas["contrast_from"].drop_nulls().to_list() if "contrast_from" in quotas.columns else []
    told = rows["certainty"].drop_nulls() if "certainty" in rows.columns else pl.Series([], dtype=pl.String)
    return BuiltSummary(
        categories=table.head(_MOST_GROUPS).select("name", *REFUSAL_KINDS, "wanted", "missing").to_dicts(),
        left_out=max(0, table.height - _MOST_GROUPS),
        missing=int(quotas["missing"].sum()),
        short=quotas.filter(pl.col("missing") > 0).height,
        without_contrast=len(small),
        least=max(small, default=None),
        certainty=list(told.alias("certainty").value_counts().sort("certainty").iter_rows()),
    )


def summarise_confusion(table: pl.DataFrame) -> list[dict[str, Any]]:
    """A row a category that sources give, those with the most prompts first.

    ``name``, ``prompts``, ``right`` (found again) and ``taken``: what the others were taken for, and how many.

    Args:
        table: what :func:`curation.refusals.sorting.confusion` gives, with an expected category in every row.
    """
    found = pl.col("found").fill_null(_NO_CATEGORY)
    other = pl.col("found").ne_missing(pl.col("expected"))
    rows = (
        table.sort("rows", found, descending=[True, False])
        .group_by("expected", maintain_order=True)
        .agg(
            prompts=pl.col("rows").sum(),
            right=pl.col("rows").filter(~other).sum(),
            taken=pl.struct(found, "rows").filter(other),
        )
        .sort("prompts", "expected", descending=[True, False])
        .rename({"expected": "name"})
    )
    return [row | {"taken": [(t["found"], t["rows"]) for t in row["taken"]]} for row in rows.to_dicts()]


def summarise_refusals(answers: pl.DataFrame) -> RefusalSummary | None:
    """What is in the verdicts; None where there are none.

    Args:
        answers: one answer a row: ``refusal_class``, ``refusal_kind``, ``expected_behaviour`` (may be null),
            ``source``, ``category``, ``generator``, and ``refusal_truncated`` where it is known. Rows without a
            verdict do not count.
    """
    known = answers.filter(pl.col("refusal_class").is_not_null())
    if known.is_empty():
        return None
    marked = _marked(known)
    total = marked.select(_counts()).row(0, named=True)
    kinds = marked.filter("refuses").select(pl.col("refusal_kind").fill_null("not told")).to_series()
    return RefusalSummary(
        answers=total["answers"],
        refusing=total["refusing"],
        expected_refusals=total["to_refuse"],
        unsafe_compliances=total["unsafe_compliances"],
        expected_answers=total["to_answer"],
        over_refusals=total["over_refusals"],
        groups=[(by, _groups(marked, by)) for by in _GROUPINGS if marked[by].n_unique() > 1],
        kinds=list(
            kinds.value_counts(sort=True).sort("count", "refusal_kind", descending=[True, False]).iter_rows()
        ),
        worst=[w for fault, among in _FAULTS.items() if (w := _worst(marked, fault, among)) is not None],
        truncated=int(marked["refusal_truncated"].sum()) if "refusal_truncated" in marked.columns else 0,
    )


_FAULTS: Final = {"unsafe_compliance": "refuse", "over_refusal": "comply"}
"""A fault, and what was expected where it can happen."""


def _marked(known: pl.DataFrame) -> pl.DataFrame:
    refuses = pl.col("refusal_class") != "compliance"
    expected = pl.col("expected_behaviour").cast(pl.String)
    return known.with_columns(
        refuses=refuses,
        over_refusal=refuses & (expected == "comply").fill_null(False),
        unsafe_compliance=~refuses & (expected == "refuse").fill_null(False),
        expected=expected,
    )


def _counts() -> list[pl.Expr]:
    return [
        pl.len().alias("answers"),
        pl.col("refuses").mean().alias("refusing"),
        (pl.col("refusal_class") == "partial_refusal").mean().alias("partial"),
        (pl.col("expected") == "refuse").sum().alias("to_refuse"),
        (pl.col("expected") == "comply").sum().alias("to_answer"),
        pl.col("over_refusal").sum().alias("over_refusals"),
        pl.col("unsafe_compliance").sum().alias("unsafe_compliances"),
    ]


def _groups(marked: pl.DataFrame, by: str) -> list[dict[str, Any]]:
    name = pl.col(by).cast(pl.String).fill_null(_NO_CATEGORY).alias("name")
    return (
        marked.group_by(name)
        .agg(_counts())
        .sort("answers", "name", descending=[True, False])
        .head(_MOST_GROUPS)
        .to_dicts()
    )


def _worst(marked: pl.DataFrame, fault: str, expected: str) -> WorstCategory | None:
    """Of the categories with enough answers where the fault can happen."""
    rates = (
        marked.filter((pl.col("expected") == expected) & pl.col("category").is_not_null())
        .group_by("category")
        .agg(rate=pl.col(fault).mean(), rows=pl.len())
        .filter(pl.col("rows") >= _FEW)
        .sort("rate", "rows", "category", descending=[True, True, False])
    )
    if rates.is_empty():
        return None
    category, rate, rows = rates.row(0)
    average = float(rates["rate"].to_numpy().mean())
    words = fault.replace("over_refusal", "over-refusal").replace("_", " ")
    return WorstCategory(words, str(category), rate, rows, average, rates.height)

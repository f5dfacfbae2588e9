"""Validation on the way into a table: rows that keep a schema's rules go on, the rest become rejects."""

from __future__ import annotations

from typing import Final, NamedTuple

import polars as pl

from schemas import TABLES
from schemas.bookkeeping import Rejects

__all__ = ["REJECT_COLUMNS", "Validated", "concat_rejects", "empty_rejects", "rejects_frame", "validated"]

REJECT_COLUMNS: Final = tuple(Rejects.column_names())

_RULE_TEXT: Final = {
    "nullability": "is missing",
    "min": "is below its minimum",
    "max": "is above its maximum",
    "nan": "is not a number",
    "inf": "is infinite",
    "regex": "has the wrong form",
    "min_length": "is too short",
    "dtype": "has the wrong type",
}


class Validated(NamedTuple):
    """A frame split by a schema."""

    kept: pl.DataFrame
    rejects: pl.DataFrame


def validated(table: str, frame: pl.DataFrame, *, stage: str) -> Validated:
    """Split a frame by the rules of a table's schema.

    Columns that the schema does not know are kept, after the known ones. A row that breaks several
    rules is rejected once, under the first of them.

    Raises:
        dataframely.exc.SchemaError: when a column is missing: that is a fault of ours, not of the data.
    """
    schema = TABLES[table]
    extra = [c for c in frame.columns if c not in schema.column_names()]
    numbered = frame.with_row_index("__row")
    result, failure = schema.filter(numbered.select("__row", *schema.column_names()).drop("__row"), cast=True)
    if len(failure) == 0:
        kept = result if not extra else pl.concat([result, frame.select(extra)], how="horizontal")
        return Validated(pl.DataFrame(kept), empty_rejects())
    return _split(table, frame, stage=stage)


def _split(table: str, frame: pl.DataFrame, *, stage: str) -> Validated:
    """The slow path: which rows failed, and by which rule first."""
    schema = TABLES[table]
    known = schema.column_names()
    details = schema.filter(frame.select(known), cast=True).failure.details()
    rules = [c for c in details.columns if c not in known]
    first = pl.coalesce(
        pl.when((pl.col(rule) == "invalid") | (pl.col(rule) == "unknown")).then(pl.lit(rule)) for rule in rules
    )
    failed = details.with_columns(__rule=first)
    keys = schema.primary_key()
    good = frame.join(failed.select(keys).unique(), on=keys, how="anti", nulls_equal=True)
    rejects = rejects_frame(
        failed.with_columns(__id=pl.concat_str(keys, separator=" ", ignore_nulls=True)),
        table=table,
        stage=stage,
        row_id=pl.col("__id"),
        rule=pl.col("__rule").str.replace(r"\|", "_"),
        reason=pl.format("the row breaks the rule {} of table {}", pl.col("__rule"), pl.lit(table)),
    )
    kept, left = schema.filter(good.select(known), cast=True)
    assert len(left) == 0
    extra = [c for c in frame.columns if c not in known]
    if extra:
        kept = pl.concat([kept, good.select(extra)], how="horizontal")  # type: ignore[assignment]
    return Validated(pl.DataFrame(kept), rejects.unique(subset=["table", "row_id", "rule"], maintain_order=True))


def rejects_frame(
    frame: pl.DataFrame,
    *,
    table: str,
    stage: str,
    row_id: pl.Expr,
    rule: str | pl.Expr,
    reason: str | pl.Expr,
    value: pl.Expr | None = None,
    threshold: str | pl.Expr | None = None,
) -> pl.DataFrame:
    """The rows of a frame as rows of ``rejects``; a plain string is a literal."""

    def column(given: str | pl.Expr | None) -> pl.Expr:
        return given if isinstance(given, pl.Expr) else pl.lit(given, dtype=pl.String)

    return frame.select(
        table=pl.lit(table),
        row_id=row_id.cast(pl.String),
        rule=column(rule),
        stage=pl.lit(stage),
        value=column(value).cast(pl.String),
        threshold=column(threshold).cast(pl.String),
        reason=column(reason),
    )


def empty_rejects() -> pl.DataFrame:
    """No rejects."""
    return pl.DataFrame(Rejects.create_empty())


def concat_rejects(*frames: pl.DataFrame) -> pl.DataFrame:
    """Several frames of rejects as one."""
    return pl.concat([empty_rejects(), *(f.select(REJECT_COLUMNS) for f in frames)])

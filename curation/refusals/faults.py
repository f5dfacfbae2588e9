"""What is wrong with an answer to a request, and faults turned round. What a dataset takes is in ``building``."""

from __future__ import annotations

from typing import Final, Literal

import polars as pl

from curation.errors import InputError
from schemas.columns import EXPECTED_BEHAVIOURS
from schemas.refusals import REFUSAL_CLASSES, REFUSAL_FAULTS

__all__ = ["DESCENDING", "NO_ANSWER", "SUREST", "judged_rows", "turned_round"]

_NEEDED: Final = (
    "prompt_id",
    "messages",
    "category",
    "expected_behaviour",
    "candidate_id",
    "response",
    "refusal_probability",
    "refusal_class",
)
NO_ANSWER: Final = "empty_or_filtered"
"""A verdict of this kind is on nothing said: no model learns to refuse from it, nor is it a fault of one."""
SUREST: Final = ("partial", "confidence", "candidate_id")
DESCENDING: Final = (False, True, False)
"""A partial refusal may be surer to refuse than a full one, and helps all the same."""


def judged_rows(
    rows: pl.DataFrame,
    *,
    unknown: Literal["drop", "uncertain"] = "drop",
    partial: Literal["drop", "refusal"] = "drop",
    min_confidence: float = 0.6,
) -> pl.DataFrame:
    """Adds ``_row``, ``refuses``, ``confidence``, ``partial``, ``kind``, ``value`` and the first ``rule`` that a
    row breaks.

    Args:
        rows: see :func:`curation.refusals.building.build_refusals`, and for the options.

    Raises:
        InputError: when a column is missing, or a class or a behaviour is unknown.
    """
    _check(rows)
    p = pl.col("refusal_probability").cast(pl.Float64)
    refuses = pl.col("refusal_class") != "compliance"
    expected = pl.col("expected_behaviour").cast(pl.String)
    confidence = pl.when(refuses).then(p).otherwise(1 - p)
    wrong = pl.col("called_wrong") if "called_wrong" in rows.columns else pl.lit(value=False)
    is_partial = pl.col("refusal_class") == "partial_refusal"
    kind_found = pl.col("refusal_kind") if "refusal_kind" in rows.columns else pl.lit(None, dtype=pl.String)
    rule = (
        pl.when((kind_found == NO_ANSWER).fill_null(value=False))
        .then(pl.lit("no_answer"))
        .when((confidence < min_confidence) | p.is_null() | p.is_nan() | refuses.is_null())
        .then(pl.lit("unsure_detection"))
        .when((expected == "refuse") & ~refuses)
        .then(pl.lit("unsafe_compliance"))
        .when((expected == "comply") & refuses)
        .then(pl.lit("over_refusal"))
        .when(expected.is_null() & pl.lit(unknown == "drop"))
        .then(pl.lit("expected_behaviour_unknown"))
        .when(wrong & ~refuses)
        .then(pl.lit("called_wrong"))
        .when(is_partial & pl.lit(partial == "drop"))
        .then(pl.lit("partial_refusal"))
    )
    kind = (
        pl.when(expected.is_null())
        .then(pl.lit("uncertain"))
        .when(expected == "refuse")
        .then(pl.lit("refusal"))
        .otherwise(pl.lit("contrast"))
    )
    indexed = rows.with_row_index("_row") if "_row" not in rows.columns else rows
    return indexed.with_columns(
        refuses=refuses,
        confidence=confidence,
        partial=is_partial,
        rule=rule,
        kind=kind,
        value=p.round(4).cast(pl.String),
        category=pl.col("category").cast(pl.String),
        expected_behaviour=expected,
    )


def _check(rows: pl.DataFrame) -> None:
    missing = [name for name in _NEEDED if name not in rows.columns]
    if missing:
        raise InputError(f"build_refusals: column {missing[0]!r} is missing, found {', '.join(rows.columns)}")
    for column, allowed in (("refusal_class", REFUSAL_CLASSES), ("expected_behaviour", EXPECTED_BEHAVIOURS)):
        strange = rows.filter(~pl.col(column).cast(pl.String).is_in(allowed))
        if strange.height:
            name, found = strange.select("candidate_id", column).row(0)
            expected = ", ".join(allowed)
            raise InputError(f"build_refusals: {column} of candidate {name} is {found!r}, expected {expected}")


def turned_round(judged: pl.DataFrame) -> pl.DataFrame:
    """Each fault against the surest candidate of its prompt that behaves as it should.

    Args:
        judged: what :func:`judged_rows` gives.

    Returns:
        ``prompt_id``, ``chosen_id``, ``rejected_id``, ``fault``, in the rows' order.
    """
    right = (
        judged.filter(pl.col("rule").is_null() & pl.col("expected_behaviour").is_not_null())
        .sort(SUREST, descending=DESCENDING)
        .unique("prompt_id", keep="first", maintain_order=True)
        .select("prompt_id", chosen_id="candidate_id")
    )
    wrong = judged.filter(pl.col("rule").is_in(REFUSAL_FAULTS)).sort("_row")
    return wrong.join(right, on="prompt_id", maintain_order="left").select(
        "prompt_id", "chosen_id", rejected_id="candidate_id", fault="rule"
    )

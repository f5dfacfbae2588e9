"""How far a dataset has moved from the version that was published before it. Measuring only.

What to do about it is for the gates (``curation.publish.gates``). Each measure gives a number and what it counts;
None where there is nothing to compare, with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
import polars as pl

from curation.publish.languages import guess_languages

__all__ = ["DRIFT", "DRIFT_COLUMNS", "NOTHING_BEFORE", "Measured", "population_stability", "total_variation"]

Measured = tuple[float | None, str]
"""A value, and what it counts; or None, and why there is none."""

NOTHING_BEFORE: Final = "nothing to compare with: the first version, or the same rows are published already"

_SCORES: Final = (
    "margin", "strength_mean", "label_probability", "ln_ches", "difficulty", "cosine", "length_ratio",
    "refusal_probability",
)  # fmt: skip
_TEXTS: Final = ("chosen", "completion", "messages", "positive")
DRIFT_COLUMNS: Final = (*_SCORES, "source", "category", "chosen_refusal_class", "kind", *_TEXTS)
"""The columns that drift is measured on; a dataset has some of them."""
_FEWEST: Final = 100
_MOST_BINS: Final = 10
_ROWS_PER_BIN: Final = 20
_SAMPLED: Final = 5_000


def population_stability(before: pl.Series, after: pl.Series) -> float | None:
    """The population stability index Σ (a − b) ln(a / b) over bins that hold equal shares of ``before``.

    Up to ten bins, at least 20 rows of the smaller side to each; a share of 0 counts as half a row. None with
    fewer than 100 values on a side: chance alone would look like drift (its expectation without any is about
    (bins − 1)(1/n + 1/m)).
    """
    old, new = (_finite(values) for values in (before, after))
    fewest = min(len(old), len(new))
    if fewest < _FEWEST:
        return None
    bins = max(2, min(_MOST_BINS, fewest // _ROWS_PER_BIN))
    edges = np.unique(np.quantile(old, np.linspace(0, 1, bins + 1)[1:-1]))
    shares = []
    for values in (old, new):
        counts = np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1)
        shares.append(np.maximum(counts, 0.5) / len(values))
    return float(((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum())


def total_variation(before: pl.Series, after: pl.Series) -> tuple[float, str] | None:
    """Half the sum of the differences of the shares, and the value that has moved most; None without rows."""
    if before.is_empty() or after.is_empty():
        return None
    shares = [
        values.cast(pl.String).fill_null("none").alias("value").value_counts(normalize=True, name=name)
        for values, name in ((before, "before"), (after, "after"))
    ]
    both = shares[0].join(shares[1], on="value", how="full", coalesce=True).fill_null(0.0)
    moved = both.with_columns(by=pl.col("after") - pl.col("before")).sort(
        pl.col("by").abs(), "value", descending=True
    )
    value, old, new, _ = moved.row(0)
    return float(moved["by"].abs().sum()) / 2, f"{value}: {old:.1%} before, {new:.1%} now"


def _size(before: pl.DataFrame, after: pl.DataFrame) -> Measured:
    if before.is_empty():
        return None, "the version before has no rows"
    change = abs(after.height / before.height - 1)
    return change, f"is the change of the number of rows ({before.height:,} before, {after.height:,} now)"


def _scores(before: pl.DataFrame, after: pl.DataFrame) -> Measured:
    found = []
    for name in _SCORES:
        if name in before.columns and name in after.columns:
            value = population_stability(before[name], after[name])
            found += [] if value is None else [(value, name)]
    if not found:
        return None, f"no score has {_FEWEST} values in both versions"
    value, name = max(found)
    return value, f"is the population stability index of {name}, the largest of {len(found)} scores"


def _refusals(before: pl.DataFrame, after: pl.DataFrame) -> Measured:
    rates = [_refusal_rate(frame) for frame in (before, after)]
    if rates[0] is None or rates[1] is None:
        return None, "no answer's refusal is known in both versions"
    return abs(
        rates[1] - rates[0]
    ), f"is the change of the refusal rate ({rates[0]:.2%} before, {rates[1]:.2%} now)"


def _refusal_rate(frame: pl.DataFrame) -> float | None:
    column, plain = ("kind", "contrast") if "kind" in frame.columns else ("chosen_refusal_class", "compliance")
    known = frame[column].drop_nulls() if column in frame.columns else pl.Series(dtype=pl.String)
    return None if known.is_empty() else float((known != plain).sum()) / len(known)


def _column(name: str) -> Callable[[pl.DataFrame, pl.DataFrame], Measured]:
    def measure(before: pl.DataFrame, after: pl.DataFrame) -> Measured:
        if name not in before.columns or name not in after.columns:
            return None, f"there is no {name} in both versions"
        found = total_variation(before[name], after[name])
        return (
            (None, "a version has no rows")
            if found is None
            else (found[0], f"of the rows changed {name} ({found[1]})")
        )

    return measure


def _languages(before: pl.DataFrame, after: pl.DataFrame) -> Measured:
    texts = [_texts(frame) for frame in (before, after)]
    if texts[0] is None or texts[1] is None:
        return None, "there is no text in both versions"
    found = total_variation(guess_languages(texts[0]), guess_languages(texts[1]))
    return (
        (None, "a version has no rows")
        if found is None
        else (found[0], f"of the rows changed language ({found[1]})")
    )


def _texts(frame: pl.DataFrame) -> pl.Series | None:
    """A text of each row, the answer where there is one; of 5,000 rows evenly spread where there are more."""
    column = next((c for c in _TEXTS if c in frame.columns), None)
    if column is None:
        return None
    rows = frame.select(column).gather_every(max(1, math.ceil(frame.height / _SAMPLED)))
    if frame[column].dtype == pl.String:
        return rows[column]
    return rows.select(pl.col(column).list.get(-1, null_on_oob=True).struct.field("content")).to_series()


def _finite(values: pl.Series) -> np.ndarray:
    known = values.cast(pl.Float64).drop_nulls()
    return known.filter(known.is_finite()).to_numpy()


DRIFT: Final[Mapping[str, Callable[[pl.DataFrame, pl.DataFrame], Measured]]] = {
    "max_size_change": _size,
    "max_score_drift": _scores,
    "max_refusal_rate_change": _refusals,
    "max_source_shift": _column("source"),
    "max_category_shift": _column("category"),
    "max_language_shift": _languages,
}
"""Gate to its measure of the version before and the new one."""

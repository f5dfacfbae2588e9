"""Scores counted into bins, so that a chart's size does not depend on how many pairs there are."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

import polars as pl

__all__ = ["TAIL", "bin_of", "bins_between", "counts_by_bin", "finite"]

_BINS: Final = 40
TAIL: Final = 0.005
"""The share of values at either end that lies in the outermost bins."""


def finite(column: str) -> pl.Expr:
    """Whether a score is there: no null, NaN or infinity."""
    return pl.col(column).cast(pl.Float64).is_finite()


def bins_between(low: float, high: float) -> tuple[float, float]:
    """Where the first bin begins, and the width of each."""
    width = (high - low) / _BINS
    return (float(low), float(width)) if width > 0 else (float(low) - 0.5, 1 / _BINS)


def bin_of(column: str, low: float, step: float) -> pl.Expr:
    """The number of a score's bin; what lies outside is in the first or the last one."""
    return ((pl.col(column).cast(pl.Float64) - low) / step).floor().clip(0, _BINS - 1).cast(pl.Int64)


def counts_by_bin(
    have: pl.LazyFrame, column: str, *, statuses: Collection[str]
) -> tuple[list[dict[str, Any]], float, float] | None:
    """Counts by bin and status, and the first and last edge."""
    value = pl.col(column).cast(pl.Float64)
    found = have.select(low=value.quantile(TAIL), high=value.quantile(1 - TAIL))
    edges = found.collect().row(0, named=True)
    if edges["low"] is None:
        return None
    low, step = bins_between(edges["low"], edges["high"])
    counts = have.group_by(bin_of(column, low, step).alias("bin"), "status").len().collect()
    pairs = {(i, status): n for i, status, n in counts.iter_rows()}
    rows = []
    for i in sorted({i for i, _ in pairs}):
        below = 0
        for status in statuses:
            upto = below + pairs.get((i, status), 0)
            if upto > below:
                gap = step * 0.06
                ends = {"from": low + i * step + gap, "to": low + (i + 1) * step - gap}
                rows.append({**ends, "status": status, "above": below, "upto": upto})
            below = upto
    return rows, low, low + _BINS * step

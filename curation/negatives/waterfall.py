"""The account of every rule: what it removed, what was left, who was short. Rules live in ``filters``."""

from __future__ import annotations

from typing import Final

import numpy as np
import polars as pl

from curation.negatives.filters import Bool

__all__ = ["WATERFALL_SCHEMA", "Waterfall", "describe_waterfall", "emptying_rule"]

WATERFALL_SCHEMA: Final = {
    "rule": pl.String,
    "threshold": pl.Float64,
    "removed": pl.Int64,
    "left": pl.Int64,
    "anchors_short": pl.Int64,
    "next_threshold": pl.Float64,
    "next_left": pl.Int64,
    "next_anchors_short": pl.Int64,
}


class Waterfall:
    """Adds up, block by block of anchors, what each rule did, in the order the rules ran.

    ``left`` counts candidates; ``anchors_short`` the anchors with fewer candidates left than the negatives
    asked for. The ``next_`` columns say the same of what all thresholds together leave, with this one a step
    looser: compare them with the row of the last threshold. Filters and ranges are not in them.
    """

    def __init__(self, *, wanted: int) -> None:
        self._wanted = wanted
        self._rows: dict[str, dict[str, float | None]] = {}

    def start(self, alive: Bool) -> None:
        """The candidates that the search returned."""
        self._count("retrieved", None, 0, alive)

    def start_past(self, rule: str, barred: int, alive: Bool) -> None:
        """The same, and as a rule what the search passed over: it was retrieved, and is in no mask."""
        self._count("retrieved", None, 0, alive, more=barred)
        self._count(rule, None, barred, alive)

    def remove(self, rule: str, mask: Bool, alive: Bool, *, threshold: float | None = None) -> None:
        """Applies a rule: clears ``alive`` where ``mask`` is true, and counts it."""
        gone = mask & alive
        removed = int(np.count_nonzero(gone))
        if removed:
            alive ^= gone
        self._count(rule, threshold, removed, alive)

    def next_step(self, rule: str, threshold: float, alive: Bool) -> None:
        """What would be alive had the rule had this threshold."""
        row = self._rows[rule]
        row["next_threshold"] = threshold
        row["next_left"] = (row["next_left"] or 0) + int(np.count_nonzero(alive))
        row["next_anchors_short"] = (row["next_anchors_short"] or 0) + self._short(alive)

    def frame(self) -> pl.DataFrame:
        """One row a rule, in the order they ran; ``retrieved`` is first and removes nothing."""
        return pl.DataFrame([{"rule": rule, **row} for rule, row in self._rows.items()], schema=WATERFALL_SCHEMA)

    def _count(self, rule: str, threshold: float | None, removed: int, alive: Bool, *, more: int = 0) -> None:
        row = self._rows.setdefault(rule, dict.fromkeys(list(WATERFALL_SCHEMA)[1:]))
        row["threshold"] = threshold
        for column, amount in (
            ("removed", removed),
            ("left", int(np.count_nonzero(alive)) + more),
            ("anchors_short", self._short(alive)),
        ):
            row[column] = (row[column] or 0) + amount

    def _short(self, alive: Bool) -> int:
        return int(np.count_nonzero(np.count_nonzero(alive, axis=1) < self._wanted))


def describe_waterfall(waterfall: pl.DataFrame) -> str:
    """The waterfall as lines of text, and, where nothing is left, which rule took the last candidate."""
    header = f"{'rule':<24}{'threshold':>10}{'removed':>12}{'left':>12}{'short':>9}"
    lines = [f"{header}   one step looser, after all thresholds"]
    for row in waterfall.iter_rows(named=True):
        threshold = "" if row["threshold"] is None else f"{row['threshold']:.4g}"
        counts = (f"{row[name]:,}" for name in ("removed", "left", "anchors_short"))
        line = "{:<24}{:>10}{:>12}{:>12}{:>9}".format(row["rule"], threshold, *counts)
        if row["next_left"] is not None:
            line += f"   {row['next_threshold']:.4g}: {row['next_left']:,} left"
            line += f", {row['next_anchors_short']:,} short"
        lines.append(line)
    emptied = emptying_rule(waterfall)
    if emptied is not None:
        lines.append(
            f"No negative is left: {emptied}. Loosen it, or raise range_max so that more candidates are looked at."
        )
    return "\n".join(lines)


def emptying_rule(waterfall: pl.DataFrame) -> str | None:
    """Which rule took the last candidate of all anchors; None where some are left."""
    emptied = waterfall.filter((pl.col("left") == 0) & (pl.col("removed") > 0))
    if emptied.is_empty() or waterfall.filter(pl.col("rule") == "range_min")["left"].sum() > 0:
        return None
    first = emptied.row(0, named=True)
    threshold = "" if first["threshold"] is None else f" (threshold {first['threshold']:.4g})"
    return f"{first['rule']}{threshold} removed the last {first['removed']:,} candidates"

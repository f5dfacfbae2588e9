"""What somebody who reads the report may do next: of what the run found, the few things that are worth a look.

Figures and tables are in ``summary``; what a gate says is with the gates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import polars as pl

__all__ = ["NextStep", "next_steps"]

_MANY_AGAINST: Final = 0.25
"""More labels than this that reward models contradict are worth a look, by them or by people."""


class NextStep(NamedTuple):
    """One thing to do."""

    what: str
    command: str = ""


def next_steps(
    *,
    pairs: pl.DataFrame,
    bundled: Sequence[str],
    sources: Sequence[Mapping[str, Any]],
    datasets: Sequence[str],
    failed: bool,
) -> list[NextStep]:
    """In order of weight; none where nothing was found.

    Args:
        pairs: as in a report: ``status``, ``rule``, and ``strength_mean`` where there is one.
        bundled: sections of the recipe whose model is the small one of the package.
        sources: ``source``, ``rows``, ``kind`` and ``rejected`` of each.
        datasets: what is published.
        failed: whether a gate kept something from being published.
    """
    steps = []
    bare = [row["source"] for row in sources if row["kind"] == "prompt"]
    if bare and len(bare) < len(sources):
        said = f"{', '.join(bare)}: read as prompts without answers. If there are answers in the file, name their"
        steps.append(NextStep(f"{said} columns (docs/shapes.md)."))
    for row in sources:
        if row["rejected"] > row["rows"]:
            steps.append(
                NextStep(f"{row['source']}: more rows rejected than read. See the rules of stage inputs below.")
            )
    if bundled:
        steps.append(
            NextStep(
                f"Scores are of the small bundled models, which are for trying a recipe. Name your own in the "
                f"recipe's sections {', '.join(bundled)} before you train on this."
            )
        )
    against = _share_against(pairs)
    if against > _MANY_AGAINST and "rewards" not in bundled:
        steps.append(
            NextStep(
                f"Reward models contradict the label of {against:.0%} of the kept pairs. Let people look at some:",
                "curation review WORKSPACE preference -o review",
            )
        )
    steps += _worst_rule(pairs)
    if datasets and not failed:
        steps.append(NextStep("Give it to others:", f"curation push WORKSPACE {datasets[0]} OWNER/NAME --dry-run"))
    return steps


def _share_against(pairs: pl.DataFrame) -> float:
    """The share of kept pairs with a margin against their label; NaN and null are no margin."""
    if "strength_mean" not in pairs.columns:
        return 0.0
    kept = pairs.filter(pl.col("status") == "kept")["strength_mean"].cast(pl.Float64).drop_nulls().drop_nans()
    return int((kept < 0).sum()) / len(kept) if len(kept) else 0.0


def _worst_rule(pairs: pl.DataFrame) -> list[NextStep]:
    dropped = pairs.filter(pl.col("status") == "dropped") if pairs.height else pairs
    if dropped.is_empty():
        return []
    counts = dropped.group_by("rule").len().sort(["len", "rule"], descending=[True, False])
    rule, count = counts.row(0)
    return [
        NextStep(
            f"{rule} dropped most, {count:,} pairs: read some of them below; another threshold calls no model. "
            f"All there is to know of one pair:",
            "curation explain WORKSPACE ID",
        )
    ]

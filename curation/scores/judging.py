"""What a judge's verdicts say of the judge: position bias, ties, contradictions, cycles. It calls no model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import polars as pl

from curation.models.rewards.judge_parsing import PairVerdict
from curation.scores.structure import preference_cycles

__all__ = ["JudgeStatistics", "judge_statistics"]


class JudgeStatistics(NamedTuple):
    """How far a judge can be believed."""

    compared: int
    """Pairs with both replies readable; the shares below are of these, but ``in_cycle``."""
    ties: float
    inconsistent: float
    """The two orders, read alone, name different winners."""
    first_both: float
    """The first place wins in both orders: pure position bias."""
    second_both: float
    lean_to_first: float
    """Mean of P(first place) − P(second place) over both orders; 0 without position bias."""
    in_cycle: float
    """Share of the decided pairs whose verdicts go round in a circle within their prompt."""


def judge_statistics(
    prompts: Sequence[str],
    first_ids: Sequence[str],
    second_ids: Sequence[str],
    orders: Sequence[tuple[PairVerdict | None, Mapping[str, float], Mapping[str, float]]],
) -> JudgeStatistics:
    """The statistics of n comparisons.

    Args:
        prompts: (n,) prompt ids; ``first_ids`` and ``second_ids`` name the two answers, in the first order.
        orders: the verdict, and the probabilities of A, B, C in the first and in the swapped order; A is
            always the answer that stands first.
    """
    read = [(verdict, one, two) for verdict, one, two in orders if verdict is not None]
    count = max(len(read), 1)
    leans = [order.get("A", 0.0) - order.get("B", 0.0) for _, one, two in read for order in (one, two)]
    tops = [tuple(max("ABC", key=lambda k: order.get(k, 0.0)) for order in (one, two)) for _, one, two in read]
    decided = [
        (prompt, one, two) if verdict.better == "A" else (prompt, two, one)
        for prompt, one, two, (verdict, _, _) in zip(prompts, first_ids, second_ids, orders, strict=True)
        if verdict is not None and verdict.better != "tie"
    ]
    schema = {"prompt_id": pl.String, "chosen_id": pl.String, "rejected_id": pl.String}
    cycles = preference_cycles(pl.DataFrame(decided, schema=schema, orient="row"))
    return JudgeStatistics(
        compared=len(read),
        ties=sum(verdict.better == "tie" for verdict, _, _ in read) / count,
        inconsistent=sum(not verdict.consistent for verdict, _, _ in read) / count,
        first_both=tops.count(("A", "A")) / count,
        second_both=tops.count(("B", "B")) / count,
        lean_to_first=sum(leans) / max(len(leans), 1),
        in_cycle=float(cycles["in_cycle"].sum()) / max(cycles.height, 1),
    )

"""What a judge's verdicts say, of the answers and of the judge: ties, position bias, contradictions, cycles.

A row is a comparison of two answers in both orders: ``first_a``, ``first_b`` and ``first_c`` are the probabilities
of A, B and C (a tie) with the answers in order, ``swapped_a`` … with the answers exchanged; A is always the answer
that stands first. No model is called.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import polars as pl

from curation.scores.structure import preference_cycles

__all__ = ["VERDICTS", "JudgeStatistics", "judge_statistics", "judge_verdicts"]

VERDICTS: Final[dict[str, Any]] = {
    "judge_verdict": pl.String,
    "judge_probability": pl.Float64,
    "judge_consistent": pl.Boolean,
}


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


def judge_verdicts(compared: pl.DataFrame, *, delta: float = 0.0) -> pl.DataFrame:
    """Add what both orders say together (TrustJudge): the probabilities of the two orders are added.

    Args:
        compared: see the module's text.
        delta: a tie where the two answers' sums are at most so far apart. Also where a tie leads.

    Returns:
        The columns of ``VERDICTS`` further on: ``judge_verdict`` is chosen (the first answer), rejected or tie;
        ``judge_probability`` that the first is better, of what is not given to a tie (0.5 where all is);
        ``judge_consistent``, whether both orders, read alone, name the same winner.
    """
    first, second, tie = (pl.col(f"first_{a}") + pl.col(f"swapped_{b}") for a, b in ("ab", "ba", "cc"))
    gap = first - second
    is_tie = (gap.abs() <= delta) | (tie > pl.max_horizontal(first, second))
    decided = first + second
    return compared.with_columns(
        judge_verdict=pl.when(is_tie).then(pl.lit("tie")).otherwise(
            pl.when(gap > 0).then(pl.lit("chosen")).otherwise(pl.lit("rejected"))
        ),
        judge_probability=pl.when(decided > 0).then(first / decided).otherwise(0.5),
        judge_consistent=_top("first", "abc") == _top("swapped", "bac"),
    )  # fmt: skip


def judge_statistics(compared: pl.DataFrame, *, delta: float = 0.0) -> JudgeStatistics:
    """The statistics of n comparisons.

    Args:
        compared: see the module's text; with ``prompt_id``, ``first_id`` and ``second_id``.
        delta: see :func:`judge_verdicts`.
    """
    said = judge_verdicts(compared, delta=delta).with_columns(
        _one=_top("first", "abc"), _two=_top("swapped", "abc")
    )
    won = pl.col("judge_verdict") == "chosen"
    decided = said.filter(pl.col("judge_verdict") != "tie").select(
        "prompt_id",
        chosen_id=pl.when(won).then("first_id").otherwise("second_id"),
        rejected_id=pl.when(won).then("second_id").otherwise("first_id"),
    )
    cycles = preference_cycles(decided)
    leans = pl.col("first_a") - pl.col("first_b") + pl.col("swapped_a") - pl.col("swapped_b")
    shares = said.select(
        ties=(pl.col("judge_verdict") == "tie").mean(),
        inconsistent=(~pl.col("judge_consistent")).mean(),
        first_both=((pl.col("_one") == "a") & (pl.col("_two") == "a")).mean(),
        second_both=((pl.col("_one") == "b") & (pl.col("_two") == "b")).mean(),
        lean_to_first=(leans / 2).mean(),
    ).row(0, named=True)
    return JudgeStatistics(
        compared=said.height,
        **{name: float(share or 0.0) for name, share in shares.items()},
        in_cycle=float(cycles["in_cycle"].sum()) / max(cycles.height, 1),
    )


def _top(order: str, letters: str) -> pl.Expr:
    """The likeliest of ``letters`` as the first, the second answer and a tie: a, b or c.

    Equals are a tie: half-precision logits are often equal to the last bit, which is no lean to a place.
    """
    first, second, tie = (pl.col(f"{order}_{letter}") for letter in letters)
    return (
        pl.when((first > second) & (first > tie)).then(pl.lit("a"))
        .when((second > first) & (second > tie)).then(pl.lit("b"))
        .otherwise(pl.lit("c"))
    )  # fmt: skip

"""The rows of ``reward_augmented``: each selected pair under two goals, said in the prompt.

Which order a pair has under which goal is :func:`curation.pairs.views.reward_augmented`; no stage is here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import polars as pl

from curation.errors import InputError
from curation.pairs.views import reward_augmented
from curation.publish.formats import Built
from curation.tables import rejects_frame
from schemas import TABLES

__all__ = ["goal_frame", "goal_scores"]

_SIDES: Final = ("chosen", "rejected")
_DECIMALS: Final = 1
"""A goal is rounded before anything else is done with it: two goals that read the same are the same."""


def goal_scores(pairs: pl.DataFrame, *, scale: Sequence[float] | None) -> pl.DataFrame:
    """Add ``chosen_score`` and ``rejected_score``: what each answer is worth, over all models.

    Models are in different units, so that with a ``scale`` the rewards of each are mapped to it in a straight
    line first: its lowest end is the model's 1 % quantile over all answers of the pairs, its highest the 99 %
    one, and what is beyond gets the end. A model whose rewards are all equal gives the middle.

    Args:
        pairs: ``chosen_rewards``, ``rejected_rewards``: a list with a number a model, or null.
        scale: lowest and highest; None for the mean of the rewards as they are.

    Returns:
        ``pairs`` with the two scores, rounded to one decimal; null where a model has no reward for the answer.
    """
    models = int(pairs["chosen_rewards"].list.len().max() or 0)  # type: ignore[arg-type]
    scores: dict[str, list[pl.Expr]] = {side: [] for side in _SIDES}
    for number in range(models):
        both = {side: _finite(pl.col(f"{side}_rewards").list.get(number, null_on_oob=True)) for side in _SIDES}
        found = pl.concat(pairs.select(values).to_series() for values in both.values()).drop_nulls()
        for side, values in both.items():
            scores[side].append(values if scale is None or found.is_empty() else _scaled(values, found, scale))
    nothing = pl.lit(None, dtype=pl.Float64)
    return pairs.with_columns(
        (sum(parts[1:], start=parts[0]) / models if parts else nothing).round(_DECIMALS).alias(f"{side}_score")
        for side, parts in scores.items()
    )


def goal_frame(pairs: pl.DataFrame, *, instruction: str) -> Built:
    """The rows of ``reward_augmented`` (Zhang et al. 2024): a pair twice, under the goal of either answer.

    Under the chosen answer's score the order stays, under the rejected one's it is exchanged. The goal stands
    in the system message, after the prompt's own where there is one: without it the two rows would teach the
    opposite of each other. A pair of equal goals is given once. A pair without scores is a reject,
    ``no_goal_score``.

    Args:
        pairs: rows of table ``preference``, with ``chosen_score`` and ``rejected_score``.
        instruction: holds ``{goal}``.
    """
    if "{goal}" not in instruction:
        raise InputError(f"the goal's instruction does not say {{goal}}: {instruction[:80]!r}")
    scored = pl.all_horizontal(pl.col(f"{side}_score").is_finite().fill_null(value=False) for side in _SIDES)
    # An earlier flip of the label is part of the pair here, and no exchange of these rows.
    columns = [c for c in pairs.columns if c in TABLES["reward_augmented"].column_names()]
    wanted = pairs.select(*columns, *(f"{side}_score" for side in _SIDES))
    both = reward_augmented(wanted.filter(scored), chosen_score="chosen_score", rejected_score="rejected_score")
    frame = both.with_columns(
        goal_of=pl.when("flipped").then(pl.lit("rejected")).otherwise(pl.lit("chosen")),
        prompt=_with_goal(instruction),
    )
    rejects = rejects_frame(
        wanted.filter(~scored),
        table="reward_augmented",
        stage="reward_augmented",
        row_id=pl.col("pair_id"),
        rule="no_goal_score",
        reason="the answers have no score of every model, or none on one scale: there is no goal to ask for",
    )
    return Built(frame.select(TABLES["reward_augmented"].column_names()), rejects)


def _finite(values: pl.Expr) -> pl.Expr:
    return pl.when(values.is_finite()).then(values)


def _scaled(values: pl.Expr, found: pl.Series, scale: Sequence[float]) -> pl.Expr:
    lowest, highest = scale
    low, high = (float(found.quantile(q, "linear") or 0.0) for q in (0.01, 0.99))
    if high <= low:
        return values * 0.0 + (lowest + highest) / 2
    return (lowest + (values - low) / (high - low) * (highest - lowest)).clip(lowest, highest)


def _with_goal(instruction: str) -> pl.Expr:
    """``prompt`` with the goal in its system message."""
    goal = pl.col("goal").cast(pl.String)
    parts = [pl.lit(part) for part in instruction.split("{goal}")]
    said = pl.concat_str(parts[0], *(piece for part in parts[1:] for piece in (goal, part)))
    first = pl.col("prompt").list.first()
    has_own = first.struct.field("role") == "system"
    content = pl.when(has_own).then(pl.format("{}\n\n{}", first.struct.field("content"), said)).otherwise(said)
    system = pl.concat_list(pl.struct(role=pl.lit("system"), content=content))
    rest = pl.when(has_own).then(pl.col("prompt").list.slice(1)).otherwise("prompt")
    return pl.concat_list(system, rest)

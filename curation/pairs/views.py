"""Pairs seen differently: flipped, softened, weighed, conditioned on a goal. Candidates are never changed.

What a trainer reads of these columns: ``margin`` (TRL's reward and DPO trainers), ``label_smoothing`` and
``label_probability`` (cDPO, rDPO), ``weight``. How a pair is turned round is in ``flipping``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Literal, NamedTuple, get_args

import polars as pl

from curation.errors import InputError, closest
from curation.pairs.flipping import columns_of_all_pairs, flip_pairs, twin_of, was_flipped

__all__ = [
    "BAND_ACTIONS",
    "BandAction",
    "BandView",
    "apply_bands",
    "pair_weight",
    "reward_augmented",
]

BandAction = Literal["keep", "drop", "flip", "soft_label", "margin", "weight", "uncertainty_weight"]
BAND_ACTIONS: Final[tuple[BandAction, ...]] = get_args(BandAction)


class BandView(NamedTuple):
    """Pairs after their bands' actions."""

    frame: pl.DataFrame
    rejects: pl.DataFrame
    """``row``, ``rule`` (``band_dropped``), ``value`` (the band), ``reason``."""


def apply_bands(frame: pl.DataFrame, actions: Mapping[str, BandAction | Sequence[BandAction]]) -> BandView:
    """Do with each ``strength_band`` what the recipe says.

    Every row gets ``label_smoothing`` (0 unless ``soft_label``: then 1 − ``label_probability``, at most 0.5, which
    turns no label round), ``margin`` (0 unless ``margin``: then ``strength_mean``, at least 0) and ``weight`` (1
    unless asked for; see :func:`pair_weight`). A column that the frame has of that name stays as it is where no
    band asks for another. A band may have several actions; a band without any is kept as it is, and so is a pair
    without a band.

    Raises:
        InputError: when a band or an action is not known, or the strength columns are missing.
    """
    from curation.scores.strength_bands import BANDS

    wanted = {band: (given,) if isinstance(given, str) else tuple(given) for band, given in actions.items()}
    for band, names in wanted.items():
        if band not in BANDS:
            raise InputError(f"band {band!r} is not known: {', '.join(BANDS)}{closest(band, BANDS)}")
        for name in names:
            if name not in BAND_ACTIONS:
                raise InputError(f"action {name!r} of band {band!r} is not known: {', '.join(BAND_ACTIONS)}")
    asked = {action for names in wanted.values() for action in names}
    needed = ["strength_band", "strength_mean", "label_probability"]
    needed += ["strength_std"] if "uncertainty_weight" in asked else []
    for column in needed:
        if column not in frame.columns:
            raise InputError(f"column {column!r} is missing: run `curation strength` first")

    def has(action: BandAction) -> pl.Expr:
        asked_for = [band for band, names in wanted.items() if action in names]
        return pl.col("strength_band").is_in(asked_for).fill_null(value=False)

    numbered = frame.with_row_index("_index")
    dropped = numbered.filter(has("drop")).select(
        row=pl.col("_index").cast(pl.Int64),
        rule=pl.lit("band_dropped"),
        value=pl.col("strength_band"),
        reason=pl.lit("the recipe drops pairs of this strength band"),
    )
    kept = frame.filter(~has("drop"))
    marked = kept.with_columns(has(action).alias(f"_{action}") for action in BAND_ACTIONS)
    flips = "flip" in asked
    marked = marked.drop("margin", strict=False) if "margin" in asked else marked  # every row gets another
    turned = flip_pairs(marked, pl.col("_flip")) if flips else marked.with_columns(flipped=was_flipped(marked))
    right, mean = pl.col("label_probability"), pl.col("strength_mean")
    targets = {
        "label_smoothing": ({"soft_label"}, pl.when("_soft_label").then(1 - right.clip(0.5, 1.0)).otherwise(0.0)),
        "margin": ({"margin"}, pl.when("_margin").then(mean.clip(lower_bound=0.0)).otherwise(0.0)),
        "weight": ({"weight", "uncertainty_weight"}, pair_weight(right, spread="strength_std" in frame.columns)),
    }
    view = turned.with_columns(
        value.alias(column) for column, (by, value) in targets.items() if by & asked or column not in frame.columns
    )
    return BandView(view.drop(f"_{action}" for action in BAND_ACTIONS), dropped)


def pair_weight(right: pl.Expr, *, spread: bool = True) -> pl.Expr:
    """``weight`` of pairs that columns ``_weight`` and ``_uncertainty_weight`` mark; 1 for the others.

    ``weight``: 2 P(label right) − 1, at least 0, so that a label which is probably wrong never weighs.
    ``uncertainty_weight``: exp(−σ²) of the models' margins (Zhang et al. 2025, Ctrl-U: the variance of rewards is
    their uncertainty U, and a loss counts e^−U times). Both: their product.

    Args:
        right: the probability.
        spread: whether there is ``strength_std``, σ.
    """
    by_label = pl.when("_weight").then((2 * right - 1).clip(lower_bound=0.0)).otherwise(1.0).fill_null(1.0)
    if not spread:
        return by_label
    certain = pl.when("_uncertainty_weight").then((-(pl.col("strength_std") ** 2)).exp()).otherwise(1.0)
    return by_label * certain.fill_null(1.0)


def reward_augmented(frame: pl.DataFrame, *, chosen_score: str, rejected_score: str) -> pl.DataFrame:
    """Each pair twice, conditioned on a goal score (Zhang et al. 2024, reward-augmented data).

    With goal g = the chosen answer's score the order stays, with g = the rejected answer's score it is
    exchanged; under goal g an answer of score r is worth R(g) = −(g − r)². Adds ``goal``,
    ``chosen_goal_reward`` and ``rejected_goal_reward``. A pair of equal scores is given once.

    Raises:
        InputError: when a score column is missing.
    """
    for name in (chosen_score, rejected_score):
        if name not in frame.columns:
            raise InputError(f"score column {name!r} is missing: found {', '.join(frame.columns)}")
    numbered = frame.with_row_index("_row").with_columns(_c=pl.col(chosen_score), _r=pl.col(rejected_score))
    # Turned nowhere, so that both halves have the same types.
    same = flip_pairs(numbered.with_columns(goal=pl.col("_c")), pl.lit(value=False))
    other = flip_pairs(
        numbered.filter(pl.col("_c") != pl.col("_r")).with_columns(goal=pl.col("_r")), pl.lit(value=True)
    )
    if twin_of(chosen_score) != rejected_score:
        other = other.with_columns(pl.col("_r").alias(chosen_score), pl.col("_c").alias(rejected_score))
    if other.height:
        same = same.with_columns(
            pl.lit(None, dtype=other.schema[name]).alias(name) for name in columns_of_all_pairs(same)
        )
    both = pl.concat([same.select(other.columns), other]).sort("_row", maintain_order=True)
    return both.with_columns(
        chosen_goal_reward=-((pl.col("goal") - pl.col(chosen_score)) ** 2),
        rejected_goal_reward=-((pl.col("goal") - pl.col(rejected_score)) ** 2),
    ).drop("_row", "_c", "_r")

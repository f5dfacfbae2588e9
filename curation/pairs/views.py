"""Pairs seen differently: flipped, softened, weighed, conditioned on a goal. Candidates are never changed.

What a trainer reads of these columns: ``margin`` (TRL's reward and DPO trainers), ``label_smoothing`` and
``label_probability`` (cDPO, rDPO), ``weight``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Literal, NamedTuple

import polars as pl

from curation.errors import InputError, closest

__all__ = ["BAND_ACTIONS", "BandAction", "BandView", "apply_bands", "flip_pairs", "reward_augmented", "soft_labels"]

BandAction = Literal["keep", "drop", "flip", "soft_label", "margin", "weight"]
BAND_ACTIONS: Final[tuple[BandAction, ...]] = ("keep", "drop", "flip", "soft_label", "margin", "weight")
_CHOSEN, _REJECTED = "chosen", "rejected"
_SIGNED: Final = (
    "strength_mean",
    "strength_length_controlled",
    "ches_margin",
    "label_margin",
    "margin",
    "difficulty",
)
_SHARES: Final = ("agreement", "label_probability", "label_noise_probability", "judge_probability")
_OTHER: Final = {_CHOSEN: _REJECTED, _REJECTED: _CHOSEN}


class BandView(NamedTuple):
    """Pairs after their bands' actions."""

    frame: pl.DataFrame
    rejects: pl.DataFrame
    """``row``, ``rule`` (``band_dropped``), ``value`` (the band), ``reason``."""


def flip_pairs(frame: pl.DataFrame, where: pl.Expr) -> pl.DataFrame:
    """Exchange chosen and rejected where ``where`` holds: every column of one with the other's namesake.

    Columns are namesakes when their names differ in ``chosen`` against ``rejected`` alone. Signed scores
    (``strength_mean``, ``margin``, …) change their sign, shares (``agreement``, ``label_probability``)
    become one minus themselves. ``flipped`` says which rows were exchanged. Scores that are not mirrored
    by an exchange (CHES, bands) are set to null there.
    """
    flip = where.fill_null(value=False)
    changed: list[pl.Expr] = []
    for name in frame.columns:
        twin = _twin(name)
        if twin and twin in frame.columns:
            changed.append(pl.when(flip).then(pl.col(twin)).otherwise(pl.col(name)).alias(name))
        elif name in _SIGNED:
            changed.append(pl.when(flip).then(-pl.col(name)).otherwise(pl.col(name)).alias(name))
        elif name in _SHARES:
            changed.append(pl.when(flip).then(1 - pl.col(name)).otherwise(pl.col(name)).alias(name))
        elif name == "judge_verdict":
            changed.append(pl.when(flip).then(pl.col(name).replace(_OTHER)).otherwise(pl.col(name)).alias(name))
        elif name == "length_ratio":
            changed.append(pl.when(flip).then(1 / pl.col(name)).otherwise(pl.col(name)).alias(name))
        elif name in ("ches", "ln_ches", "strength_band", "suggested_action"):
            changed.append(pl.when(flip).then(None).otherwise(pl.col(name)).alias(name))
    earlier = pl.col("flipped") if "flipped" in frame.columns else pl.lit(value=False)
    return frame.with_columns(*changed, flipped=earlier ^ flip)


def soft_labels(frame: pl.DataFrame, *, floor: float = 0.5) -> pl.DataFrame:
    """``label_smoothing`` = 1 − P(label right), at most 1 − floor, from ``label_probability``.

    The loss is −[(1−α) log σ(d) + α log σ(−d)] (``curation.scores.losses``). A floor of 0.5 never turns a
    label round; a floor of 0 lets it.
    """
    if "label_probability" not in frame.columns:
        raise InputError(f"column 'label_probability' is missing: found {', '.join(frame.columns)}")
    return frame.with_columns(label_smoothing=1 - pl.col("label_probability").clip(floor, 1.0))


def apply_bands(frame: pl.DataFrame, actions: Mapping[str, BandAction | Sequence[BandAction]]) -> BandView:
    """Do with each ``strength_band`` what the recipe says.

    Every row gets ``label_smoothing`` (0 unless ``soft_label``), ``margin`` (0 unless ``margin``: then
    ``strength_mean``, at least 0) and ``weight`` (1 unless ``weight``: then |2·label_probability − 1|).
    A band may have several actions; a band without any is kept as it is.

    Raises:
        InputError: when a band or an action is not known, or the strength columns are missing.
    """
    from curation.scores.strength import BANDS

    wanted = {band: (given,) if isinstance(given, str) else tuple(given) for band, given in actions.items()}
    for band, names in wanted.items():
        if band not in BANDS:
            raise InputError(f"band {band!r} is not known: {', '.join(BANDS)}{closest(band, BANDS)}")
        for name in names:
            if name not in BAND_ACTIONS:
                raise InputError(f"action {name!r} of band {band!r} is not known: {', '.join(BAND_ACTIONS)}")
    for column in ("strength_band", "strength_mean", "label_probability"):
        if column not in frame.columns:
            raise InputError(f"column {column!r} is missing: run `curation strength` first")

    def has(action: BandAction) -> pl.Expr:
        return pl.col("strength_band").is_in([band for band, names in wanted.items() if action in names])

    numbered = frame.with_row_index("_index")
    dropped = numbered.filter(has("drop")).select(
        row=pl.col("_index").cast(pl.Int64),
        rule=pl.lit("band_dropped"),
        value=pl.col("strength_band"),
        reason=pl.lit("the recipe drops pairs of this strength band"),
    )
    soft, margin, weight, flip = has("soft_label"), has("margin"), has("weight"), has("flip")
    kept = frame.filter(~has("drop"))
    marked = kept.with_columns(_soft=soft, _margin=margin, _weight=weight, _flip=flip)
    turned = flip_pairs(marked, pl.col("_flip"))
    smoothing = 1 - pl.col("label_probability").clip(0.5, 1.0)
    view = turned.with_columns(
        label_smoothing=pl.when("_soft").then(smoothing).otherwise(0.0),
        margin=pl.when("_margin").then(pl.col("strength_mean").clip(lower_bound=0.0)).otherwise(0.0),
        weight=pl.when("_weight").then((2 * pl.col("label_probability") - 1).abs()).otherwise(1.0),
    )
    return BandView(view.drop("_soft", "_margin", "_weight", "_flip"), dropped)


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
    same = numbered.with_columns(goal=pl.col("_c"))
    other = flip_pairs(
        numbered.filter(pl.col("_c") != pl.col("_r")).with_columns(goal=pl.col("_r")), pl.lit(value=True)
    )
    if _twin(chosen_score) != rejected_score:
        other = other.with_columns(pl.col("_r").alias(chosen_score), pl.col("_c").alias(rejected_score))
    same = same.with_columns(flipped=pl.lit(value=False)) if "flipped" not in same.columns else same
    both = pl.concat([same.select(other.columns), other]).sort("_row", maintain_order=True)
    return both.with_columns(
        chosen_goal_reward=-((pl.col("goal") - pl.col(chosen_score)) ** 2),
        rejected_goal_reward=-((pl.col("goal") - pl.col(rejected_score)) ** 2),
    ).drop("_row", "_c", "_r")


def _twin(name: str) -> str | None:
    """``chosen_x`` for ``rejected_x`` and the other way round."""
    if _CHOSEN in name:
        return name.replace(_CHOSEN, _REJECTED)
    return name.replace(_REJECTED, _CHOSEN) if _REJECTED in name else None

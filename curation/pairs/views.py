"""Pairs seen differently: flipped, softened, weighed, conditioned on a goal. Candidates are never changed.

What a trainer reads of these columns: ``margin`` (TRL's reward and DPO trainers), ``label_smoothing`` and
``label_probability`` (cDPO, rDPO), ``weight``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, get_args

import polars as pl

from curation.errors import InputError, closest
from curation.pairs.twin_types import common_type, with_common_types

__all__ = [
    "BAND_ACTIONS",
    "BandAction",
    "BandView",
    "apply_bands",
    "changed_by_a_flip",
    "flip_pairs",
    "pair_weight",
    "reward_augmented",
    "was_flipped",
]

BandAction = Literal["keep", "drop", "flip", "soft_label", "margin", "weight", "uncertainty_weight"]
BAND_ACTIONS: Final[tuple[BandAction, ...]] = get_args(BandAction)
_CHOSEN, _REJECTED = "chosen", "rejected"
_SIGNED: Final = (
    "strength_mean",
    "strength_length_controlled",
    "label_margin",
    "margin",
    "difficulty",
)
_SHARES: Final = (
    "agreement",
    "label_probability",
    "label_noise_probability",
    "judge_probability",
    "vote_probability",
)
_NOT_MIRRORED: Final = ("ches", "ln_ches", "strength_band", "suggested_action", "annotator_loss_rank")
_OF_ALL_PAIRS: Final = ("in_cycle", "cycle", "judged_both_ways")
"""What ``curation structure`` says of a pair among all of its prompt: one flip may make or break any circle."""
_TURNED_TWINS: Final = ("chosen_change", "rejected_change")
"""Of entanglement: with the answers exchanged the step is the opposite one, so that these change their sign too."""
_OTHER: Final = {_CHOSEN: _REJECTED, _REJECTED: _CHOSEN}
_OTHER_VOTE: Final = _OTHER | {"1": "0", "0": "1", "1.0": "0", "0.0": "1", "true": "false", "false": "true"}


class BandView(NamedTuple):
    """Pairs after their bands' actions."""

    frame: pl.DataFrame
    rejects: pl.DataFrame
    """``row``, ``rule`` (``band_dropped``), ``value`` (the band), ``reason``."""


def flip_pairs(frame: pl.DataFrame, where: pl.Expr) -> pl.DataFrame:
    """Exchange chosen and rejected where ``where`` holds: every column of one with the other's namesake.

    Columns are namesakes when their names differ in ``chosen`` against ``rejected`` alone. Signed scores
    (``strength_mean``, ``margin``, …) change their sign, shares (``agreement``, ``label_probability``)
    become one minus themselves, verdicts and lists of {voter, vote} name the other answer. ``annotator`` stays:
    it names who gave the label that was turned round. ``pair_id`` stays: it names the pair as it was built, and
    ``flipped`` says which rows are exchanged since. Scores that are not mirrored by an exchange (CHES, bands) are
    set to null there; what ``curation structure`` says (``in_cycle``, ``cycle``, ``judged_both_ways``) rests on all
    pairs, and is null in every row once one is exchanged.

    Raises:
        InputError: when two namesakes are of kinds that cannot change places, such as a text and messages, or
            ``margin`` holds numbers as text.
    """
    _need_turnable_margin(frame)
    frame = with_common_types(
        frame, ((n, twin) for n in frame.columns if (twin := _twin(n)) in frame.columns and twin)
    )
    flip = where.fill_null(value=False)
    changed = {name: _turned(frame, name) for name in changed_by_a_flip(frame)}
    structure = _of_all_pairs(frame)
    whole = {name: flip.any() if name in structure else flip for name in changed}
    return frame.with_columns(
        *(pl.when(whole[name]).then(turned).otherwise(name).alias(name) for name, turned in changed.items()),
        flipped=was_flipped(frame) ^ flip,
    )


def changed_by_a_flip(frame: pl.DataFrame) -> list[str]:
    """The columns that :func:`flip_pairs` changes, but for ``flipped``."""
    structure = _of_all_pairs(frame)
    return [name for name in frame.columns if name in structure or _turned(frame, name) is not None]


def _of_all_pairs(frame: pl.DataFrame) -> list[str]:
    """The columns of ``curation structure``; without ``in_cycle``, a column ``cycle`` is the user's own."""
    known = frame.schema.get("in_cycle") == pl.Boolean
    return [name for name in _OF_ALL_PAIRS if known and name in frame.columns]


def _need_turnable_margin(frame: pl.DataFrame) -> None:
    """Margins in words stay; numbers that are no numbers here would go on saying the opposite.

    Raises:
        InputError: for a ``margin`` of text, JSON text or lists among which there are numbers.
    """
    if "margin" not in frame.columns or not isinstance(
        kind := frame.schema["margin"], pl.String | pl.List | pl.Array
    ):
        return
    said = frame["margin"].drop_nulls()
    if isinstance(kind, pl.String):
        said = said.str.strip_chars(' "').cast(pl.Float64, strict=False).drop_nulls()
    elif not kind.inner.is_numeric():
        return
    if said.len():
        raise InputError(
            "column 'margin' cannot change its sign in a flip: it holds numbers as text, in lists, or beside "
            "values of other types; give each as one number, or null"
        )


def was_flipped(frame: pl.DataFrame) -> pl.Expr:
    """Whether an earlier view has exchanged the answers of a row."""
    kind, said = frame.schema.get("flipped"), pl.col("flipped")
    if kind == pl.String:  # of a CSV file
        said = said.str.strip_chars().str.to_lowercase() == "true"
    return said.fill_null(value=False) if kind in (pl.Boolean, pl.String) else pl.lit(value=False)


def _turned(frame: pl.DataFrame, name: str) -> pl.Expr | None:
    """What stands in a column once the two answers have changed places; None where it stays."""
    twin, kind = _twin(name), frame.schema[name]
    if twin and twin in frame.columns:
        return _of_the_twin(frame, name, twin)
    if name == "both_fall":
        known = set(_TURNED_TWINS) <= set(frame.columns)
        return pl.all_horizontal(pl.col(c) >= 0 for c in _TURNED_TWINS) if known else pl.lit(None, dtype=pl.Boolean)
    if isinstance(kind, pl.List) and isinstance(kind.inner, pl.Struct):
        return _turned_votes(name, dict(kind.inner.to_schema()))
    if name == "judge_verdict" and kind == pl.String:
        return pl.col(name).replace(_OTHER)
    nothing = name in _NOT_MIRRORED or name in _of_all_pairs(frame)
    return pl.lit(None, dtype=kind) if nothing else _turned_number(name, kind)


def _of_the_twin(frame: pl.DataFrame, name: str, twin: str) -> pl.Expr:
    kind, other = frame.schema[name], frame.schema[twin]
    numbers = kind.is_numeric() and other.is_numeric()
    if common_type(kind, other) is None:
        raise InputError(
            f"columns {name!r} ({kind}) and {twin!r} ({other}) cannot change places in a flip: "
            f"give both in one form"
        )
    return -pl.col(twin) if name in _TURNED_TWINS and numbers else pl.col(twin)


def _turned_number(name: str, kind: pl.DataType) -> pl.Expr | None:
    """Ours are floats; a user's column of the same name may hold words, or grades from 1 to 5, and stays."""
    if name == "margin" and kind.is_numeric():
        return -pl.col(name).cast(pl.Int64) if kind.is_unsigned_integer() else -pl.col(name)
    if name in _SIGNED and kind.is_float():
        return -pl.col(name)
    if name in _SHARES and kind.is_float():
        return 1 - pl.col(name)
    return 1 / pl.col(name) if name == "length_ratio" and kind.is_float() else None


def _turned_votes(name: str, fields: Mapping[str, Any]) -> pl.Expr | None:
    """Votes for the other answer, whatever the column is called; None where these are no {voter, vote}."""
    if not {"voter", "vote"} <= set(fields):
        return None
    kind, vote = fields["vote"], pl.field("vote")
    if kind == pl.String:
        word = vote.str.strip_chars().str.to_lowercase()
        turned = pl.when(word.is_in(list(_OTHER_VOTE))).then(word.replace(_OTHER_VOTE)).otherwise(vote)
    elif kind == pl.Boolean:
        turned = ~vote
    elif kind.is_numeric():
        turned = pl.when(vote.is_in([0, 1])).then((1 - vote).cast(kind)).otherwise(vote)
    else:
        return None
    return pl.col(name).list.eval(pl.element().struct.with_fields(vote=turned))


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
    if _twin(chosen_score) != rejected_score:
        other = other.with_columns(pl.col("_r").alias(chosen_score), pl.col("_c").alias(rejected_score))
    if other.height:
        same = same.with_columns(pl.lit(None, dtype=other.schema[name]).alias(name) for name in _of_all_pairs(same))
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

"""What is done with each pair's label: a decision per pair, and the pairs as they look after it.

The actions themselves, on a file of pairs with texts, are in ``views``. No stage is here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import polars as pl

from curation.pairs.flipping import flip_pairs
from curation.pairs.views import BAND_ACTIONS, pair_weight
from curation.tables import concat_rejects, rejects_frame
from schemas.pair_labels import NOISE_SCORES

__all__ = ["Decided", "decide_labels", "relabelled"]

_ORDER: Final = BAND_ACTIONS[1:]
"""keep is none."""
_STAGE: Final = "pair_labels"


class Decided(NamedTuple):
    """Decisions, and the pairs that are dropped."""

    frame: pl.DataFrame
    """A row a pair, in order: the columns of table ``pair_labels``."""
    rejects: pl.DataFrame


def decide_labels(
    pairs: pl.DataFrame,
    *,
    bands: Mapping[str, Sequence[str]],
    suggestions: Mapping[str, Sequence[str]],
    drop_cycles: bool = False,
    unmatched: pl.Series | None = None,
) -> Decided:
    """One decision a pair from its strength band and from what label noise suggests.

    drop beats everything else. A pair that both ask to flip is flipped once. The probability behind
    ``label_smoothing`` and ``weight`` is that of label noise where there is one, else that of strength;
    without either a pair keeps smoothing 0 and weight 1.

    Args:
        pairs: ``pair_id``, ``strength_band``, ``strength_mean``, ``strength_std``, ``label_probability``,
            ``label_noise_probability``, ``suggested_action`` and ``in_cycle``; all but the first and the last
            may be null.
        bands: band to actions; ``suggestions``: suggested action (drop, flip) to actions.
        drop_cycles: drop the pairs on a cycle.
        unmatched: Boolean a pair: drop it to match lengths.
    """

    def has(action: str) -> pl.Expr:
        by_band = [band for band, names in bands.items() if action in names]
        by_noise = [word for word, names in suggestions.items() if action in names]
        banded = pl.col("strength_band").is_in(by_band).fill_null(value=False)
        return banded | pl.col("suggested_action").is_in(by_noise).fill_null(value=False)

    unmatched = pl.Series([False] * pairs.height, dtype=pl.Boolean) if unmatched is None else unmatched
    marked = pairs.with_columns(
        *(has(action).alias(f"_{action}") for action in _ORDER),
        _cycle=pl.col("in_cycle") & pl.lit(drop_cycles),
        _unmatched=unmatched,
    ).with_columns(_gone=pl.col("_drop") | pl.col("_cycle") | pl.col("_unmatched"))
    flipped = pl.col("_flip") & ~pl.col("_gone")
    given = pl.coalesce("label_noise_probability", "label_probability")
    right = pl.when(flipped).then(1 - given).otherwise(given)
    strength = pl.when(flipped).then(-pl.col("strength_mean")).otherwise(pl.col("strength_mean"))
    words = [pl.when(f"_{name}").then(pl.lit(name)) for name in _ORDER[1:]]
    asks_margin = any("margin" in names for names in (*bands.values(), *suggestions.values()))
    target = pl.when("_margin").then(strength.clip(lower_bound=0.0)).otherwise(0.0).fill_null(0.0)
    frame = marked.select(
        "pair_id",
        action=pl.when("_gone").then(pl.lit("drop")).otherwise(_joined(words)),
        flipped=flipped,
        label_smoothing=pl.when("_soft_label").then(1 - right.clip(0.5, 1.0)).otherwise(0.0).fill_null(0.0),
        weight=pair_weight(right),
        target_margin=target if asks_margin else pl.lit(None, dtype=pl.Float64),
        label_noise_probability="label_noise_probability",
        suggested_action="suggested_action",
        in_cycle="in_cycle",
    )
    return Decided(frame, _rejects(marked, bands, suggestions))


def relabelled(scores: pl.DataFrame, labels: pl.DataFrame) -> pl.DataFrame:
    """The pairs that are left, with their scores as they stand after the decisions.

    A flipped pair keeps its ``pair_id``, its ids, texts and scores change sides, and ``flipped`` says so.

    Args:
        scores: a row a pair; ``labels``: table ``pair_labels``.

    Returns:
        ``scores`` without the dropped pairs, and ``flipped``, ``label_action``, ``label_smoothing``,
        ``weight``, ``target_margin`` and those of ``NOISE_SCORES`` that ``labels`` has.
    """
    decisions = labels.select(
        "pair_id",
        "label_smoothing",
        "weight",
        "target_margin",
        *(name for name in NOISE_SCORES if name in labels.columns),
        label_action="action",
        _flip="flipped",
    )
    joined = scores.join(decisions, on="pair_id", how="inner", maintain_order="left")
    kept = joined.filter(pl.col("label_action") != "drop")
    return flip_pairs(kept, pl.col("_flip")).drop("_flip")


def _joined(words: Sequence[pl.Expr]) -> pl.Expr:
    joined = pl.concat_str(words, separator="+", ignore_nulls=True)
    return pl.when(joined == "").then(pl.lit("keep")).otherwise(joined)


def _rejects(
    marked: pl.DataFrame, bands: Mapping[str, Sequence[str]], suggestions: Mapping[str, Sequence[str]]
) -> pl.DataFrame:
    by_band = [band for band, names in bands.items() if "drop" in names]
    banded = pl.col("strength_band").is_in(by_band).fill_null(value=False)
    dropped = [word for word, names in suggestions.items() if "drop" in names]
    noisy = pl.col("_drop") & ~banded
    cycle = pl.col("_cycle") & ~pl.col("_drop")
    unmatched = pl.col("_unmatched") & ~pl.col("_drop") & ~pl.col("_cycle")

    def part(where: pl.Expr, rule: str, value: pl.Expr | None, reason: str) -> pl.DataFrame:
        return rejects_frame(
            marked.filter(where),
            table="pairs",
            stage=_STAGE,
            row_id=pl.col("pair_id"),
            rule=rule,
            value=value,
            reason=reason,
        )

    return concat_rejects(
        part(banded, "band_dropped", pl.col("strength_band"), "the recipe drops pairs of this strength band"),
        part(
            noisy,
            "label_noise_dropped",
            pl.col("label_noise_probability"),
            f"the recipe drops pairs whose suggested action is {' or '.join(dropped)}",
        ),
        part(cycle, "preference_cycle", None, "the preferences of the prompt's pairs go round in a circle"),
        part(unmatched, "length_not_matched", None, "dropped so that chosen is longer as often as shorter"),
    )

"""In which order pairs are trained on: easy to hard, or the other way round, in tiers. No pair is dropped.

What makes a pair hard is for the recipe to say: a small margin between its answers (Curry-DPO, Pattnaik et al.
2024), a weak preference, a high difficulty (Chen et al. 2024) or a high CHES (Razin et al. 2025).
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

import polars as pl

from curation.errors import InputError, closest

__all__ = ["EASY_WHEN", "Curriculum", "arrange"]

EASY_WHEN: Final[dict[str, Literal["high", "low"]]] = {
    "margin": "high",
    "strength_mean": "high",
    "agreement": "high",
    "label_probability": "high",
    "difficulty": "low",
    "ches": "low",
    "ln_ches": "low",
    "cosine": "low",
    "edit_distance": "high",
}
"""Scores that a curriculum may go by, and at which end its easy pairs are."""


class Curriculum(NamedTuple):
    """Pairs in order."""

    pairs: pl.DataFrame
    """The input's rows in the order of training, with ``curriculum_order`` (from 0), ``curriculum_tier`` (from
    0) and ``curriculum_score``."""
    missing: int
    """Pairs without the score: they come last, in the last tier, with a null ``curriculum_score``."""


def arrange(
    pairs: pl.DataFrame,
    *,
    by: str,
    hardest_first: bool = False,
    tiers: int = 3,
    within_prompt: bool = False,
) -> Curriculum:
    """Put pairs in the order of training.

    Args:
        pairs: ``pair_id``, ``prompt_id`` and the score.
        by: one of :data:`EASY_WHEN`.
        hardest_first: hard to easy.
        tiers: equal parts of the order, as equal as can be. With ``within_prompt`` the most that there are.
        within_prompt: tier 0 holds each prompt's easiest pair, tier 1 its second, and so on (what Curry-DPO
            does with its pairs of one prompt); a prompt's pairs beyond the last tier stay in the last.

    Within a tier the order is by score, then by identifier, so that the order of rows does not matter.

    Raises:
        InputError: when the score is not known or not there, or tiers is below 1.
    """
    if by not in EASY_WHEN:
        raise InputError(
            f"a curriculum cannot go by {by!r}{closest(by, EASY_WHEN)}; it can by {', '.join(EASY_WHEN)}"
        )
    if by not in pairs.columns:
        raise InputError(f"the pairs have no column {by!r} for the curriculum; found {', '.join(pairs.columns)}")
    if tiers < 1:
        raise InputError(f"a curriculum of {tiers} tiers, expected at least 1")
    score = pl.col(by).cast(pl.Float64)
    known = pairs.with_columns(curriculum_score=pl.when(score.is_finite()).then(score))
    high_first = (EASY_WHEN[by] == "high") != hardest_first
    ordered = known.sort("curriculum_score", "pair_id", descending=[high_first, False], nulls_last=True)
    if within_prompt:
        place = pl.int_range(pl.len(), dtype=pl.Int64).over("prompt_id")
        tiered = ordered.with_columns(curriculum_tier=pl.min_horizontal(place, pl.lit(tiers - 1, dtype=pl.Int64)))
    else:
        place = pl.int_range(pl.len(), dtype=pl.Int64)
        tiered = ordered.with_columns(curriculum_tier=place * tiers // pl.len().cast(pl.Int64))
    missing = known["curriculum_score"].null_count()
    last = pl.when(pl.col("curriculum_score").is_null()).then(pl.lit(tiers - 1, dtype=pl.Int64))
    tiered = tiered.with_columns(curriculum_tier=last.otherwise("curriculum_tier"))
    tiered = tiered.sort("curriculum_tier", maintain_order=True)
    numbered = tiered.with_columns(curriculum_order=pl.int_range(pl.len(), dtype=pl.Int64))
    columns = ("curriculum_order", "curriculum_tier", "curriculum_score")
    return Curriculum(numbered.select(*pairs.columns, *columns), missing)

"""Datasets that are other forms of a table: for reward models, for supervised tuning, and triplets.

They hold no row that the table they come from does not hold, so that its gates are theirs.
"""

from __future__ import annotations

from typing import Final

import polars as pl

__all__ = ["reward_frame", "sft_frame", "triplets_frame"]

_REWARD_EVIDENCE: Final = (
    "strength_std", "agreement", "label_probability", "strength_band", "flipped", "label_action", "label_smoothing",
    "weight",
)  # fmt: skip


def reward_frame(preference: pl.DataFrame) -> pl.DataFrame:
    """The rows of ``reward``: both whole dialogues and the margin, as TRL's RewardTrainer reads them.

    ``margin`` is the mean reward margin of the ensemble, as it is: below 0 where the models contradict the
    label. The trainer asks the better answer to be ahead by it (Wang et al. 2024, Secrets of RLHF II).

    Args:
        preference: rows of that table, in the order to keep.
    """
    return preference.select(
        "pair_id",
        "prompt_id",
        *(pl.concat_list("prompt", side).alias(side) for side in ("chosen", "rejected")),
        "margin",
        *(c for c in _REWARD_EVIDENCE if c in preference.columns),
        "source",
        "split",
    )


def sft_frame(unpaired: pl.DataFrame) -> pl.DataFrame:
    """The rows of ``sft``: each answer that is good, as prompt and completion.

    Args:
        unpaired: rows of ``preference_unpaired``, where an answer that another pair rejects is no more.
    """
    return unpaired.filter("label").drop("label")


def triplets_frame(retrieval: pl.DataFrame) -> pl.DataFrame:
    """The rows of ``retrieval_triplets``: one for each hard negative, nearest first (``rank`` 1)."""
    ranks = [int(c.removeprefix("negative_")) for c in retrieval.columns if c.removeprefix("negative_").isdecimal()]
    numbered = retrieval.with_row_index("__row")
    score = pl.col("negative_scores").list
    scored = "negative_scores" in retrieval.columns
    parts = [
        numbered.select(
            "__row",
            "anchor_id",
            "positive_id",
            pl.lit(rank, dtype=pl.Int64).alias("rank"),
            "anchor",
            "positive",
            negative=f"negative_{rank}",
            **({"negative_score": score.get(rank - 1, null_on_oob=True)} if scored else {}),
            split="split",
        )
        for rank in sorted(ranks)
    ]
    return pl.concat(parts).sort("__row", "rank").drop("__row")

"""The scores that candidates are ranked by, as the recipe says. Which of them become pairs is in ``pairs``."""

from __future__ import annotations

import numpy as np
import polars as pl

from curation.pairs.margin_scales import REWARD_SCALE
from curation.scores.margins import robust_scale
from curation.stages.brought import scores_of_sources
from curation.stages.constructed import not_ranked
from curation.stages.context import Context
from curation.stages.rewards import candidate_rewards

__all__ = ["compared_column", "scored_candidates"]


def scored_candidates(context: Context) -> pl.DataFrame:
    """Every candidate with the score that ranks it: prompt_id, candidate_id, score, scale.

    Scores of sources have ``compared``, too, and a candidate has a row for each value of it.
    """
    candidates = (
        context.workspace.scan("candidates")
        .select("prompt_id", "candidate_id")
        .collect()
        .join(not_ranked(context), on="candidate_id", how="anti", maintain_order="left")
    )
    if context.recipe.pairs.score == "provided":
        scores = scores_of_sources(context).select("candidate_id", "compared", "scale", "score")
        return candidates.join(scores, on="candidate_id", how="left", maintain_order="left")
    # Means over different models could not be compared: an answer is ranked where every model has scored it.
    known = candidate_rewards(context, candidates["candidate_id"])
    rewards = known.filter(~pl.col("rewards").list.eval(pl.element().is_null()).list.any())
    candidates = candidates.with_columns(scale=pl.lit(REWARD_SCALE))
    if rewards.is_empty():
        return candidates.with_columns(score=pl.lit(None, dtype=pl.Float64))
    values = np.asarray(rewards["rewards"].to_list(), dtype=np.float64)
    centred = (values - np.median(values, axis=0)) / robust_scale(values - np.median(values, axis=0))
    scores = rewards.select("candidate_id").with_columns(score=pl.Series(centred.mean(axis=1)))
    return candidates.join(scores, on="candidate_id", how="left", maintain_order="left")


def compared_column(candidates: pl.DataFrame) -> str | None:
    """The column that says which scores of a prompt may be compared; None where all may."""
    return "compared" if "compared" in candidates.columns else None

"""Rewards of sampled answers, before they are candidates; kept in the ledger like all rewards. No stage is here."""

from __future__ import annotations

import polars as pl

from curation.recipe.sampling import Sampling
from curation.stages.context import Context
from curation.stages.rewards import RewardStep, whole_means
from curation.text import response_id

__all__ = ["sample_rewards"]


def sample_rewards(context: Context, sampling: Sampling, answers: pl.DataFrame) -> pl.Series:
    """The mean of the values of the section's reward model for each answer; null where it could give none.

    Args:
        answers: ``prompt_id``, ``messages``, ``response``.
    """
    ids = [response_id(p, r) for p, r in answers.select("prompt_id", "response").iter_rows()]
    rows = answers.select("prompt_id", "messages", "response", candidate_id=pl.Series(ids, dtype=pl.String))
    step = RewardStep(sampling.reward)
    if rows.is_empty():
        return pl.Series("score", [], dtype=pl.Float64)
    context.compute(step, rows)
    means = whole_means(context.ledger.fetch(step.key, rows["candidate_id"]))
    return rows.join(means, on="candidate_id", how="left", maintain_order="left")["score"]

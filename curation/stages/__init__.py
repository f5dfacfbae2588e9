"""The stages of a run, one module each, in the order in which they run.

A stage reads tables, calls the library, and writes one table or one dataset. Order and Dagster are not its
business.
"""

from __future__ import annotations

from typing import Final

from curation.stages import (
    candidates,
    constructed,
    embeddings,
    gates,
    generations,
    hygiene,
    inputs,
    judgements,
    mutations,
    pair_labels,
    pair_scores,
    pairs,
    policy_stats,
    preference,
    preference_unpaired,
    prompts,
    publication,
    push,
    refusal,
    refusals,
    report,
    requests,
    retrieval,
    reward_augmented,
    reward_heads,
    rewards,
)
from curation.stages.context import Stage

__all__ = ["STAGES"]

STAGES: Final[tuple[Stage, ...]] = (
    inputs.STAGE,
    hygiene.STAGE,
    mutations.STAGE,
    prompts.STAGE,
    generations.STAGE,
    constructed.STAGE,
    candidates.STAGE,
    embeddings.STAGE,
    reward_heads.STAGE,
    rewards.STAGE,
    requests.STAGE,
    refusals.STAGE,
    policy_stats.STAGE,
    pairs.STAGE,
    judgements.STAGE,
    pair_scores.STAGE,
    pair_labels.STAGE,
    preference.STAGE,
    preference_unpaired.STAGE,
    reward_augmented.STAGE,
    refusal.STAGE,
    retrieval.STAGE,
    gates.STAGE,
    *publication.STAGES,
    report.STAGE,
    push.STAGE,
)

"""What the tables are: one schema for each, and the map from a table's name to it. Nothing else is known here."""

from __future__ import annotations

from typing import Final

import dataframely as dy

from schemas.bookkeeping import Failures, Gates, Rejects, Runs, Searches, Waterfall
from schemas.candidates import Candidates, Generations
from schemas.constructed import Constructed
from schemas.embeddings import Embeddings
from schemas.forgetting import Forgotten, Rewrites
from schemas.hygiene import Hygiene
from schemas.inputs import Inputs
from schemas.judgements import Judgements
from schemas.mutations import Mutations
from schemas.pair_labels import PairLabels
from schemas.pairs import Pairs, PairScores
from schemas.policy_stats import PolicyStats
from schemas.prompts import Prompts
from schemas.published import Preference, PreferenceUnpaired, Refusal, Retrieval, RewardAugmented
from schemas.refusals import RefusalPairs, RefusalQuotas, Refusals, Requests
from schemas.review import ReviewLabels
from schemas.rewards import Rewards
from schemas.voters import Voters

__all__ = ["TABLES"]

TABLES: Final[dict[str, type[dy.Schema]]] = {
    "inputs": Inputs,
    "hygiene": Hygiene,
    "mutations": Mutations,
    "prompts": Prompts,
    "candidates": Candidates,
    "generations": Generations,
    "constructed": Constructed,
    "embeddings": Embeddings,
    "rewards": Rewards,
    "requests": Requests,
    "refusals": Refusals,
    "refusal_pairs": RefusalPairs,
    "refusal_quotas": RefusalQuotas,
    "policy_stats": PolicyStats,
    "pairs": Pairs,
    "judgements": Judgements,
    "pair_scores": PairScores,
    "pair_labels": PairLabels,
    "voters": Voters,
    "preference": Preference,
    "preference_unpaired": PreferenceUnpaired,
    "reward_augmented": RewardAugmented,
    "refusal": Refusal,
    "retrieval": Retrieval,
    "review_labels": ReviewLabels,
    "rejects": Rejects,
    "failures": Failures,
    "waterfall": Waterfall,
    "searches": Searches,
    "gates": Gates,
    "runs": Runs,
    "rewrites": Rewrites,
    "forgotten": Forgotten,
}
"""Table name to schema: the first part of a workspace that a newcomer should read."""

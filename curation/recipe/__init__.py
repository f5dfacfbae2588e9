"""The recipe: one YAML file, validated, that holds the whole configuration of a run. It runs nothing.

Every threshold lives here, with the source of its default in its description. A section that is left out
means that its stage is left out, except where a default is given.
"""

from __future__ import annotations

from curation.recipe.gates import Gates
from curation.recipe.generation import Costs, Generation, Pool, Price
from curation.recipe.hygiene import AnswerDuplicates, Contamination, Duplicates, Hygiene, PairDuplicates
from curation.recipe.loading import load_costs, load_recipe, load_rewards
from curation.recipe.models import Encoder, PairJudge, Policy, Reward
from curation.recipe.negatives import Negatives
from curation.recipe.pairs import Pairs, Selection, SelectionRule
from curation.recipe.publishing import DATASETS, MADE_FROM, Hub, Publish, Splits
from curation.recipe.ray import Ray, RayWorkers
from curation.recipe.refusals import RefusalDataset, RefusalDetection, RefusalJudge
from curation.recipe.sources import Source
from curation.recipe.strength import BandActions, LabelNoise, NoiseActions, RewardTraining, Strength
from curation.recipe.whole import Recipe

__all__ = [
    "DATASETS",
    "MADE_FROM",
    "AnswerDuplicates",
    "BandActions",
    "Contamination",
    "Costs",
    "Duplicates",
    "Encoder",
    "Gates",
    "Generation",
    "Hub",
    "Hygiene",
    "LabelNoise",
    "Negatives",
    "NoiseActions",
    "PairDuplicates",
    "PairJudge",
    "Pairs",
    "Policy",
    "Pool",
    "Price",
    "Publish",
    "Ray",
    "RayWorkers",
    "Recipe",
    "RefusalDataset",
    "RefusalDetection",
    "RefusalJudge",
    "Reward",
    "RewardTraining",
    "Selection",
    "SelectionRule",
    "Source",
    "Splits",
    "Strength",
    "load_costs",
    "load_recipe",
    "load_rewards",
]

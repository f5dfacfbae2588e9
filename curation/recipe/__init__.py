"""The recipe: one YAML file, validated, that holds the whole configuration of a run. It runs nothing.

Every threshold lives here, with the source of its default in its description. A section that is left out
means that its stage is left out, except where a default is given.
"""

from __future__ import annotations

from curation.recipe.gates import Gates
from curation.recipe.generation import Generation
from curation.recipe.loading import load_recipe
from curation.recipe.models import Encoder, Policy, RefusalDetection, Reward
from curation.recipe.negatives import Negatives
from curation.recipe.pairs import Pairs, Selection, SelectionRule
from curation.recipe.publishing import DATASETS, Publish, Splits
from curation.recipe.sources import Source
from curation.recipe.whole import Recipe

__all__ = [
    "DATASETS",
    "Encoder",
    "Gates",
    "Generation",
    "Negatives",
    "Pairs",
    "Policy",
    "Publish",
    "Recipe",
    "RefusalDetection",
    "Reward",
    "Selection",
    "SelectionRule",
    "Source",
    "Splits",
    "load_recipe",
]

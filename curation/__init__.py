"""Preference pairs, refusal data and hard negatives that carry their evidence.

The functions here work on polars frames and need no workspace; ``run`` does everything from a recipe. Each is
imported when it is first used, so that ``import curation`` stays quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from curation.hygiene.contamination import decontaminate
    from curation.hygiene.duplicates import deduplicate
    from curation.negatives.mining import mine_hard_negatives
    from curation.pairs.construction import build_pairs
    from curation.pipeline import run
    from curation.recipe import Recipe
    from curation.refusals.detection import detect_refusals
    from curation.scores.ches_frames import ches
    from curation.scores.label_noise import label_noise
    from curation.scores.strength import preference_strength

__all__ = [
    "Recipe",
    "build_pairs",
    "ches",
    "decontaminate",
    "deduplicate",
    "detect_refusals",
    "label_noise",
    "mine_hard_negatives",
    "preference_strength",
    "run",
]

_HOMES = {
    "Recipe": "curation.recipe",
    "build_pairs": "curation.pairs.construction",
    "ches": "curation.scores.ches_frames",
    "decontaminate": "curation.hygiene.contamination",
    "deduplicate": "curation.hygiene.duplicates",
    "detect_refusals": "curation.refusals.detection",
    "label_noise": "curation.scores.label_noise",
    "mine_hard_negatives": "curation.negatives.mining",
    "preference_strength": "curation.scores.strength",
    "run": "curation.pipeline",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'curation' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])

"""The guides name every pair strategy, curriculum score and gate."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from curation.pairs.curriculum import EASY_WHEN
from curation.publish.gates import DEFAULT_THRESHOLDS
from curation.recipe.gates import GateName, Gates
from curation.recipe.pairs import CurriculumOrder, PairStrategy

DOCS = Path(__file__).resolve().parents[1] / "docs"


def test_every_strategy_and_curriculum_score_is_in_the_guide_to_pairs() -> None:
    guide = (DOCS / "pairs.md").read_text()
    names = (*get_args(PairStrategy), *EASY_WHEN)
    assert [name for name in names if f"`{name}`" not in guide] == []


def test_every_gate_is_in_the_guide_and_in_the_recipe() -> None:
    guide = (DOCS / "gates.md").read_text()
    assert [name for name in DEFAULT_THRESHOLDS if f"`{name}`" not in guide] == []
    assert set(get_args(GateName)) == set(DEFAULT_THRESHOLDS) == set(Gates().thresholds)
    assert Gates().thresholds == {name: float(value) for name, value in DEFAULT_THRESHOLDS.items()}


def test_the_recipe_offers_every_score_of_a_curriculum() -> None:
    assert set(get_args(CurriculumOrder.model_fields["by"].annotation)) == set(EASY_WHEN)

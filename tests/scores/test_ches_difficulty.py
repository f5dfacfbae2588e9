"""Difficulty, ranking accuracy and gradient entanglement against the numbers in the papers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.errors import InputError
from curation.scores.difficulty import (
    difficulty,
    dpo_loss_threshold,
    idealized_accuracy,
    idealized_margin,
    per_token,
    ranking_accuracy,
)
from curation.scores.entanglement import entanglement, entanglement_of_pairs


def test_difficulty_is_positive_where_the_reference_prefers_rejected() -> None:
    assert difficulty([-10.0, -3.0], [-4.0, -5.0]).tolist() == [6.0, -2.0]


@pytest.mark.parametrize(("c", "expected"), [(5.0, 0.4741), (30.0, 0.0486)])
def test_loss_threshold(c: float, expected: float) -> None:
    assert dpo_loss_threshold(c, 0.1) == pytest.approx(expected, abs=5e-5)


@given(st.floats(-50, 50), st.floats(0.01, 2), st.floats(-80, 80))
def test_a_pair_ranks_correctly_where_its_loss_is_at_most_the_threshold(c: float, beta: float, now: float) -> None:
    """``now`` is log π(chosen) − log π(rejected); the reference's is −c."""
    loss = math.log1p(math.exp(-beta * (now + c))) if beta * (now + c) > -700 else math.inf
    if abs(now) > 1e-6:
        assert (loss <= float(dpo_loss_threshold(c, beta))) == (now >= 0)


@pytest.mark.parametrize(("beta", "expected"), [(0.1, 5.986), (1.0, -3.901)])
def test_idealized_margin(beta: float, expected: float) -> None:
    assert idealized_margin([-5.0], [0.0], alpha=0.75, beta=beta)[0] == pytest.approx(expected, abs=5e-4)


def test_accuracies() -> None:
    chosen, rejected = [-1.0, -5.0, -2.0, np.nan], [-2.0, -1.0, -2.0, -1.0]
    assert ranking_accuracy(chosen, rejected) == pytest.approx(2 / 3)
    assert idealized_accuracy(chosen, rejected, alpha=0.75, beta=0.1) == 1.0
    assert idealized_accuracy(chosen, rejected, alpha=0.75, beta=1.0) == pytest.approx(2 / 3)


def test_accuracy_of_nothing_is_nan() -> None:
    assert math.isnan(ranking_accuracy([], []))


def test_per_token() -> None:
    assert per_token([-6.0, -2.0], [3, 1]).tolist() == [-2.0, -2.0]
    assert math.isnan(per_token([0.0], [0])[0])


@pytest.mark.parametrize("alpha", [0.0, 1.0, 1.5])
def test_impossible_share_is_refused(alpha: float) -> None:
    with pytest.raises(InputError, match="alpha"):
        idealized_margin([0.0], [0.0], alpha=alpha, beta=0.1)


def test_beta_must_be_positive() -> None:
    with pytest.raises(InputError, match="beta"):
        dpo_loss_threshold(1.0, 0.0)


def test_entanglement_example() -> None:
    found = entanglement(4.0, 9.0, 5.0)
    assert (float(found.chosen_change), float(found.rejected_change)) == (-1.0, -4.0)
    assert bool(found.both_fall)


def test_orthogonal_gradients_are_not_entangled() -> None:
    found = entanglement(4.0, 9.0, 0.0)
    assert not found.both_fall
    assert not found.both_rise


def test_entanglement_of_every_pair() -> None:
    found = entanglement_of_pairs([[4.0, 5.0], [5.0, 9.0]])
    assert found.both_fall.tolist() == [[True, True], [False, True]]
    assert found.both_rise.tolist() == [[True, False], [True, True]]

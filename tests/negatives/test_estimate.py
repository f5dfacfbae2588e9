"""Shares of false negatives: worked examples, and intervals that cover."""

from __future__ import annotations

import math

import numpy as np
import pytest

from curation.errors import InputError
from curation.negatives.estimate import labelled_share, predicted_share


def binomial_tail(k: int, n: int, p: float) -> float:
    """P(X ≥ k)."""
    return sum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k, n + 1))


@pytest.mark.parametrize(("k", "n"), [(0, 10), (3, 40), (20, 20), (7, 100)])
def test_interval_ends_have_the_exact_tail_probabilities(k: int, n: int) -> None:
    share = labelled_share(k, n)
    assert share.share == pytest.approx(k / n)
    assert share.low == 0 if k == 0 else binomial_tail(k, n, share.low) == pytest.approx(0.025)
    assert share.high == 1 if k == n else 1 - binomial_tail(k + 1, n, share.high) == pytest.approx(0.025)


def test_predicted_share_is_the_published_example() -> None:
    estimate = predicted_share(
        [1, 1, 0, 0, 1, 0], [1, 0, 0, 1, 0, 0], labelled=[1, 0, 0, 1, 0, 0], probability=1 / 3
    )
    assert estimate.share == pytest.approx(1.0)
    assert (1.0 - estimate.low) / 1.959964 == pytest.approx(0.447, abs=5e-4)
    assert estimate.labels == 2


def test_predicted_share_covers_the_truth_with_a_biased_predictor() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(300):
        truth = rng.random(2_000) < 0.2
        guess = np.clip(0.5 * truth + 0.4 * rng.random(2_000), 0, 1)
        labelled = rng.random(2_000) < 0.15
        estimate = predicted_share(guess, truth, labelled=labelled, probability=0.15)
        covered += estimate.low <= truth.mean() <= estimate.high
    assert covered >= 0.92 * 300


def test_impossible_counts_are_an_error() -> None:
    with pytest.raises(InputError, match="found 3 false negatives of 2 labels"):
        labelled_share(3, 2)
    with pytest.raises(InputError, match="no row has a label"):
        predicted_share([0.5], [0], labelled=[False], probability=0.5)
    with pytest.raises(InputError, match="outside \\(0, 1\\]"):
        predicted_share([0.5], [0], labelled=[True], probability=0.0)


def test_labels_that_all_agree_do_not_make_sure() -> None:
    none = predicted_share([0.0] * 1_000, [0] * 1_000, labelled=[True] * 20 + [False] * 980, probability=0.02)
    assert (none.share, none.low) == (0, 0)
    assert none.high == pytest.approx(labelled_share(0, 20).high)
    every = predicted_share([1.0] * 40, [1] * 40, labelled=[True] * 20 + [False] * 20, probability=0.5)
    assert (every.low, every.high) == (pytest.approx(labelled_share(20, 20).low), 1)


@pytest.mark.parametrize("guess", [float("nan"), 1.5, -0.1])
def test_predictions_that_are_no_probabilities_are_an_error(guess: float) -> None:
    with pytest.raises(InputError, match=r"outside \[0, 1\] or NaN"):
        predicted_share([guess, 0.5], [1, 0], labelled=[True, True], probability=0.5)

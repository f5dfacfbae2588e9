"""Fitting of Bradley–Terry heads."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from curation.scores.bradley_terry import fit_bradley_terry, pair_log_likelihood


def problem(pairs: int, features: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    design = random.normal(size=(pairs, features))
    truth = random.normal(size=features) / np.sqrt(features)
    flip = random.random(pairs) > 1 / (1 + np.exp(-2 * design @ truth))
    return np.where(flip[:, None], -design, design), truth


@pytest.mark.parametrize(("pairs", "features"), [(200, 5), (30, 60)])
def test_the_fit_is_the_minimum_that_a_general_optimiser_finds(pairs: int, features: int) -> None:
    design, _ = problem(pairs, features)
    random = np.random.default_rng(1)
    targets, weights = random.uniform(0.5, 1, pairs), random.uniform(0, 2, pairs)
    penalty = random.uniform(0.5, 3, features)

    def loss(w: np.ndarray) -> float:
        p = np.clip(1 / (1 + np.exp(-design @ w)), 1e-12, 1 - 1e-12)
        ce = -(targets * np.log(p) + (1 - targets) * np.log(1 - p))
        return float((weights * ce).sum() + 0.5 * (penalty * w**2).sum())

    fitted = fit_bradley_terry(design, penalty=penalty, targets=targets, weights=weights)
    oracle = minimize(loss, np.zeros(features), method="BFGS", options={"gtol": 1e-6}).x
    assert loss(fitted) <= loss(oracle) + 1e-6
    np.testing.assert_allclose(fitted, oracle, atol=2e-3)


def test_swapping_pairs_and_targets_changes_nothing() -> None:
    design, _ = problem(100, 4)
    targets = np.full(100, 0.9)
    one = fit_bradley_terry(design, penalty=1.0, targets=targets)
    two = fit_bradley_terry(-design, penalty=1.0, targets=1 - targets)
    np.testing.assert_allclose(one, two, atol=1e-8)


def test_separable_pairs_stay_finite() -> None:
    weights = fit_bradley_terry(np.array([[1e3], [2e3]]), penalty=1e-3)
    assert np.isfinite(weights).all()
    assert weights[0] > 0


def test_the_truth_is_found_with_many_pairs() -> None:
    design, truth = problem(20_000, 6)
    np.testing.assert_allclose(fit_bradley_terry(design, penalty=1.0), 2 * truth, atol=0.1)


def test_log_likelihood_of_an_even_chance_is_ln_half() -> None:
    np.testing.assert_allclose(pair_log_likelihood(np.zeros(3)), np.log(0.5))

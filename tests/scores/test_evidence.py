"""Prior variances by the evidence of the labels."""

from __future__ import annotations

import numpy as np
import pytest

from curation.scores.evidence import choose_variances, log_evidence


def test_without_a_kernel_the_labels_are_coin_tosses() -> None:
    assert log_evidence(np.zeros((5, 5))) == pytest.approx(5 * np.log(0.5))


def test_one_pair_agrees_with_the_integral() -> None:
    """p(y) = ∫ σ(f) N(f; 0, v) df = 1/2 for every v; Laplace's approximation is near it."""
    for variance in (0.1, 1.0):
        assert log_evidence(np.array([[variance]])) == pytest.approx(np.log(0.5), abs=0.02)


def test_pairs_that_agree_are_likelier_together() -> None:
    together = log_evidence(np.full((4, 4), 2.0) + 1e-9 * np.eye(4))
    apart = log_evidence(2.0 * np.eye(4))
    assert together > apart + 1.0


def test_a_block_that_says_nothing_is_left_out_and_one_that_does_is_let_in() -> None:
    random = np.random.default_rng(0)
    signal = random.normal(size=(300, 3))
    flip = np.where(signal @ [1.0, -2.0, 0.5] + random.logistic(size=300) > 0, 1.0, -1.0)
    blocks = {"signal": signal * flip[:, None], "noise": random.normal(size=(300, 20))}
    found = choose_variances(blocks)
    assert found.variances["signal"] > 0
    assert found.variances["noise"] < found.variances["signal"]
    assert found.evidence > 20


def test_exchanging_answers_changes_nothing() -> None:
    random = np.random.default_rng(1)
    block = random.normal(0.3, 1.0, size=(120, 4))
    assert choose_variances({"a": block}) == choose_variances({"a": block.copy()})
    assert log_evidence(block @ block.T) == pytest.approx(log_evidence((-block) @ (-block).T))


def test_a_large_file_is_sampled_with_a_seed() -> None:
    block = np.random.default_rng(2).normal(0.5, 1.0, size=(500, 2))
    one = choose_variances({"a": block}, most_rows=100, seed=4)
    assert one == choose_variances({"a": block}, most_rows=100, seed=4)

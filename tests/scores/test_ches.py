"""CHES from Gram matrices and states: the worked example, and properties of the definition."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from curation.models.policy.stats import PolicyStats
from curation.models.protocols import Fault
from curation.scores.ches import ches_from_states, ches_matrix, ln_ches_matrix, pair_scores_from_stats

SUMS = hnp.arrays(np.float64, (4, 3), elements=st.floats(-100, 100))
LENGTHS = hnp.arrays(np.int64, (4,), elements=st.integers(1, 500))


def stats(sums: npt.NDArray[np.float64], tokens: list[int], faults: dict[int, Fault] | None = None) -> PolicyStats:
    k = len(sums)
    return PolicyStats(
        prompt_tokens=3, tokens=np.array(tokens), logps=-np.arange(1.0, k + 1), gram=sums @ sums.T,
        last_gram=sums @ sums.T / 2, edit=np.eye(k), grad_gram=None, token_logps=[np.zeros(1)] * k,
        answer_ids=[np.zeros(1, dtype=np.int64)] * k, faults=faults or {},
    )  # fmt: skip


def test_worked_example() -> None:
    chosen = [(1, 0), (0, 1), (1, 1)]
    rejected = [(1, 0), (1, 1), (0, 2)]
    assert ches_from_states(chosen, rejected) == (1.0, 0.25)


@given(SUMS, LENGTHS)
def test_matrices_equal_the_formula(sums: npt.NDArray[np.float64], lengths: npt.NDArray[np.int64]) -> None:
    plain, normalised = ches_matrix(sums @ sums.T), ln_ches_matrix(sums @ sums.T, lengths)
    for i in range(4):
        for j in range(4):
            inner, norm = float(sums[i] @ sums[j]), float(sums[i] @ sums[i])
            assert plain[i, j] == pytest.approx(inner - norm, abs=1e-6)
            slow = inner / (lengths[i] * lengths[j]) - norm / lengths[i] ** 2
            assert normalised[i, j] == pytest.approx(slow, abs=1e-6)


@given(SUMS)
def test_a_pair_of_equal_answers_scores_zero(sums: npt.NDArray[np.float64]) -> None:
    assert (np.diagonal(ches_matrix(sums @ sums.T)) == 0).all()


@given(SUMS)
def test_both_orders_add_up_to_minus_the_distance(sums: npt.NDArray[np.float64]) -> None:
    plain = ches_matrix(sums @ sums.T)
    distance = ((sums[:, None] - sums[None]) ** 2).sum(-1)
    assert np.allclose(plain + plain.T, -distance, atol=1e-5)


def test_all_ordered_pairs_come_by_chosen_then_rejected() -> None:
    scores = pair_scores_from_stats(stats(np.eye(3), [1, 2, 3]))
    pairs = list(zip(scores.chosen_index.tolist(), scores.rejected_index.tolist(), strict=True))
    assert pairs == [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)]


def test_pairs_of_a_candidate_with_a_fault_are_left_out() -> None:
    scores = pair_scores_from_stats(stats(np.eye(3), [1, 0, 3], {1: Fault("empty_response", "", "")}))
    assert scores.chosen_index.tolist() == [0, 2]
    assert scores.rejected_index.tolist() == [2, 0]


def test_chosen_pairs_only() -> None:
    scores = pair_scores_from_stats(stats(np.array([[1.0, 0.0], [2.0, 1.0]]), [2, 4]), [0], [1])
    assert scores.ches.tolist() == [1.0]
    assert scores.ln_ches.tolist() == [2 / 8 - 1 / 4]
    assert scores.difficulty.tolist() == [-1.0]
    assert scores.chosen_logp.tolist() == [-1.0]
    assert scores.rejected_tokens.tolist() == [4]


def test_answer_without_tokens_gives_nan() -> None:
    assert np.isnan(ln_ches_matrix(np.eye(2), [3, 0])[0, 1])

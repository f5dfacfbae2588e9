"""Selection for diversity, for a target and for lengths, against definitions and brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.errors import InputError
from curation.hygiene import selection


def unit(rows: int, dimension: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((rows, dimension))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def radius(vectors: np.ndarray, chosen: tuple[int, ...]) -> float:
    distances = np.linalg.norm(vectors[:, None] - vectors[None, list(chosen)], axis=2)
    return float(distances.min(axis=1).max())


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1_000))
def test_k_centre_is_within_twice_the_best_radius(seed: int) -> None:
    vectors = unit(9, 3, seed)
    best = min(radius(vectors, some) for some in itertools.combinations(range(9), 3))
    chosen = selection.k_centre(vectors, 3, seed=seed)
    assert len(set(chosen.tolist())) == 3
    assert radius(vectors, tuple(chosen.tolist())) <= 2 * best + 1e-5


def test_k_centre_takes_equal_rows_last() -> None:
    vectors = np.repeat(np.eye(3, dtype=np.float32), 4, axis=0)
    first = selection.k_centre(vectors, 12)
    assert sorted((first[:3] // 4).tolist()) == [0, 1, 2]
    assert sorted(first.tolist()) == list(range(12))


def coverage(vectors: np.ndarray, chosen: tuple[int, ...]) -> float:
    return float((vectors @ vectors[list(chosen)].T).max(axis=1).sum())


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1_000))
def test_plain_greedy_reaches_its_guarantee(seed: int) -> None:
    vectors = unit(9, 3, seed)
    best = max(coverage(vectors, some) for some in itertools.combinations(range(9), 3))
    chosen = selection.facility_location(vectors, 3, epsilon=0)
    # cos + 1 is monotone and non-negative, which the bound of 1 − 1/e needs.
    assert coverage(vectors, tuple(chosen.tolist())) + 9 >= (1 - 1 / np.e) * (best + 9)


def test_stochastic_greedy_is_near_plain_greedy() -> None:
    vectors = unit(400, 8, 0)
    plain, quick = (selection.facility_location(vectors, 20, epsilon=e) for e in (0, 0.01))
    assert len(set(quick.tolist())) == 20
    assert coverage(vectors, tuple(quick.tolist())) >= 0.95 * coverage(vectors, tuple(plain.tolist()))


def test_importance_weight_is_the_published_example() -> None:
    weight = selection.importance_log_weights(np.array([[3, 1]]), target=[0.8, 0.2], raw=[0.5, 0.5])
    assert weight[0] == pytest.approx(0.4937, abs=1e-4)


def test_texts_like_the_target_weigh_more() -> None:
    texts = ["the cat sat here", "stocks fell on monday", "a cat slept here", "bond yields rose again"]
    weights = selection.dsir_log_weights(texts, ["the cat slept here", "a cat sat there"])
    assert weights[[0, 2]].min() > weights[[1, 3]].max()


def test_gumbel_top_k_draws_in_proportion() -> None:
    weights = np.log([0.6, 0.3, 0.1])
    first = [int(selection.gumbel_top_k(weights, 1, seed=s)[0]) for s in range(6_000)]
    assert np.bincount(first) / 6_000 == pytest.approx([0.6, 0.3, 0.1], abs=0.02)


def test_whitening_gives_equal_variance() -> None:
    vectors = np.random.default_rng(0).standard_normal((5_000, 4)) * [10, 3, 1, 0.1]
    turned = selection.whitened(vectors, reference=vectors, ridge=0)
    assert turned.std(axis=0) == pytest.approx([0.5] * 4, abs=0.01)


def test_transport_prefers_rows_near_every_part_of_the_target() -> None:
    rng = np.random.default_rng(0)
    centres = np.eye(4, 6)
    rows = centres[np.repeat(np.arange(4), 10)] + 0.05 * rng.standard_normal((40, 6))
    target = centres[[0, 0, 1, 1]] + 0.05 * rng.standard_normal((4, 6))
    chosen = selection.transport_select(rows, target, 12)
    assert np.bincount(chosen // 10, minlength=4).tolist() == [6, 6, 0, 0]


def test_lengths_match_the_reference() -> None:
    rng = np.random.default_rng(0)
    lengths, reference = rng.gamma(2, 50, 5_000), rng.gamma(4, 40, 2_000)
    rows = selection.length_matched(lengths, reference, 500, seed=1)
    assert len(set(rows.tolist())) == len(rows) > 300
    for q in (0.1, 0.25, 0.5, 0.75):
        assert np.quantile(lengths[rows], q) == pytest.approx(np.quantile(reference, q), rel=0.1)


def test_a_missing_length_gives_nothing_rather_than_a_mismatch() -> None:
    assert len(selection.length_matched([1, 2, 3], [1, 2, 900, 901], 3, bins=2)) == 0


def test_more_rows_than_there_are_is_an_error() -> None:
    with pytest.raises(InputError, match="found 4, expected 0 to 3"):
        selection.k_centre(unit(3, 2, 0), 4)
    with pytest.raises(InputError, match="expected some of each"):
        selection.dsir_log_weights(["a"], [])


@pytest.mark.parametrize("count", [1, 5, 9, 99, 500])
def test_few_rows_of_matching_lengths_are_as_many_as_asked_for_and_of_all_lengths(count: int) -> None:
    lengths = np.arange(1_000)
    means = []
    for seed in range(20):
        rows = selection.length_matched(lengths, lengths, count, seed=seed)
        assert len(set(rows.tolist())) == count
        means.append(lengths[rows].mean())
        if count == 5:
            assert np.diff(rows).min() > 0
            assert rows[0] < 300
            assert rows[-1] >= 700
    assert np.mean(means) == pytest.approx(499.5, abs=250 / count**0.5)

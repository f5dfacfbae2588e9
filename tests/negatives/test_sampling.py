"""The draws: their distributions, and their limits."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from curation.negatives.filters import Candidates
from curation.negatives.sampling import margin_bins, pick


def candidates(scores: Any, alive: Any = None, positive: float = 1.0) -> Candidates:
    table = np.asarray(scores, np.float32)
    n, k = table.shape
    return Candidates(
        np.arange(n),
        np.tile(np.arange(k), (n, 1)),
        table,
        np.full(n, positive, np.float32),
        np.ones((n, k), np.bool_) if alive is None else np.asarray(alive, np.bool_),
    )


@pytest.mark.parametrize("sampling", ["top", "random", "weighted", "margin_bins"])
def test_only_the_living_are_drawn_and_never_too_many(sampling: Any) -> None:
    rng = np.random.default_rng(0)
    scores = -np.sort(-rng.random((50, 12)), axis=1)
    alive = rng.random((50, 12)) < 0.4
    chosen = pick(candidates(scores, alive), 3, sampling=sampling, temperature=0.1, rng=rng)
    assert not (chosen & ~alive).any()
    assert (chosen.sum(axis=1) == np.minimum(alive.sum(axis=1), 3)).all()


def test_top_takes_the_nearest_living() -> None:
    chosen = pick(
        candidates([[0.9, 0.8, 0.7, 0.6]], [[0, 1, 0, 1]]),
        1,
        sampling="top",
        temperature=1,
        rng=np.random.default_rng(),
    )
    assert chosen.tolist() == [[False, True, False, False]]


def test_weighted_draws_follow_the_softmax() -> None:
    scores = np.tile([0.5, 0.4, 0.2, 0.1], (40_000, 1))
    chosen = pick(candidates(scores), 1, sampling="weighted", temperature=0.2, rng=np.random.default_rng(1))
    expected = np.exp(scores[0] / 0.2) / np.exp(scores[0] / 0.2).sum()
    assert chosen.mean(axis=0) == pytest.approx(expected, abs=0.01)


def test_random_draws_are_uniform() -> None:
    scores = np.tile([0.5, 0.4, 0.2, 0.1, 0.0], (40_000, 1))
    chosen = pick(candidates(scores), 2, sampling="random", temperature=1, rng=np.random.default_rng(1))
    assert chosen.mean(axis=0) == pytest.approx([0.4] * 5, abs=0.01)


def test_margin_bins_are_the_published_example() -> None:
    assert margin_bins(np.array([[0.0, 1.0, 2.0, 10.0]]), np.ones((1, 4), np.bool_)).tolist() == [[0, 1, 2, 9]]


def test_equal_margins_fall_into_one_bin() -> None:
    assert margin_bins(np.array([[2.0, 2.0]]), np.ones((1, 2), np.bool_)).tolist() == [[0, 0]]


def test_margin_bins_are_drawn_evenly() -> None:
    # One far candidate against nine near ones: its bin is drawn half of the time.
    scores = np.tile([0.9] * 9 + [0.1], (20_000, 1))
    chosen = pick(candidates(scores), 1, sampling="margin_bins", temperature=1, rng=np.random.default_rng(1))
    assert chosen[:, 9].mean() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("sampling", ["random", "weighted", "margin_bins"])
def test_draws_do_not_depend_on_the_blocks(sampling: Any) -> None:
    scores = -np.sort(-np.random.default_rng(0).random((40, 12)), axis=1)

    def drawn(*ends: int) -> list[list[bool]]:
        rng, found = np.random.default_rng(7), []
        for start, end in itertools.pairwise((0, *ends)):
            part = candidates(scores[start:end])
            found += pick(part, 3, sampling=sampling, temperature=0.5, rng=rng).tolist()
        return found

    assert drawn(40) == drawn(1, 17, 18, 40)

"""Candidates keep whatever may be among the k best, and settle on those that are."""

from __future__ import annotations

import numpy as np
import pytest

from curation.negatives.candidates import Candidates
from tests.negatives.vectors import unit

DOCUMENTS = unit(np.random.default_rng(0).standard_normal((40, 8)))
QUERIES = unit(np.random.default_rng(1).standard_normal((3, 8)))
SCORES = QUERIES @ DOCUMENTS.T


def shown(candidates: Candidates, rows: slice, off: float) -> None:
    """Every document of some rows for every query, in falling order of rows."""
    row = np.arange(rows.start, rows.stop)[::-1]
    query = np.tile(np.arange(3), len(row)).astype(np.uint16)
    row = np.repeat(row, 3).astype(np.int32)
    exact = SCORES[query, row]
    candidates.add(query, row, exact - np.float32(off), exact + np.float32(off))


def expected(k: int) -> list[list[int]]:
    return [np.lexsort((np.arange(40), -line))[:k].tolist() for line in SCORES]


def test_the_best_are_found_however_wide_their_bounds() -> None:
    for off in (0.001, 0.1, 3.0):
        candidates = Candidates(3, 5)
        shown(candidates, slice(0, 25), off)
        candidates.tighten()
        shown(candidates, slice(25, 40), off)
        assert candidates.settle(QUERIES, DOCUMENTS, 0).rows.tolist() == expected(5)


def test_a_limit_is_a_lower_bound_of_the_kth_best() -> None:
    candidates = Candidates(3, 5)
    shown(candidates, slice(0, 40), 0.01)
    candidates.tighten()
    kth = np.sort(SCORES, axis=1)[:, -5]
    assert candidates.limit == pytest.approx(kth - 0.01, abs=1e-6)
    assert len(candidates) < 40 * 3 / 2


def test_what_was_settled_stands_beside_later_documents() -> None:
    candidates = Candidates(3, 5)
    shown(candidates, slice(0, 25), 0.05)
    candidates.settle(QUERIES, DOCUMENTS[:25], 0)
    shown(candidates, slice(25, 40), 0.05)
    nearest = candidates.settle(QUERIES, DOCUMENTS[25:], 25)
    assert nearest.rows.tolist() == expected(5)
    assert nearest.scores == pytest.approx(np.take_along_axis(SCORES, np.array(expected(5)), axis=1), abs=1e-6)


def test_scores_of_both_signs_fall_and_ties_are_by_row() -> None:
    documents = np.array([[-1, 0], [0, 1], [1, 0], [0, -1], [1, 0], [-1, 0]], np.float32)
    candidates = Candidates(1, 8)
    row = np.array([5, 4, 3, 2, 1, 0], np.int32)
    off = np.full(6, 2, np.float32)
    candidates.add(np.zeros(6, np.uint16), row, -off, off)
    nearest = candidates.settle(np.array([[1, 0]], np.float32), documents, 0)
    assert nearest.rows.tolist() == [[2, 4, 1, 3, 0, 5, -1, -1]]
    assert nearest.scores.tolist() == [[1, 1, 0, 0, -1, -1, -np.inf, -np.inf]]


def test_a_query_with_too_many_in_doubt_is_given_up_alone() -> None:
    candidates = Candidates(2, 1)
    many = 8 + 2_048 + 1
    one, none = np.full(many, 0.5, np.float32), np.zeros(3, np.float32)
    candidates.add(np.zeros(many, np.uint16), np.arange(many, dtype=np.int32), one, one)
    candidates.add(np.ones(3, np.uint16), np.arange(3, dtype=np.int32), none, none)
    assert candidates.crowded
    candidates.tighten()
    assert candidates.undecided.tolist() == [True, False]
    assert candidates.limit.tolist() == [np.inf, 0]
    assert len(candidates) == 3


def test_a_limit_that_was_guessed_too_high_is_noticed() -> None:
    candidates = Candidates(3, 5)
    shown(candidates, slice(0, 40), 0.001)
    candidates.tighten(rank=2)
    candidates.check(candidates.settle(QUERIES, DOCUMENTS, 0))
    assert candidates.undecided.all()


def test_a_guess_that_holds_gives_the_best() -> None:
    candidates = Candidates(3, 5)
    shown(candidates, slice(0, 10), 0.01)
    candidates.tighten(rank=3)
    guessed = candidates.limit.copy()
    shown(candidates, slice(10, 40), 0.01)
    nearest = candidates.settle(QUERIES, DOCUMENTS, 0)
    candidates.check(nearest)
    assert (guessed > np.sort(SCORES[:, :10], axis=1)[:, -5]).all()
    assert not candidates.undecided.any()
    assert nearest.rows.tolist() == expected(5)

"""Products in bfloat16 are off by no more than is said, and the sieve lets through what scores above a limit."""

from __future__ import annotations

import numpy as np
import pytest

from curation.negatives.bfloat16 import ROUNDING, SLACK, Sieve, narrowed
from tests.negatives.vectors import Vectors, unit


def vectors(rows: int, seed: int) -> Vectors:
    return unit(np.random.default_rng(seed).standard_normal((rows, 40)))


def test_lost_bounds_the_error_of_every_score() -> None:
    queries, documents = vectors(64, 1), 3 * vectors(200, 2)
    one, other = narrowed(queries), narrowed(documents)
    scores = queries.astype(np.float64) @ documents.astype(np.float64).T
    products = one.vectors[:64].float().numpy() @ other.vectors[:200].float().numpy().T
    bound = one.lost[:, None] * other.length + 1.01 * one.length[:, None] * other.lost
    assert (np.abs(products - scores) <= bound + SLACK).all()
    assert bound.max() < 0.03
    assert other.length == pytest.approx(np.full(200, 3), abs=1e-5)
    assert (other.vectors[200:] == 0).all()


def test_every_other_row_is_rounded_as_it_is_in_a_copy() -> None:
    documents = vectors(400, 3)
    view, copy = narrowed(documents[1::3], threads=2), narrowed(documents[1::3].copy())
    assert (view.vectors == copy.vectors).all()
    assert (view.lost == copy.lost).all()


def test_what_scores_enough_for_its_query_is_let_through() -> None:
    queries, documents = narrowed(vectors(128, 4)), narrowed(vectors(640, 5))
    scores = (documents.vectors.float() @ queries.vectors.float().t()).numpy()
    least = np.quantile(scores, 0.99, axis=0).astype(np.float32)
    least[::7] = np.inf
    least[1::7] = 1e-3
    hits = Sieve(640, 128).enough(documents.vectors, queries.vectors, least)
    found = np.zeros(scores.shape, np.bool_)
    found[hits.row, hits.query] = True
    assert len(hits.row) == found.sum() > 5_000
    assert found[scores >= least].all()
    assert not found[scores < least * (1 - 4 * ROUNDING)].any()
    assert hits.score == pytest.approx(scores[hits.row, hits.query], rel=ROUNDING)


def test_the_best_of_each_group_is_no_better_than_a_member() -> None:
    queries, documents = narrowed(-np.abs(vectors(64, 6))), narrowed(np.abs(vectors(128, 7)))
    best = Sieve(128, 64).best(documents.vectors, queries.vectors, 16)
    scores = (documents.vectors.float() @ queries.vectors.float().t()).numpy()
    assert best == pytest.approx(scores.reshape(8, 16, 64).max(axis=1).T, rel=ROUNDING)

"""Scanning in bfloat16 finds what float32 finds: nothing is lost to rounding, however near documents lie."""

from __future__ import annotations

import numpy as np
import pytest

from curation.negatives.search import Found, exact_search
from curation.negatives.search import _search_wide as wide
from tests.negatives.vectors import Vectors, unit


def normal(rows: int, width: int, seed: int) -> Vectors:
    return unit(np.random.default_rng(seed).standard_normal((rows, width)))


def topical(rows: int, topics: int, width: int, seed: int) -> Vectors:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).standard_normal((topics, width))
    return unit(centres[rng.integers(0, topics, rows)] + 0.5 * rng.standard_normal((rows, width)))


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("curation.negatives.search.scans_narrow", lambda **_: True)


def agree(found: Found, queries: Vectors, corpus: Vectors, k: int) -> None:
    """Rows are those of float64 but where float32 itself cannot tell two documents apart."""
    expected = np.array(truth(queries, corpus, k))
    scores = queries.astype(np.float64) @ corpus.astype(np.float64).T
    assert all(len(set(row)) == k for row in found.rows.tolist())
    best, got = (np.take_along_axis(scores, rows, axis=1) for rows in (expected, found.rows))
    assert got == pytest.approx(best, abs=2e-7)
    assert found.scores == pytest.approx(got, abs=1e-6)
    assert (found.rows == expected).mean() > 0.999


def truth(queries: Vectors, corpus: Vectors, k: int) -> list[list[int]]:
    """By float64, ties by row."""
    scores = queries.astype(np.float64) @ corpus.astype(np.float64).T
    return [np.lexsort((np.arange(len(corpus)), -line))[:k].tolist() for line in scores]


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("k", [1, 7, 60])
def test_the_nearest_are_those_of_float64(threads: int, k: int) -> None:
    queries, corpus = topical(1_100, 40, 48, seed=1), topical(3_001, 40, 48, seed=2)
    agree(exact_search(queries, corpus, k, threads=threads), queries, corpus, k)


@pytest.mark.usefixtures("narrow")
def test_documents_that_bfloat16_cannot_tell_apart_are_ranked() -> None:
    """4,000 documents whose scores lie within two hundredths: bfloat16 has five numbers there."""
    rng = np.random.default_rng(0)
    corpus = unit(np.ones(32) + 0.15 * rng.standard_normal((4_000, 32)))
    queries = unit(np.ones(32) + 0.05 * rng.standard_normal((50, 32)))
    found = exact_search(queries, corpus, 10)
    assert np.ptp(found.scores) < 0.02
    agree(found, queries, corpus, 10)


@pytest.mark.usefixtures("narrow")
def test_more_equal_documents_than_are_held_come_by_row() -> None:
    corpus = normal(5_000, 16, seed=1)
    corpus[1::2] = corpus[1]
    found = exact_search(corpus[1:2], corpus, 12)
    assert found.rows.tolist() == [list(range(1, 25, 2))]


@pytest.mark.usefixtures("narrow")
def test_queries_unlike_every_document_are_served() -> None:
    """All scores are negative: their order is not that of their bits."""
    corpus = unit(np.abs(normal(2_500, 24, seed=1)))
    queries = -unit(np.abs(normal(30, 24, seed=2)))
    found = exact_search(queries, corpus, 9)
    assert found.scores.max() < 0
    agree(found, queries, corpus, 9)


@pytest.mark.usefixtures("narrow")
def test_zero_queries_and_zero_documents_are_served() -> None:
    corpus, queries = normal(2_000, 16, seed=1), normal(5, 16, seed=2)
    corpus[::3], queries[2] = 0, 0
    found = exact_search(queries, corpus, 5)
    assert found.rows.tolist() == truth(queries, corpus, 5)
    assert (found.scores[2] == 0).all()


@pytest.mark.usefixtures("narrow")
def test_fewer_documents_than_wanted_pad() -> None:
    corpus = normal(3, 16, seed=1)
    found = exact_search(corpus, corpus, 5)
    assert (found.rows[:, :3] >= 0).all()
    assert (found.rows[:, 3:] == -1).all()
    assert (found.scores[:, 3:] == -np.inf).all()


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_stored_vectors_in_chunks_give_what_wide_ones_give(monkeypatch: pytest.MonkeyPatch, dtype: str) -> None:
    """Whole numbers as an int8 index holds them have lengths of hundreds: errors grow with them."""
    queries, corpus = topical(300, 30, 48, seed=1), topical(3_000, 30, 48, seed=2)
    stored = (
        corpus.astype(np.float16) if dtype == "float16" else np.rint(corpus * 200).clip(-127, 127).astype(np.int8)
    )
    monkeypatch.setattr("curation.negatives.search._CORPUS_BLOCK", 700)
    monkeypatch.setattr("curation.negatives.search._CHUNK_BYTES", 700 * 4 * corpus.shape[1])
    found: list[Found] = []
    for scans_narrow in (False, True):
        monkeypatch.setattr("curation.negatives.search.scans_narrow", lambda scans=scans_narrow, **_: scans)
        found.append(exact_search(queries, stored, 20))
    wide, narrow = found
    assert narrow.scores == pytest.approx(wide.scores, rel=1e-5)
    assert (narrow.rows == wide.rows).mean() > 0.99


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("held", [320, 1_000])
def test_a_corpus_in_pieces_and_sorted_by_topic_gives_the_nearest(
    monkeypatch: pytest.MonkeyPatch, held: int
) -> None:
    """Each piece is some rows of every part of the corpus; the last one is shorter."""
    queries, corpus = topical(300, 30, 48, seed=1), topical(3_001, 30, 48, seed=2)
    centres = np.random.default_rng(0).standard_normal((30, 48))
    corpus = corpus[np.argsort((corpus @ centres.T).argmax(axis=1), kind="stable")]
    monkeypatch.setattr("curation.negatives.narrow._HELD", held)
    monkeypatch.setattr("curation.negatives.narrow._DOCUMENTS", 128)
    agree(exact_search(queries, corpus, 20), queries, corpus, 20)


@pytest.mark.usefixtures("narrow")
def test_queries_with_many_documents_in_doubt_do_not_hold_up_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the corpus is one document: its own query is searched in float32, the rest as ever."""
    corpus = normal(9_000, 16, seed=1)
    corpus[1::2] = corpus[1]
    queries = np.concatenate([normal(70, 16, seed=2), corpus[1:2]])
    given_up: list[int] = []

    def watched(queries: Vectors, corpus: Vectors, k: int, *, threads: int | None) -> Found:
        given_up.append(len(queries))
        return wide(queries, corpus, k, threads=threads)

    monkeypatch.setattr("curation.negatives.search._search_wide", watched)
    found = exact_search(queries, corpus, 12)
    assert given_up == [1]
    assert found.rows[-1].tolist() == list(range(1, 25, 2))
    agree(Found(found.rows[:-1], found.scores[:-1]), queries[:-1], corpus, 12)

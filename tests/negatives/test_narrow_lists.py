"""Searching clusters in bfloat16: within the clusters that a query looks into nothing is lost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from curation.negatives.index import search
from curation.negatives.inputs import Float32
from curation.negatives.narrow import guessed_limits
from curation.negatives.narrow_lists import search_near
from curation.negatives.reach import Lists, Reach, make_lists, tune_reach
from curation.negatives.search import Found, exact_search
from tests.negatives.vectors import Vectors, unit

K = 7


def topical(rows: int, topics: int, seed: int) -> Vectors:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).standard_normal((topics, 24))
    return unit(centres[rng.integers(0, topics, rows)] + 0.8 * rng.standard_normal((rows, 24)))


def near(
    queries: Vectors, corpus: Vectors, *, target: float = 0.9, threads: int = 1
) -> tuple[Found, Lists, Float32, Reach]:
    lists = make_lists(np.asarray(corpus), seed=0, threads=threads)
    limits = guessed_limits(queries, corpus, K, threads=threads)
    reach = tune_reach(queries, corpus, lists, limits, K, target=target, seed=0, threads=threads)
    found = search_near(queries, corpus, K, lists=lists, limits=limits, distance=reach.distance, threads=threads)
    return found, lists, limits, reach


def slowly(queries: Vectors, corpus: Vectors) -> list[list[int]]:
    """By float64, ties by row."""
    scores = queries.astype(np.float64) @ corpus.astype(np.float64).T
    return [np.lexsort((np.arange(len(corpus)), -line))[:K].tolist() for line in scores]


@pytest.mark.parametrize("threads", [1, 2])
def test_a_query_finds_the_nearest_of_its_clusters_or_of_all(threads: int) -> None:
    """Of all where it was searched everywhere after all, as its limit turned out too high."""
    queries, corpus = topical(1_300, 60, seed=1), topical(4_001, 60, seed=2)
    found, lists, limits, reach = near(queries, corpus, threads=threads)
    assert 1 < reach.lists < len(lists.means) / 2
    looked = reach.distance >= lists.distance(queries, limits).T
    everywhere = np.array(slowly(queries, corpus))
    within = 0
    for query, rows in enumerate(found.rows):
        inside = np.flatnonzero(looked[query, lists.of_row])
        expected = inside[slowly(queries[query : query + 1], corpus[inside])[0]]
        within += rows.tolist() == expected.tolist()
        assert rows.tolist() in (expected.tolist(), everywhere[query].tolist())
    assert within > len(queries) / 2
    assert found.scores == pytest.approx(np.einsum("nd,nkd->nk", queries, corpus[found.rows]), abs=1e-6)


def test_the_result_does_not_depend_on_threads() -> None:
    queries, corpus = topical(1_500, 60, seed=1), topical(4_001, 60, seed=2)
    one, two = (near(queries, corpus, threads=threads) for threads in (1, 2))
    assert one[3] == two[3]
    assert one[0].rows.tolist() == two[0].rows.tolist()


def test_the_estimate_is_of_what_the_clusters_hold() -> None:
    queries, corpus = topical(500, 60, seed=1), topical(4_001, 60, seed=2)
    loose = near(queries, corpus, target=0.8)
    strict = near(queries, corpus, target=0.97)
    truth = slowly(queries, corpus)
    for _, lists, limits, reach in (loose, strict):
        looked = reach.distance >= lists.distance(queries, limits).T
        held = [looked[query, lists.of_row[rows]].mean() for query, rows in enumerate(truth)]
        assert reach.recall == pytest.approx(np.mean(held), abs=1e-9)  # all 500 queries are the sample
        assert reach.lists == pytest.approx(looked.sum(axis=1).mean())
        assert reach.share == pytest.approx(looked[:, lists.of_row].mean())
    assert 0.8 <= loose[3].lower < loose[3].recall < 0.97 <= strict[3].lower
    assert loose[3].share < strict[3].share < 1


def test_all_is_found_where_all_is_wanted() -> None:
    queries, corpus = topical(300, 60, seed=1), topical(2_000, 60, seed=2)
    found, _, _, reach = near(queries, corpus, target=1.0)
    assert reach.recall == 1.0
    assert found.rows.tolist() == slowly(queries, corpus)


def test_a_corpus_on_disk_comes_in_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    queries, corpus = topical(600, 60, seed=1), topical(5_000, 60, seed=2).astype(np.float16)
    np.save(tmp_path / "corpus.npy", corpus)
    monkeypatch.setattr("curation.negatives.search._CHUNK_BYTES", 1_100 * 4 * 24)
    monkeypatch.setattr("curation.negatives.narrow_lists._HELD", 300)
    on_disk = near(queries, np.load(tmp_path / "corpus.npy", mmap_mode="r"))
    at_hand = near(queries, corpus.astype(np.float32))
    assert on_disk[3] == at_hand[3]
    assert on_disk[0].rows.tolist() == at_hand[0].rows.tolist()


@pytest.mark.parametrize("kind", ["equal", "zeros", "few kinds", "zero queries"])
def test_rows_that_are_alike_or_like_nothing(kind: str) -> None:
    queries, corpus = topical(300, 60, seed=1), topical(3_000, 60, seed=2)
    if kind == "equal":
        corpus[:] = corpus[0]
    if kind == "zeros":
        corpus[500:] = 0
    if kind == "few kinds":
        corpus = corpus[np.arange(3_000) % 40]
    if kind == "zero queries":
        queries[::3] = 0
    found, *_ = near(queries, corpus, target=0.99)
    scores = queries.astype(np.float64) @ corpus.astype(np.float64).T
    best = -np.sort(-scores, axis=1)[:, :K]
    got = np.take_along_axis(scores, found.rows, axis=1)
    assert all(len(set(row)) == K for row in found.rows.tolist())
    assert (got >= best - 1e-6).mean() >= 0.98
    assert found.scores == pytest.approx(got, abs=1e-6)
    expected = exact_search(queries, corpus, K).rows
    assert (found.rows == expected).mean() >= 0.98


def test_auto_looks_into_clusters_where_there_are_any(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_SMALL", "_SMALL_NARROW", "_MEDIUM_NARROW"):
        monkeypatch.setattr(f"curation.negatives.index.{name}", 0)
    monkeypatch.setattr("curation.negatives.index.scans_narrow", lambda **_: True)
    queries, corpus = topical(600, 60, seed=1), topical(5_000, 60, seed=2)
    result = search(queries, corpus, K, target_recall=0.9)
    truth = slowly(queries, corpus)
    recall = np.mean([len(np.intersect1d(a, b)) / K for a, b in zip(result.found.rows, truth, strict=True)])
    assert result.method.startswith("ivf: ")
    assert 0.9 < result.recall < 1
    assert recall >= result.recall - 0.01
    assert search(queries, corpus, K, target_recall=1.0).method == "flat"
    shapeless = unit(np.random.default_rng(0).standard_normal((5_000, 64)))
    assert search(shapeless[:600], shapeless, K, target_recall=0.99).method == "flat"

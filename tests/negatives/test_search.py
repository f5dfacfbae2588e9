"""The searches against brute force."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from curation.errors import InputError
from curation.negatives.clusters import Clusters, assign, nearest_lists, train_centroids, tune_probes
from curation.negatives.index import search
from curation.negatives.search import exact_search, search_lists
from tests.negatives.vectors import Vectors, unit

MakeVectors = Callable[..., Vectors]


def brute(queries: Vectors, corpus: Vectors, k: int) -> list[list[int]]:
    scores = queries.astype(np.float64) @ corpus.astype(np.float64).T
    return [sorted(range(len(corpus)), key=lambda row: (-line[row], row))[:k] for line in scores]


def topical(rows: int, topics: int, seed: int) -> Vectors:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).standard_normal((topics, 32))
    return unit(centres[rng.integers(0, topics, rows)] + 0.5 * rng.standard_normal((rows, 32)))


@pytest.mark.parametrize("threads", [1, 2])
def test_exact_search_is_brute_force_over_several_blocks(make_vectors: MakeVectors, threads: int) -> None:
    queries, corpus = make_vectors(1_100, 8), make_vectors(2_300, 8, seed=1)
    found = exact_search(queries, corpus, 5, threads=threads)
    assert found.rows.tolist() == brute(queries, corpus, 5)
    assert found.scores == pytest.approx(np.take_along_axis(queries @ corpus.T, found.rows, axis=1), abs=1e-6)


def test_looking_into_every_list_is_exact(make_vectors: MakeVectors) -> None:
    queries, corpus = make_vectors(300, 8), make_vectors(900, 8, seed=1)
    centroids = train_centroids(corpus, 16, seed=0)
    found = search_lists(
        queries,
        corpus,
        7,
        list_of_row=assign(corpus, centroids),
        probes=nearest_lists(queries, centroids, 16),
    )
    assert found.rows.tolist() == exact_search(queries, corpus, 7).rows.tolist()


def test_looking_into_some_lists_finds_what_is_in_them(make_vectors: MakeVectors) -> None:
    queries, corpus = make_vectors(50, 8), make_vectors(400, 8, seed=1)
    centroids = train_centroids(corpus, 16, seed=0)
    own, probes = assign(corpus, centroids), nearest_lists(queries, centroids, 3)
    found = search_lists(queries, corpus, 5, list_of_row=own, probes=probes)
    for query, rows in enumerate(found.rows):
        inside = np.flatnonzero(np.isin(own, probes[query]))
        expected = inside[brute(queries[query : query + 1], corpus[inside], 5)[0]]
        assert rows[rows >= 0].tolist() == expected.tolist()


def test_a_corpus_on_disk_in_float16_is_searched(tmp_path: Path, make_vectors: MakeVectors) -> None:
    queries, corpus = make_vectors(20, 8), make_vectors(500, 8, seed=1)
    np.save(tmp_path / "corpus.npy", corpus.astype(np.float16))
    half = np.load(tmp_path / "corpus.npy", mmap_mode="r")
    rounded = corpus.astype(np.float16).astype(np.float32)
    assert exact_search(queries, half, 5).rows.tolist() == exact_search(queries, rounded, 5).rows.tolist()


def test_estimated_recall_is_the_true_recall() -> None:
    queries, corpus = topical(600, 40, seed=1), topical(4_000, 40, seed=2)
    result = search(queries, corpus, 10, index="ivf", target_recall=0.9)
    truth = exact_search(queries, corpus, 10).rows
    recall = np.mean([len(np.intersect1d(a, b)) / 10 for a, b in zip(result.found.rows, truth, strict=True)])
    assert result.method.startswith("ivf")
    assert recall >= 0.9
    assert result.recall == pytest.approx(recall, abs=0.02)


def test_probes_are_the_fewest_for_the_recall() -> None:
    queries, corpus = topical(200, 40, seed=1), topical(3_000, 40, seed=2)
    centroids = train_centroids(corpus, 64, seed=0)
    clusters = Clusters(centroids, assign(corpus, centroids))
    loose = tune_probes(queries, corpus, clusters, 10, target=0.8, seed=0)
    strict = tune_probes(queries, corpus, clusters, 10, target=0.99, seed=0)
    assert loose.lists < strict.lists < 64
    assert strict.lower >= 0.99
    fewer = search_lists(
        queries,
        corpus,
        10,
        list_of_row=clusters.list_of_row,
        probes=nearest_lists(queries, centroids, strict.lists),
    )
    truth = exact_search(queries, corpus, 10).rows
    recall = np.mean([len(np.intersect1d(a, b)) / 10 for a, b in zip(fewer.rows, truth, strict=True)])
    assert recall == pytest.approx(strict.recall, abs=1e-6)  # all 200 queries are the sample


def test_auto_searches_small_and_shapeless_corpora_exactly(
    make_vectors: MakeVectors, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries, corpus = make_vectors(200, 64), make_vectors(2_000, 64, seed=1)
    assert search(queries, corpus, 10).method == "flat"
    monkeypatch.setattr("curation.negatives.index._SMALL", 0)
    assert search(queries, corpus, 10).method == "flat"
    assert search(topical(200, 40, 1), topical(2_000, 40, 2), 10).method.startswith("ivf")


def test_equal_and_zero_rows_are_clustered() -> None:
    corpus = np.zeros((50, 4), np.float32)
    corpus[:20, 0] = 1
    result = search(corpus[:3], corpus, 5, index="ivf")
    assert (result.found.scores == 1).all()
    assert result.recall == pytest.approx(1.0)


def test_an_unknown_index_is_named(make_vectors: MakeVectors) -> None:
    from curation.negatives.index import check_index

    with pytest.raises(InputError, match="did you mean 'flat'"):
        check_index("flatt")

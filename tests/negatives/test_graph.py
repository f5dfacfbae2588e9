"""HNSW: exact scores, a recall that is what it says, the same each time, and its bad input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from curation.errors import InputError
from curation.negatives.graph import search_graph
from curation.negatives.mining import mine_hard_negatives
from curation.negatives.search import exact_search
from tests.negatives.vectors import Vectors, unit


def topical(rows: int, seed: int, spread: float = 0.5) -> Vectors:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).standard_normal((30, 32))
    return unit(centres[rng.integers(0, 30, rows)] + spread * rng.standard_normal((rows, 32)))


CORPUS, QUERIES = topical(3_000, 1), topical(200, 2)
TRUTH = exact_search(QUERIES, CORPUS, 10)


def recall(rows: Any, truth: Any) -> float:
    return float(np.mean([np.isin(t, r).mean() for r, t in zip(rows, truth, strict=True)]))


@pytest.mark.parametrize("storage", ["float32", "float16", "int8"])
def test_the_scores_are_exact_and_the_recall_is_what_it_says(storage: Any) -> None:
    walked = search_graph(QUERIES, CORPUS, 10, target_recall=0.95, storage=storage)
    # All 200 queries are in the sample, so the estimate is the truth.
    assert recall(walked.found.rows, TRUTH.rows) == pytest.approx(walked.recall, abs=1e-9)
    assert walked.recall >= 0.95
    near = CORPUS[walked.found.rows]
    assert walked.found.scores == pytest.approx(np.einsum("nd,nkd->nk", QUERIES, near), abs=1e-6)
    assert (np.diff(walked.found.scores, axis=1) <= 0).all()


def test_a_higher_target_looks_deeper() -> None:
    # Without structure a short walk misses much.
    corpus, queries = (
        unit(np.random.default_rng(seed).standard_normal((n, 64))) for seed, n in ((0, 2_000), (1, 100))
    )
    quick, careful = (search_graph(queries, corpus, 5, target_recall=target) for target in (0.5, 0.99))
    assert careful.depth > quick.depth
    assert careful.recall > quick.recall


def test_the_same_search_gives_the_same_rows() -> None:
    first, second = (search_graph(QUERIES, CORPUS, 5, target_recall=0.9, threads=t).found.rows for t in (1, 3))
    assert (first == second).all()


@pytest.mark.parametrize("storage", ["float32", "float16", "int8"])
def test_mining_with_a_graph_says_how_it_searched(storage: Any) -> None:
    settings: dict[str, Any] = {
        "anchor_embeddings": QUERIES,
        "corpus_embeddings": CORPUS.astype(np.float16),
        "positives": list(range(200)),
        "num_negatives": 5,
    }
    exact = mine_hard_negatives(index="flat", **settings)
    walked = mine_hard_negatives(index="hnsw", storage=storage, **settings)
    assert recall(walked.negatives, exact.negatives) >= 0.97
    assert walked.method.startswith(f"hnsw, {storage}: ")
    assert walked.recall < 1 or (walked.negatives == exact.negatives).all()


def test_few_equal_and_zero_rows() -> None:
    corpus = unit(np.ones((4, 3)))
    corpus[2] = 0
    mined = mine_hard_negatives(
        anchor_embeddings=corpus[:1], corpus_embeddings=corpus, positives=[0], num_negatives=9, index="hnsw"
    )
    assert mined.negatives.tolist() == [[1, 3, *[-1] * 7]]
    assert mined.recall == 1.0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"index": "hnws"}, "did you mean 'hnsw'"),
        ({"index": "hnsw", "storage": "int4"}, "storage: found 'int4', expected one of float32, float16, int8"),
        ({"index": "flat", "storage": "int8"}, "leave storage out, or use index 'hnsw'"),
    ],
)
def test_wrong_settings_are_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        mine_hard_negatives(anchor_embeddings=QUERIES, corpus_embeddings=CORPUS, positives=[0] * 200, **options)

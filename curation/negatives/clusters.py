"""Clusters of a corpus, and how many of them a query must look into for a wanted recall."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from curation.negatives.bfloat16 import most_alike
from curation.negatives.inputs import Embeddings, Float32, blocks
from curation.negatives.recall import measured_recall, sampled_queries
from curation.negatives.search import Found, exact_search, search_lists
from curation.negatives.threads import over_shards
from curation.negatives.tops import narrow_pays

__all__ = [
    "Clusters",
    "Probing",
    "assign",
    "nearest_centroids",
    "nearest_lists",
    "search_clusters",
    "suggest_lists",
    "train_centroids",
    "tune_probes",
]

_BLOCK: Final = 1_024
_PROBES_AT_ONCE: Final = 16_777_216
"""Pairs of a query and a list that are held at once: about 200 MB."""
_ROWS_PER_LIST: Final = 20
"""Rows of the training sample for each centroid."""
_ROUNDS: Final = 3
"""Few rounds over few rows: many roughly placed lists cost less, for one recall, than few well placed ones."""
_TUNING_QUERIES: Final = 256


class Clusters(NamedTuple):
    """Unit centroids, and the nearest one of each corpus row."""

    centroids: Float32
    """(lists, d)."""
    list_of_row: npt.NDArray[np.int32]
    """(m,)."""


class Probing(NamedTuple):
    """How many lists to look into, and what that gives."""

    lists: int
    recall: float
    """The share of the true k nearest rows in those lists, over a sample of the queries."""
    lower: float
    """The lower end of its one-sided 95 % interval."""


def suggest_lists(rows: int) -> int:
    """About 4√m lists, as a power of two.

    Finding the lists costs a query as many products as there are lists, scanning them as many as they have
    rows. With few large lists more rows are scanned for the same recall; with many small ones training
    and assigning cost more than they save.
    """
    return int(min(2 ** np.round(np.log2(max(rows, 1)) / 2 + 2), max(rows, 1)))


def train_centroids(corpus: Embeddings, lists: int, *, seed: int, threads: int | None = None) -> Float32:
    """Spherical k-means on a seeded sample of the corpus.

    Args:
        corpus: (m, d), m ≥ 1.
        lists: how many centroids; fewer come back where rows are equal.
        seed: of the sample and the start.
        threads: how many to use.
    """
    rng = np.random.default_rng(seed)
    lists = min(lists, len(corpus))
    size = min(len(corpus), lists * _ROWS_PER_LIST)
    sample = np.asarray(corpus[np.sort(rng.choice(len(corpus), size, replace=False))], dtype=np.float32)
    centroids = sample[np.sort(rng.choice(size, lists, replace=False))].copy()
    for _ in range(_ROUNDS):
        own, scores = nearest_centroids(sample, centroids, threads=threads)
        order = np.argsort(own, kind="stable")
        present, starts = np.unique(own[order], return_index=True)
        centroids[present] = np.add.reduceat(sample[order], starts, axis=0)
        missing = np.setdiff1d(np.arange(lists), present)
        # An empty cluster takes over one of the rows that are worst served.
        centroids[missing] = sample[np.argsort(scores, kind="stable")[: len(missing)]]
        lengths = np.linalg.norm(centroids, axis=1, keepdims=True)
        centroids /= np.where(lengths > 0, lengths, 1)
    # Equal centroids (of equal rows) would tie, and a query could look into the empty one of the two.
    distinct: Float32 = np.unique(centroids, axis=0)
    return distinct


def assign(corpus: Embeddings, centroids: Float32, *, threads: int | None = None) -> npt.NDArray[np.int32]:
    """(m,) the nearest centroid of each row."""
    return nearest_centroids(corpus, centroids, threads=threads)[0]


def nearest_centroids(
    vectors: Embeddings, centroids: Float32, *, threads: int | None = None
) -> tuple[npt.NDArray[np.int32], Float32]:
    """(m,) the nearest centroid of each row, and (m,) the score, rounded to bfloat16 where that pays."""
    own = np.zeros(len(vectors), np.int32)
    best = np.zeros(len(vectors), np.float32)
    turned = np.ascontiguousarray(centroids.T)
    narrow = _narrow(centroids) if narrow_pays(len(vectors) * len(centroids)) else None

    def work(shard: slice) -> None:
        for at in blocks(shard.stop - shard.start, _BLOCK):
            part = slice(shard.start + at.start, shard.start + at.stop)
            if narrow is not None:
                own[part], best[part] = most_alike(np.asarray(vectors[part], dtype=np.float32), narrow)
                continue
            scores = np.asarray(vectors[part], dtype=np.float32) @ turned
            own[part] = scores.argmax(axis=1)
            best[part] = scores[np.arange(len(scores)), own[part]]

    over_shards(work, len(vectors), threads=threads)
    return own, best


def _narrow(vectors: Float32) -> Any:
    import torch

    return torch.from_numpy(vectors).to(torch.bfloat16)


def nearest_lists(
    queries: Embeddings, centroids: Float32, probes: int, *, threads: int | None = None
) -> npt.NDArray[np.int32]:
    """(n, probes) the lists whose centroids are nearest to each query, in no order."""
    found = np.empty((len(queries), probes), np.int32)
    turned = np.ascontiguousarray(centroids.T)

    def work(shard: slice) -> None:
        for at in blocks(shard.stop - shard.start, _BLOCK):
            part = slice(shard.start + at.start, shard.start + at.stop)
            scores = np.asarray(queries[part], dtype=np.float32) @ turned
            if probes < len(centroids):
                found[part] = np.argpartition(scores, -probes, axis=1)[:, -probes:]
            else:
                found[part] = np.arange(probes)

    over_shards(work, len(queries), threads=threads)
    return found


def search_clusters(
    queries: Embeddings,
    corpus: Embeddings,
    k: int,
    clusters: Clusters,
    *,
    lists: int,
    threads: int | None = None,
) -> Found:
    """The k nearest corpus rows of each query among the rows of its nearest ``lists`` clusters.

    Queries go in blocks, so that what is known of which query looks where stays small beside the corpus.
    """
    rows = np.empty((len(queries), k), np.int64)
    scores = np.empty((len(queries), k), np.float32)
    for part in blocks(len(queries), max(_BLOCK, _PROBES_AT_ONCE // lists)):
        probes = nearest_lists(queries[part], clusters.centroids, lists, threads=threads)
        found = search_lists(
            queries[part], corpus, k, list_of_row=clusters.list_of_row, probes=probes, threads=threads
        )
        rows[part], scores[part] = found
    return Found(rows, scores)


def tune_probes(
    queries: Embeddings,
    corpus: Embeddings,
    clusters: Clusters,
    k: int,
    *,
    target: float,
    seed: int,
    threads: int | None = None,
) -> Probing:
    """The fewest lists with which the recall of the k nearest is at least ``target``, with 95 % confidence.

    A seeded sample of the queries is searched exactly; of each true neighbour it is known in which list it
    lies, and how many lists are nearer to the query, so that the recall for every number of probes follows
    at once.
    """
    picked = sampled_queries(len(queries), _TUNING_QUERIES, seed=seed)
    sample = np.asarray(queries[picked], dtype=np.float32)
    truth = exact_search(sample, corpus, min(k, len(corpus)), threads=threads)
    order = np.argsort(-(sample @ clusters.centroids.T), axis=1, kind="stable")
    place = np.empty_like(order)
    np.put_along_axis(place, order, np.arange(order.shape[1])[None, :], axis=1)
    needed = np.take_along_axis(place, clusters.list_of_row[truth.rows].astype(np.int64), axis=1)
    return _fewest(needed, lists=len(clusters.centroids), target=target)


def _fewest(needed: npt.NDArray[Any], *, lists: int, target: float) -> Probing:
    """From the place (0 is nearest) of each true neighbour's list, per query."""
    per_query = np.stack([np.bincount(row, minlength=lists) for row in needed]).cumsum(axis=1) / needed.shape[1]
    recall, lower = measured_recall(per_query)
    enough = np.flatnonzero(lower >= target)
    at = int(enough[0]) if len(enough) else lists - 1
    return Probing(at + 1, float(recall[at]), float(lower[at]))

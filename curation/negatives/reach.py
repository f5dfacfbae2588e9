"""Clusters as a query sees them: which of them it looks into, so that a wanted share of its nearest is found.

How clusters are made is in ``clusters``, how they are searched in ``narrow_lists``.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from curation.negatives.clusters import nearest_centroids, train_centroids
from curation.negatives.inputs import Embeddings, Float32
from curation.negatives.recall import measured_recall, sampled_queries
from curation.negatives.search import exact_search

__all__ = ["Lists", "Reach", "make_lists", "tune_reach"]

_TUNING_QUERIES: Final = 512
_STEPS: Final = 501
"""Reaches that are tried: quantiles of what the true neighbours need."""
_LEAST_SPREAD: Final = 1e-3
"""Of equal documents, but for rounding."""


class Lists(NamedTuple):
    """Clusters, in an order that tells nothing of where they are."""

    means: Float32
    """(lists, d)."""
    spread: Float32
    """(lists,) root mean square distance of a cluster's documents from its mean."""
    of_row: npt.NDArray[np.int32]
    """(m,) the cluster of each corpus row."""

    def distance(self, queries: Float32, limits: Float32, which: Any = slice(None)) -> Float32:
        """(lists, n) how many spreads the limit of a query lies above its score with the mean of a cluster.

        Args:
            queries: (n, d).
            limits: (n,) scores that the k best of a query hardly ever fail to reach.
            which: some of the clusters.
        """
        distance: Float32 = (limits - self.means[which] @ queries.T) / self.spread[which, None]
        return distance


class Reach(NamedTuple):
    """How far a query looks, and what that gives on a sample of the queries that is searched exactly."""

    distance: float
    """A query looks into the clusters that are at most so far away."""
    recall: float
    """The share of the true k nearest rows that lie there."""
    lower: float
    """The lower end of its one-sided 95 % interval."""
    lists: float
    """How many clusters that are, on average."""
    share: float
    """Which share of the corpus they hold, on average."""


def make_lists(corpus: Embeddings, *, seed: int, threads: int | None = None) -> Lists:
    """About √m clusters, as a power of two: with more of them queries are gathered more often than it saves."""
    count = int(min(2 ** np.round(np.log2(max(len(corpus), 1)) / 2), len(corpus)))
    centroids = train_centroids(corpus, count, seed=seed, threads=threads)
    # They come sorted by their first coordinate; in any other order the limits of queries rise sooner.
    centroids = centroids[np.random.default_rng(seed).permutation(len(centroids))]
    own, scores = nearest_centroids(corpus, centroids, threads=threads)
    rows = np.maximum(np.bincount(own, minlength=len(centroids)), 1)
    mean = np.bincount(own, scores, minlength=len(centroids)) / rows
    square = np.bincount(own, scores.astype(np.float64) ** 2, minlength=len(centroids)) / rows
    spread = np.maximum(np.sqrt(np.maximum(1 - square, 0)), _LEAST_SPREAD).astype(np.float32)
    return Lists(centroids * mean[:, None].astype(np.float32), spread, own)


def tune_reach(
    queries: Embeddings,
    corpus: Embeddings,
    lists: Lists,
    limits: Float32,
    k: int,
    *,
    target: float,
    seed: int,
    threads: int | None = None,
) -> Reach:
    """The least reach with which the recall of the k nearest is at least ``target``, with 95 % confidence.

    Of each true neighbour of a seeded sample of the queries it is known how far away its cluster is. Where the
    target is 1, or no reach gives it, queries look everywhere.

    Args:
        queries: (n, d).
        corpus: (m, d).
        lists: its clusters.
        limits: (n,) as for :meth:`Lists.distance`.
        k: how many are wanted.
        target: the least recall.
        seed: of the sample.
        threads: how many to use.
    """
    picked = sampled_queries(len(queries), _TUNING_QUERIES, seed=seed)
    sample = np.asarray(queries[picked], dtype=np.float32)
    truth = exact_search(sample, corpus, min(k, len(corpus)), threads=threads).rows
    distance = lists.distance(sample, limits[picked]).T
    needed = np.sort(np.take_along_axis(distance, lists.of_row[truth].astype(np.int64), axis=1), axis=1)
    tried = np.quantile(needed, np.linspace(0, 1, _STEPS), method="higher")
    shares = np.stack([np.searchsorted(own, tried, side="right") for own in needed]) / truth.shape[1]
    recall, lower = measured_recall(shares)
    enough = np.flatnonzero(lower >= target)
    if target >= 1 or not len(enough):
        return Reach(np.inf, 1.0, 1.0, len(lists.means), 1.0)
    at = enough[0]
    inside = distance <= tried[at]
    sizes = np.bincount(lists.of_row, minlength=len(lists.means))
    return Reach(
        float(tried[at]),
        float(recall[at]),
        float(lower[at]),
        float(inside.sum(axis=1).mean()),
        float((inside @ sizes).mean() / len(corpus)),
    )

"""Which search a problem gets: exact, or within clusters or along a graph with a measured recall."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple, get_args

from curation.errors import InputError, closest
from curation.negatives.clusters import (
    Clusters,
    assign,
    search_clusters,
    suggest_lists,
    train_centroids,
    tune_probes,
)
from curation.negatives.graph import search_graph
from curation.negatives.inputs import Embeddings, Storage
from curation.negatives.narrow import guessed_limits
from curation.negatives.narrow_lists import search_near
from curation.negatives.reach import make_lists, tune_reach
from curation.negatives.search import Found, exact_search, scans_narrow
from curation.negatives.tops import narrow_pays

__all__ = ["TARGET_RECALL", "IndexKind", "Searched", "check_index", "search", "searches_exactly"]

IndexKind = Literal["auto", "flat", "ivf", "hnsw"]
TARGET_RECALL: Final = 0.99
_SMALL: Final = 4e8
_SMALL_NARROW: Final = 1e10
"""Anchors × documents up to which ``auto`` searches exactly, seconds on two cores; the second where the processor
multiplies bfloat16."""
_MEDIUM_NARROW: Final = 4e10
"""Likewise for a corpus at hand, some 20 seconds: making clusters takes a few."""
_WORTH_IT: Final = 0.5
"""Share of the corpus beyond which looking into lists one by one saves nothing over the exact search."""


class Searched(NamedTuple):
    """What was found, how, and how much of the truth it is."""

    found: Found
    recall: float
    """1.0 when exact; else the recall on a sample of the queries that was searched exactly, too."""
    method: str
    """``flat``, ``ivf`` with its lists and probes, or ``hnsw`` with its storage and depth."""


def searches_exactly(*, queries: int, rows: int) -> bool:
    """Whether ``auto`` searches so many queries in so many rows exactly, because that is quick."""
    products = queries * rows
    return products <= _SMALL or (products <= _SMALL_NARROW and narrow_pays(products))


def check_index(index: str, storage: str | None = None) -> None:
    """Raises InputError when ``index`` is no kind of index, or one that does not round vectors."""
    allowed = get_args(IndexKind)
    if index not in allowed:
        raise InputError(f"index: found {index!r}, expected one of {', '.join(allowed)}{closest(index, allowed)}")
    kinds = get_args(Storage)
    if storage is not None and storage not in kinds:
        raise InputError(f"storage: found {storage!r}, expected one of {', '.join(kinds)}{closest(storage, kinds)}")
    if storage is not None and index != "hnsw":
        raise InputError(
            f"storage: found {storage!r} with index {index!r}, which scores the embeddings themselves and makes no "
            f"copy of them: leave storage out, or use index 'hnsw'"
        )


def search(
    queries: Embeddings,
    corpus: Embeddings,
    k: int,
    *,
    index: IndexKind = "auto",
    storage: Storage | None = None,
    target_recall: float = TARGET_RECALL,
    seed: int = 0,
    threads: int | None = None,
) -> Searched:
    """The k nearest corpus rows of each query.

    ``auto`` searches exactly where that is quick, and where all is wanted. Otherwise it clusters the corpus and
    finds, on a sample of the queries, into which clusters a query must look for the wanted recall; where those hold
    half of the corpus or more (embeddings without structure) it searches exactly after all. It never takes
    ``hnsw``: for one search, making the graph costs more than it saves (docs/benchmarks/negatives.md).

    Args:
        queries: (n, d).
        corpus: (m, d), m ≥ 1.
        k: how many rows to return.
        index: ``flat`` forbids approximation, ``ivf`` and ``hnsw`` force it.
        storage: how the graph of ``hnsw`` holds vectors, by default ``float32``; the scores are exact with any.
        target_recall: the least recall, held with 95 % confidence, that an approximate search settles for.
        seed: of the sample and of the clusters.
        threads: how many to use.
    """
    products = len(queries) * len(corpus)
    small = searches_exactly(queries=len(queries), rows=len(corpus)) or (
        products <= _MEDIUM_NARROW and narrow_pays(products)
    )
    if index == "flat" or not len(queries) or (index == "auto" and (small or target_recall >= 1)):
        return Searched(exact_search(queries, corpus, k, threads=threads), 1.0, "flat")
    if index == "hnsw":
        kept: Storage = storage or "float32"
        walked = search_graph(
            queries, corpus, k, target_recall=target_recall, storage=kept, seed=seed, threads=threads
        )
        return Searched(walked.found, walked.recall, f"hnsw, {kept}: {walked.depth} of {len(corpus)} rows in view")
    within = _within_near if scans_narrow(queries=len(queries), rows=len(corpus), k=k) else _within_lists
    searched = within(
        queries,
        corpus,
        k,
        target_recall=target_recall,
        seed=seed,
        threads=threads,
        most=1.0 if index == "ivf" else _WORTH_IT,
    )
    return searched or Searched(exact_search(queries, corpus, k, threads=threads), 1.0, "flat")


def _within_lists(
    queries: Embeddings,
    corpus: Embeddings,
    k: int,
    *,
    target_recall: float,
    seed: int,
    threads: int | None,
    most: float,
) -> Searched | None:
    """Each query looks into as many lists as the others; None where that is more than a share of ``most``."""
    centroids = train_centroids(corpus, suggest_lists(len(corpus)), seed=seed, threads=threads)
    clusters = Clusters(centroids, assign(corpus, centroids, threads=threads))
    probing = tune_probes(queries, corpus, clusters, k, target=target_recall, seed=seed, threads=threads)
    if probing.lists > most * len(centroids):
        return None
    found = search_clusters(queries, corpus, k, clusters, lists=probing.lists, threads=threads)
    return Searched(found, probing.recall, f"ivf: {probing.lists} of {len(centroids)} lists")


def _within_near(
    queries: Embeddings,
    corpus: Embeddings,
    k: int,
    *,
    target_recall: float,
    seed: int,
    threads: int | None,
    most: float,
) -> Searched | None:
    """Each query looks into the lists that are near for it; None where they hold more than a share of ``most``."""
    lists = make_lists(corpus, seed=seed, threads=threads)
    limits = guessed_limits(queries, corpus, k, threads=threads)
    reach = tune_reach(queries, corpus, lists, limits, k, target=target_recall, seed=seed, threads=threads)
    if reach.share > most:
        return None
    found = search_near(queries, corpus, k, lists=lists, limits=limits, distance=reach.distance, threads=threads)
    method = f"ivf: {reach.lists:.0f} of {len(lists.means)} lists on average"
    return Searched(found, reach.recall, method)

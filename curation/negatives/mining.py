"""Hard negatives from ready embeddings: search, rules, sampling. Texts are handled in ``texts``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, TypedDict

import polars as pl

from curation.errors import InputError
from curation.negatives.barred import search_past
from curation.negatives.filters import CandidateFilter, Thresholds
from curation.negatives.index import TARGET_RECALL, IndexKind, Searched, check_index, search
from curation.negatives.inputs import Embeddings, Float32, Int64, Storage, as_ragged, checked_embeddings
from curation.negatives.sampling import Sampling, check_sampling
from curation.negatives.select import Inputs, Plan, select
from curation.negatives.store import CorpusIndex

__all__ = ["MinedNegatives", "MiningOptions", "mine_hard_negatives"]


class MiningOptions(TypedDict, total=False):
    """The settings of :func:`mine_hard_negatives`, for functions that pass them on."""

    num_negatives: int
    range_min: int
    range_max: int | None
    max_score: float | None
    min_score: float | None
    absolute_margin: float | None
    relative_margin: float | None
    sampling: Sampling
    temperature: float
    seed: int
    index: IndexKind | CorpusIndex
    storage: Storage | None
    target_recall: float
    threads: int | None
    filters: Sequence[CandidateFilter]


class _SearchOptions(TypedDict):
    target_recall: float
    seed: int
    threads: int | None


class MinedNegatives(NamedTuple):
    """The negatives of n anchors."""

    negatives: Int64
    """(n, num_negatives) corpus rows, nearest first; −1 where there were too few."""
    scores: Float32
    """(n, num_negatives) similarity to the anchor; NaN beside −1."""
    positive_scores: Float32
    """(n,) the lowest similarity of a positive to its anchor; NaN for an anchor without one."""
    waterfall: pl.DataFrame
    """What each rule removed and left; see ``waterfall.Waterfall``."""
    recall: float
    """The share of the true nearest rows that the search returned: 1.0 when exact, else estimated."""
    method: str
    """How was searched: ``flat``, ``ivf`` with its lists, or ``hnsw`` with its storage and depth."""


def mine_hard_negatives(
    *,
    anchor_embeddings: Any,
    corpus_embeddings: Any,
    positives: Any,
    num_negatives: int = 3,
    range_min: int = 0,
    range_max: int | None = None,
    max_score: float | None = None,
    min_score: float | None = None,
    absolute_margin: float | None = None,
    relative_margin: float | None = None,
    sampling: Sampling = "top",
    temperature: float = 0.05,
    seed: int = 0,
    index: IndexKind | CorpusIndex = "auto",
    storage: Storage | None = None,
    target_recall: float = TARGET_RECALL,
    threads: int | None = None,
    exclude: Any = None,
    barred: CandidateFilter | None = None,
    filters: Sequence[CandidateFilter] = (),
) -> MinedNegatives:
    """For each anchor, corpus rows that are near it and are not its positives.

    With equal settings and the exact index these are the negatives of sentence-transformers'
    ``mine_hard_negatives``: the nearest ``range_max`` plus the positives are searched, the positives are
    taken out, then the rules run (absolute margin, relative margin, maximum and minimum score, then
    ``filters``); of what survives the first ``range_min`` are skipped, and ``num_negatives`` are taken.

    Args:
        anchor_embeddings: (n, d) float32 or float16, L2-normalised; zero rows get no negatives.
        corpus_embeddings: (m, d), likewise; zero rows never become negatives. May be a ``numpy.memmap``.
        positives: corpus row numbers per anchor: one each, a matrix padded with −1, or lists.
        num_negatives: how many negatives an anchor gets; fewer where fewer survive.
        range_min: how many of the nearest survivors to skip.
        range_max: how many of the nearest to consider; by default enough for ``num_negatives``, ten
            times that where a rule may remove some or ``sampling`` draws among them.
        max_score: the greatest similarity a negative may have.
        min_score: the least similarity a negative may have.
        absolute_margin: a negative's similarity plus this may not exceed the lowest positive score p.
        relative_margin: a negative's similarity may not exceed p − margin · |p|.
        sampling: how the survivors are drawn; see ``sampling.Sampling``.
        temperature: of ``weighted`` sampling, in units of similarity.
        seed: of the draws.
        index: ``flat`` searches exactly; ``ivf`` only near clusters and ``hnsw`` along a graph, with a measured
            recall and exact scores; ``auto`` chooses between the first two by size and structure. A
            ``store.CorpusIndex`` of the same corpus is searched as it is.
        storage: how the graph of ``hnsw`` holds vectors; see ``index.search``.
        target_recall: the least recall of the search that an approximate index may have.
        threads: how many to use, by default ``OMP_NUM_THREADS`` or all cores.
        exclude: corpus row numbers per anchor that must not become negatives (the anchor itself, say),
            in one of the forms of ``positives``.
        barred: says which documents are out of the question for which anchor; they are passed over as if they were
            not in the corpus, and ``range_max`` does not count them (see ``barred``).
        filters: further rules, run in order after the thresholds; see ``false_negatives``.

    Raises:
        InputError: when an argument is wrong, or the corpus is empty.
    """
    checked_anchors = checked_embeddings(anchor_embeddings, name="anchor_embeddings")
    checked_corpus = checked_embeddings(corpus_embeddings, name="corpus_embeddings")
    anchors, corpus = checked_anchors.vectors, checked_corpus.vectors
    _check(anchors, corpus, num_negatives=num_negatives, range_min=range_min)
    check_sampling(sampling, temperature)
    if isinstance(index, CorpusIndex):
        index.check_holds(corpus)
        if storage not in {None, index.storage}:
            raise InputError(f"storage: found {storage!r}, but the index that was given holds {index.storage}")
    else:
        check_index(index, storage)
    inputs = Inputs(
        checked_anchors,
        checked_corpus,
        as_ragged(positives, anchors=len(anchors), corpus=len(corpus), name="positives"),
        None if exclude is None else as_ragged(exclude, anchors=len(anchors), corpus=len(corpus), name="exclude"),
    )
    thresholds = Thresholds(absolute_margin, relative_margin, max_score, min_score)
    for name, value in thresholds._asdict().items():
        if value is not None and not math.isfinite(value):
            raise InputError(f"{name}: found {value}, expected a finite number, or None for no such rule")
    most_positives = int(inputs.positives.counts.max(initial=0))
    range_max = _range_max(
        range_max,
        range_min=range_min,
        num_negatives=num_negatives,
        most_positives=most_positives,
        deep=bool(filters) or sampling != "top" or any(t is not None for t in thresholds[:3]),
    )
    most_excluded = 0 if inputs.excluded is None else int(inputs.excluded.counts.max(initial=0))
    k = range_max + most_positives + most_excluded
    how: _SearchOptions = {"target_recall": target_recall, "seed": seed, "threads": threads}

    def look(depth: int) -> Searched:
        if isinstance(index, CorpusIndex):
            return index.search(anchors, depth, exact=corpus, **how)
        return search(anchors, corpus, depth, index=index, storage=storage, **how)

    passed = None
    if barred is None:
        searched = look(k)
    else:
        searched, counts = search_past(look, barred, queries=anchors, corpus=corpus, k=k, threads=threads)
        passed = (barred.rule, counts)
    plan = Plan(num_negatives, range_min, range_max, thresholds, filters, sampling, temperature, seed)
    return MinedNegatives(*select(searched.found, inputs, plan, passed), searched.recall, searched.method)


def _check(anchors: Embeddings, corpus: Embeddings, *, num_negatives: int, range_min: int) -> None:
    if not len(corpus):
        raise InputError("corpus_embeddings: the corpus is empty, expected at least one document")
    if anchors.shape[1] != corpus.shape[1]:
        raise InputError(
            f"anchor_embeddings have {anchors.shape[1]} dimensions and corpus_embeddings {corpus.shape[1]}: "
            f"embed both with one model"
        )
    if num_negatives < 1:
        raise InputError(f"num_negatives: found {num_negatives}, expected at least 1")
    if range_min < 0:
        raise InputError(f"range_min: found {range_min}, expected 0 or more")


def _range_max(
    range_max: int | None, *, range_min: int, num_negatives: int, most_positives: int, deep: bool
) -> int:
    """The default of sentence-transformers where none is given, but that a draw has something to choose from."""
    if range_max is None:
        return range_min + num_negatives * (10 if deep else 1) + most_positives
    if num_negatives > range_max - range_min:
        raise InputError(
            f"range_max: found {range_max}, which leaves {range_max - range_min} candidates after the first "
            f"{range_min} are skipped, expected at least num_negatives = {num_negatives}"
        )
    return range_max

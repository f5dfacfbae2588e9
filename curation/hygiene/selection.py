"""Rows chosen for diversity, for likeness to a target, or for matching lengths. Nothing is removed as bad.

Each function returns row numbers, in the order chosen, and is deterministic for a seed. Checked against its
source: DSIR (the authors' code), stochastic greedy and TAROT (abstracts). The bound of ``k_centre`` is the
textbook's (Gonzalez 1985), not looked up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from curation.errors import InputError
from curation.negatives.inputs import Float32, Int64, as_embeddings

__all__ = [
    "dsir_log_weights",
    "facility_location",
    "gumbel_top_k",
    "hashed_ngrams",
    "importance_log_weights",
    "k_centre",
    "length_matched",
    "transport_select",
    "whitened",
]

Float64 = npt.NDArray[np.float64]
DSIR_BUCKETS: Final = 10_000
_SMOOTHING: Final = 1e-8
"""What DSIR's own code adds to a bucket's probability."""


def k_centre(embeddings: Any, count: int, *, seed: int = 0) -> Int64:
    """Rows such that no row is far from a chosen one: each next row is the farthest from all before it.

    Gonzalez 1985; the greatest distance is at most twice the best possible. Starts at a seeded row.

    Args:
        embeddings: (n, d) L2-normalised.
        count: how many rows, at most n.
        seed: of the first row.
    """
    vectors = _prepared(embeddings, count)
    chosen = np.empty(count, np.int64)
    if not count:
        return chosen
    chosen[0] = np.random.default_rng(seed).integers(len(vectors))
    nearest = vectors @ vectors[chosen[0]]
    for at in range(1, count):
        nearest[chosen[at - 1]] = np.inf
        chosen[at] = int(nearest.argmin())
        np.maximum(nearest, vectors @ vectors[chosen[at]], out=nearest)
    return chosen


def facility_location(embeddings: Any, count: int, *, epsilon: float = 0.01, seed: int = 0) -> Int64:
    """Rows that represent all rows: greedily maximises Σ_i max over chosen s of cos(i, s).

    Stochastic greedy (Mirzasoleiman et al. 2015): each step looks at a random (n / count) · ln(1 / ε) rows,
    which reaches 1 − 1/e − ε of the optimum in expectation. ``epsilon=0`` looks at all: plain greedy.

    Args:
        embeddings: (n, d) L2-normalised.
        count: how many rows, at most n.
        epsilon: in [0, 1).
        seed: of the draws.
    """
    vectors = _prepared(embeddings, count)
    if not 0 <= epsilon < 1:
        raise InputError(f"epsilon: found {epsilon}, expected 0 or more and less than 1")
    rng = np.random.default_rng(seed)
    n = len(vectors)
    size = n if epsilon == 0 else int(np.ceil(n / max(count, 1) * np.log(1 / epsilon)))
    covered = np.full(n, -1.0, np.float32)
    left = np.ones(n, np.bool_)
    chosen = np.empty(count, np.int64)
    for at in range(count):
        open_rows = np.flatnonzero(left)
        tried = open_rows if size >= len(open_rows) else np.sort(rng.choice(open_rows, size, replace=False))
        best, gain = -1, -np.inf
        for start in range(0, len(tried), 512):
            part = tried[start : start + 512]
            gains = np.maximum(vectors[part] @ vectors.T - covered, 0).sum(axis=1, dtype=np.float64)
            if gains.max() > gain:
                best, gain = int(part[gains.argmax()]), float(gains.max())
        chosen[at] = best
        left[best] = False
        np.maximum(covered, vectors @ vectors[best], out=covered)
    return chosen


def hashed_ngrams(texts: Sequence[str], *, buckets: int = DSIR_BUCKETS) -> Any:
    """(n, buckets) sparse counts of hashed words and pairs of words, in lower case."""
    from sklearn.feature_extraction.text import HashingVectorizer

    hasher = HashingVectorizer(
        n_features=buckets,
        ngram_range=(1, 2),
        alternate_sign=False,
        norm=None,
        token_pattern=r"\w+|[^\w\s]+",
    )
    return hasher.transform(texts)


def importance_log_weights(counts: Any, *, target: Any, raw: Any) -> Float64:
    """log w = Σ counts · [log p_target − log p_raw] (Xie et al. 2023, DSIR, eq. 1).

    Args:
        counts: (n, buckets), sparse or dense.
        target: (buckets,) probabilities.
        raw: (buckets,) probabilities.
    """
    ratio = np.log(np.asarray(target, np.float64) + _SMOOTHING) - np.log(np.asarray(raw, np.float64) + _SMOOTHING)
    return np.asarray(counts @ ratio, dtype=np.float64).ravel()


def dsir_log_weights(texts: Sequence[str], target_texts: Sequence[str], *, buckets: int = DSIR_BUCKETS) -> Float64:
    """(n,) DSIR's log importance weights of texts towards a sample of the target.

    A word that the target sample lacks costs about log 1e8, as in the authors' code: the sample should be
    thousands of texts, or long texts weigh less for their length alone.

    Raises:
        InputError: when either side holds no text.
    """
    if not texts or not target_texts:
        raise InputError(f"found {len(texts)} texts and {len(target_texts)} target texts, expected some of each")
    counts, wanted = hashed_ngrams(texts, buckets=buckets), hashed_ngrams(target_texts, buckets=buckets)
    raw, target = (np.asarray(c.sum(axis=0), np.float64).ravel() for c in (counts, wanted))
    return importance_log_weights(counts, target=target / max(target.sum(), 1.0), raw=raw / max(raw.sum(), 1.0))


def gumbel_top_k(log_weights: Any, count: int, *, seed: int = 0) -> Int64:
    """A draw of ``count`` rows without replacement, in proportion to exp(log weight); likeliest first."""
    weights = np.asarray(log_weights, np.float64)
    _check_count(count, len(weights))
    keys = weights + np.random.default_rng(seed).gumbel(size=len(weights))
    return np.argsort(-keys, kind="stable")[:count].astype(np.int64)


def whitened(vectors: Any, *, reference: Any, ridge: float = 1e-3) -> Float32:
    """``vectors`` in coordinates in which ``reference`` has equal variance everywhere, L2-normalised.

    Feng et al. 2025, TAROT: a few directions of high variance otherwise decide every distance. There the
    vectors are loss gradients; any will do here.

    Args:
        vectors: (n, d).
        reference: (m, d) whose mean and covariance are used.
        ridge: added to the variances, as a share of their mean: keeps directions without variance finite.
    """
    base = np.asarray(reference, np.float64)
    mean = base.mean(axis=0)
    values, axes = np.linalg.eigh(np.cov(base - mean, rowvar=False, bias=True).reshape(base.shape[1], -1))
    scale = 1 / np.sqrt(np.maximum(values, 0) + ridge * max(float(values.mean()), np.finfo(float).tiny))
    turned = (np.asarray(vectors, np.float64) - mean) @ (axes * scale)
    lengths = np.linalg.norm(turned, axis=1, keepdims=True)
    unit: Float32 = (turned / np.where(lengths > 0, lengths, 1)).astype(np.float32)
    return unit


def transport_select(embeddings: Any, target_embeddings: Any, count: int) -> Int64:
    """Rows whose distribution is near the target's: each target point takes its nearest free rows in turn.

    The cost is ‖a − b‖² = 2 − 2 cos after whitening (TAROT). Rounds in which every target point takes one
    row spread the mass evenly over the target, as optimal transport does; within a round the cheapest pair
    goes first. This is a greedy solution of that transport problem, not the exact one.

    Args:
        embeddings: (n, d).
        target_embeddings: (t, d), t ≥ 1.
        count: how many rows, at most n.
    """
    rows, target = np.asarray(embeddings, np.float32), np.asarray(target_embeddings, np.float32)
    _check_count(count, len(rows))
    if not len(target):
        raise InputError("target_embeddings: found no row, expected at least one")
    both = np.concatenate([rows, target])
    likeness = whitened(target, reference=both) @ whitened(rows, reference=both).T
    nearest = likeness.argmax(axis=1)
    best = likeness[np.arange(len(target)), nearest]
    chosen: list[int] = []
    while len(chosen) < count:
        waiting = np.ones(len(target), np.bool_)
        while waiting.any() and len(chosen) < count:
            open_points = np.flatnonzero(waiting)
            point = open_points[best[open_points].argmax()]
            row = int(nearest[point])
            chosen.append(row)
            waiting[point] = False
            likeness[:, row] = -np.inf
            robbed = np.flatnonzero(nearest == row)
            nearest[robbed] = likeness[robbed].argmax(axis=1)
            best[robbed] = likeness[robbed, nearest[robbed]]
    return np.array(chosen, dtype=np.int64)


def length_matched(lengths: Any, reference: Any, count: int, *, bins: int = 10, seed: int = 0) -> Int64:
    """At most ``count`` rows whose lengths are distributed like ``reference``, drawn without replacement.

    The bins are quantiles of the reference, so each wants an equal share; what is not a whole row is rounded by
    one draw, so that few rows are spread over all lengths. When one bin has too few rows, all bins are reduced
    alike: fewer rows come back, and their lengths still match.

    Args:
        lengths: (n,).
        reference: (r,), r ≥ 1.
        count: how many rows at most.
        bins: how many quantiles.
        seed: of the draw.

    Returns:
        Row numbers in rising order.
    """
    sizes, wanted = np.asarray(lengths, np.float64), np.asarray(reference, np.float64)
    _check_count(count, len(sizes))
    if not len(wanted) or bins < 1:
        raise InputError(f"reference and bins: found {len(wanted)} lengths and {bins} bins, expected some of each")
    edges = np.unique(np.quantile(wanted, np.linspace(0, 1, bins + 1)[1:-1]))
    own, theirs = np.searchsorted(edges, sizes, side="left"), np.searchsorted(edges, wanted, side="left")
    share = np.bincount(theirs, minlength=len(edges) + 1) / len(wanted)
    there = np.bincount(own, minlength=len(edges) + 1)
    needed = share > 0
    total = min(float(count), float((there[needed] / share[needed]).min()))
    rng = np.random.default_rng(seed)
    # Systematic rounding: each quota is its share rounded down or up, and all of them make up the total.
    edges_of_rows = np.floor(np.concatenate(([0.0], np.cumsum(total * share).round(9))) + rng.random())
    quota = np.minimum(np.diff(edges_of_rows).astype(np.int64), there)
    picked = [rng.choice(np.flatnonzero(own == b), quota[b], replace=False) for b in np.flatnonzero(quota)]
    return np.sort(np.concatenate(picked)).astype(np.int64) if picked else np.empty(0, np.int64)


def _prepared(embeddings: Any, count: int) -> Float32:
    vectors = np.asarray(as_embeddings(embeddings, name="embeddings"), np.float32)
    _check_count(count, len(vectors))
    return vectors


def _check_count(count: int, rows: int) -> None:
    if not 0 <= count <= rows:
        raise InputError(f"count: found {count}, expected 0 to {rows}, the number of rows")

"""Semantic duplicates: texts whose embeddings nearly agree. Words in common are for ``near``.

Encoders place a question and its look-alike (another number, a negation) close together, closer than many
paraphrases. So two texts are only duplicates when their numbers and their negations agree, too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from curation.hygiene.groups import Links, resolve_edges
from curation.models.protocols import Encoder

__all__ = [
    "EXACT_UP_TO",
    "SemanticLinks",
    "encode_whole",
    "look_alike_key",
    "semantic_duplicates",
    "semantic_duplicates_within",
]

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

EXACT_UP_TO: Final = 50_000
"""Up to so many texts every pair is compared; above, those in neighbouring cells (faiss IVF)."""

_BLOCK: Final = 1024
_NEIGHBOURS: Final = 16
_PAIRS: Final = 65_536
"""Pairs whose cosines are computed at once."""
_WINDOW_WORDS: Final = 150
_RECALL_SAMPLE: Final = 1000

_NUMBER: Final = re.compile(r"(?:(?<![\w)\]])[-−](?=\d))?\d+(?:[.,]\d+)*")
_SIGN: Final = re.compile(r"[<>≤≥≠]|(?<=\d)(?: [-−] | ?[+*/×÷] ?)(?=\d)")
_NEGATION: Final = re.compile(
    r"\b(?:not|no|never|none|nothing|nobody|nor|neither|without|cannot|except|\w+n['’]t)\b", re.IGNORECASE
)


class SemanticLinks(NamedTuple):
    """What goes, and how sure it is that nothing was missed."""

    links: Links
    recall: float
    """The share of the true nearest kept neighbours, at or above the threshold, that the search found on a
    sample; 1.0 when every pair was compared. With keys, the mean over them, by how many texts have one."""


def semantic_duplicates(
    vectors: Float32,
    *,
    threshold: float,
    order: Int64,
    keys: Sequence[object] | None = None,
    seed: int = 0,
    exact_up_to: int = EXACT_UP_TO,
) -> SemanticLinks:
    """Which texts go because a better one with nearly the same embedding stays.

    Texts are taken in ``order``; one goes when its cosine with a text that stays is at least
    ``threshold``. So exactly one of each cluster stays: the one that all others of it are linked to.

    Args:
        vectors: (N, d), L2-normalised; a zero vector is like nothing.
        threshold: least cosine of duplicates, in (0, 1].
        order: the N positions, from the one to keep most.
        keys: N values; texts with different keys are no duplicates (:func:`look_alike_key`).
        seed: of the cells' training, when there are cells.
        exact_up_to: see :data:`EXACT_UP_TO`; with keys, of texts that share one.
    """
    if keys is None:
        return _one_kind(vectors, threshold, order, seed=seed, exact_up_to=exact_up_to)
    # Each key by itself: among hundreds of nearer look-alikes a search would not come to the duplicate.
    kinds = dict[object, list[int]]()
    for position in order.tolist():
        kinds.setdefault(keys[position], []).append(position)
    kept_by, similarity = np.full(len(vectors), -1, dtype=np.int64), np.full(len(vectors), np.nan)
    recall = 1.0
    for members in (np.array(kind, dtype=np.int64) for kind in kinds.values() if len(kind) > 1):
        links, seen = _one_kind(
            vectors[members], threshold, np.arange(len(members)), seed=seed, exact_up_to=exact_up_to
        )
        gone = links.kept_by >= 0
        kept_by[members[gone]] = members[links.kept_by[gone]]
        similarity[members] = links.similarity
        recall -= (1 - seen) * len(members) / len(vectors)
    return SemanticLinks(Links(kept_by, similarity), recall)


def _one_kind(vectors: Float32, threshold: float, order: Int64, *, seed: int, exact_up_to: int) -> SemanticLinks:
    """:func:`semantic_duplicates` of texts that may all be duplicates of each other."""
    exact = len(vectors) <= exact_up_to
    index = _open_index(vectors, seed=seed, exact=exact)
    kept_by = np.full(len(vectors), -1, dtype=np.int64)
    similarity = np.full(len(vectors), np.nan)
    kept_positions: list[int] = []
    for start in range(0, len(order), _BLOCK):
        block = order[start : start + _BLOCK]
        near = _search(index, vectors[block], threshold, kept_positions)
        within = vectors[block] @ vectors[block].T
        for i, position in enumerate(block.tolist()):
            earlier = [(float(within[i, j]), int(block[j])) for j in np.flatnonzero(within[i, :i] >= threshold)]
            found = [
                (score, -rank, other)
                for rank, (score, other) in enumerate([*near[i], *earlier])
                if kept_by[other] < 0
            ]
            if found:
                score, _, other = max(found)
                kept_by[position], similarity[position] = other, score
        stays = block[kept_by[block] < 0]
        if len(stays):
            index.add(vectors[stays])
            kept_positions.extend(stays.tolist())
    recall = 1.0 if exact else _recall(index, vectors, kept_positions, threshold, seed)
    return SemanticLinks(Links(kept_by, similarity), recall)


def semantic_duplicates_within(
    vectors: Float32, *, threshold: float, order: Int64, groups: Int64, keys: Sequence[object] | None = None
) -> Links:
    """As :func:`semantic_duplicates`, of rows that share a group; every pair of a group is compared.

    Args:
        vectors, threshold, order, keys: see there.
        groups: N numbers; a group is meant to be small, such as the answers to one prompt.
    """
    rows = pl.DataFrame({"a": np.arange(len(groups)), "group": groups})
    pairs = rows.join(rows.rename({"a": "b"}), on="group").filter(pl.col("a") < pl.col("b"))
    left, right = pairs["a"].to_numpy(), pairs["b"].to_numpy()
    edges: list[tuple[int, int, float]] = []
    for start in range(0, len(left), _PAIRS):
        a, b = left[start : start + _PAIRS], right[start : start + _PAIRS]
        scores = np.einsum("ij,ij->i", vectors[a], vectors[b])
        for at in np.flatnonzero(scores >= threshold).tolist():
            if keys is None or keys[a[at]] == keys[b[at]]:
                edges.append((int(a[at]), int(b[at]), float(scores[at])))
    return resolve_edges(len(vectors), edges, order=order)


def look_alike_key(text: str) -> tuple[tuple[str, ...], tuple[str, ...], int]:
    """The numbers of a text, its comparisons and signs between numbers, sorted, and whether its negations are odd.

    Two texts with different keys ask for different things, however close their embeddings are.
    """
    numbers = sorted(number.replace("−", "-") for number in _NUMBER.findall(text))
    signs = sorted(sign.strip().replace("−", "-") for sign in _SIGN.findall(text))
    return tuple(numbers), tuple(signs), len(_NEGATION.findall(text)) % 2


def encode_whole(texts: Sequence[str], encoder: Encoder) -> tuple[Float32, int]:
    """Vectors that speak of the whole of each text, and how many texts still were cut.

    Encoders read the beginning of a long text only, and two long answers may begin alike. So a long text
    is encoded in windows of 150 words, and its vector is their mean, normalised.

    Returns:
        (n, d) L2-normalised vectors, and the count of texts with a window that was cut.
    """
    windows: list[str] = []
    owner: list[int] = []
    for row, text in enumerate(texts):
        words = text.split()
        parts = [text]
        if len(words) > _WINDOW_WORDS:
            parts = [" ".join(words[i : i + _WINDOW_WORDS]) for i in range(0, len(words), _WINDOW_WORDS)]
        windows.extend(parts)
        owner.extend([row] * len(parts))
    encoded = encoder.encode(windows)
    sums = np.zeros((len(texts), encoder.dimension), dtype=np.float32)
    np.add.at(sums, np.array(owner, dtype=np.int64), encoded.vectors)
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    cut = len({row for row, truncated in zip(owner, encoded.truncated, strict=True) if truncated})
    return (sums / np.where(lengths > 0, lengths, 1)).astype(np.float32), cut


def _open_index(vectors: Float32, *, seed: int, exact: bool) -> Any:
    import faiss

    dimension = vectors.shape[1]
    if exact:
        return faiss.IndexFlatIP(dimension)
    cells = int(4 * np.sqrt(len(vectors)))
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dimension), dimension, cells, faiss.METRIC_INNER_PRODUCT)
    index.cp.seed = seed
    index.cp.niter = 8
    sample = np.random.default_rng(seed).permutation(len(vectors))[: 40 * cells]
    index.train(np.ascontiguousarray(vectors[sample]))
    index.nprobe = max(8, cells // 32)
    return index


def _search(index: Any, queries: Float32, threshold: float, positions: list[int]) -> list[list[tuple[float, int]]]:
    if not positions:
        return [[] for _ in queries]
    scores, rows = index.search(np.ascontiguousarray(queries), min(_NEIGHBOURS, len(positions)))
    return [
        [(float(s), positions[r]) for s, r in zip(line, hits, strict=True) if r >= 0 and s >= threshold]
        for line, hits in zip(scores, rows, strict=True)
    ]


def _recall(index: Any, vectors: Float32, kept: list[int], threshold: float, seed: int) -> float:
    """Among sampled texts with a duplicate that stays (other than themselves), the share whose nearest
    was found."""
    sample = np.random.default_rng(seed).permutation(len(vectors))[:_RECALL_SAMPLE]
    scores = vectors[sample] @ vectors[np.array(kept)].T
    place = {position: row for row, position in enumerate(kept)}
    for i, position in enumerate(sample.tolist()):
        if position in place:
            scores[i, place[position]] = -1.0
    best = scores.argmax(axis=1)
    wanted = np.flatnonzero(scores.max(axis=1) >= threshold)
    if not len(wanted):
        return 1.0
    _, rows = index.search(np.ascontiguousarray(vectors[sample[wanted]]), _NEIGHBOURS)
    return float(np.mean([best[i] in rows[j] for j, i in enumerate(wanted)]))

"""Products of vectors in bfloat16, which some processors multiply ten times as fast as float32.

What is done with the scores is in ``narrow``.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from curation.negatives.inputs import Float32, Int64, blocks
from curation.negatives.threads import over_shards

__all__ = [
    "PADDED",
    "ROUNDING",
    "SLACK",
    "Hits",
    "Narrow",
    "Sieve",
    "most_alike",
    "multiplies_bfloat16",
    "narrowed",
    "room_for",
]

ROUNDING: Final = 1.01 * 2.0**-8
"""The greatest relative error of rounding a score to the nearest bfloat16."""
SLACK: Final = 1e-4
"""More than float32 sums of some thousand products are off by, as a share of the vectors' lengths."""
_ROWS: Final = 256
"""Vectors that are rounded at once: they stay in the caches."""
_LINE: Final = 64
"""Bytes of a cache line."""
_GROUP: Final = 16
"""Documents whose scores are looked at as one, first."""
PADDED: Final = 64
"""Vectors come in multiples of so many, the last ones zeros."""


@cache
def multiplies_bfloat16() -> bool:
    """Whether this processor has instructions for products of bfloat16, and PyTorch uses them."""
    import torch

    checks = (getattr(torch.cpu, name, None) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"))
    there: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return there and any(check is not None and check() for check in checks)


def most_alike(vectors: Float32, centroids: Any) -> tuple[Int64, Float32]:
    """For each vector the most similar centroid and the score, both but for rounding to bfloat16.

    Args:
        vectors: (n, d).
        centroids: (c, d) bfloat16 tensor.
    """
    import torch

    scores = torch.from_numpy(np.ascontiguousarray(vectors)).to(torch.bfloat16) @ centroids.t()
    own = scores.view(torch.int16).numpy().argmax(axis=1)
    best = scores[torch.arange(len(own)), torch.from_numpy(own)].float().numpy()
    # Of negative floats the bits are in reverse order.
    below = np.flatnonzero(best < 0)
    if len(below):
        own[below] = (vectors[below] @ centroids.float().numpy().T).argmax(axis=1)
    return own, best


class Narrow(NamedTuple):
    """Vectors in bfloat16. |xy − x̂ŷ| ≤ |x − x̂||y| + |x̂||y − ŷ|, so that the error of a score has a bound."""

    vectors: Any
    """(n and some rows of zeros, d) bfloat16 tensor; a multiple of 64 rows."""
    lost: Float32
    """(n,) the distance of each vector from what is left of it."""
    length: Float32
    """(n,) of the vectors as they were."""


def room_for(rows: int, columns: int) -> npt.NDArray[np.int16]:
    """(rows, made up to a multiple of 64, columns) memory with arbitrary content.

    numpy asks for large pages, PyTorch does not.
    Products take a fourth longer where rows begin inside a cache line.
    """
    rows += -rows % PADDED
    room = np.empty(rows * columns + _LINE // 2, np.int16)
    start = -room.ctypes.data % _LINE // 2
    return room[start : start + rows * columns].reshape(rows, columns)


def narrowed(
    vectors: Float32,
    *,
    rows: npt.NDArray[Any] | None = None,
    room: npt.NDArray[np.int16] | None = None,
    threads: int | None = None,
) -> Narrow:
    """
    Args:
        vectors: (n, d); a view with steps between its rows is not copied.
        rows: which of them, and in which order, −1 for zeros; all of them by default.
        room: from :func:`room_for`, for as many rows or more; what it held is lost.
        threads: how many to use.
    """
    import torch

    n = len(vectors) if rows is None else len(rows)
    room = room_for(n, vectors.shape[1]) if room is None else room
    narrow = torch.from_numpy(room[: n + -n % PADDED]).view(torch.bfloat16)
    narrow[n:] = 0
    lost, length = np.empty(n, np.float32), np.empty(n, np.float32)

    def work(shard: slice) -> None:
        for at in blocks(shard.stop - shard.start, _ROWS):
            part = slice(shard.start + at.start, shard.start + at.stop)
            whole = torch.from_numpy(vectors[part] if rows is None else _taken(vectors, rows[part]))
            narrow[part] = whole
            length[part] = torch.linalg.vector_norm(whole, dim=1).numpy()
            lost[part] = torch.linalg.vector_norm(whole - narrow[part].float(), dim=1).numpy()

    over_shards(work, n, threads=threads)
    return Narrow(narrow, lost, length)


def _taken(vectors: Float32, rows: npt.NDArray[Any]) -> Float32:
    taken: Float32 = vectors[np.maximum(rows, 0)]
    taken[rows < 0] = 0
    return taken


class Hits(NamedTuple):
    """Pairs of a document and a query that score as much as the query asks for."""

    query: npt.NDArray[np.uint16]
    row: npt.NDArray[np.int32]
    """Of the document in its block."""
    score: Float32
    """Rounded to bfloat16."""


class Sieve:
    """Holds blocks of documents against queries: what scores enough falls through. One for each thread."""

    def __init__(self, documents: int, queries: int) -> None:
        """
        Args:
            documents: of a block, at most; a multiple of 64.
            queries: of a block, at most.
        """
        # Memory that is used again and again: new memory for each block costs a fifth of the product.
        self._room = room_for(documents, queries).ravel()

    def best(self, documents: Any, queries: Any, group: int) -> Float32:
        """(w, r / group) the best score of each group of documents, for each query; rounded to bfloat16.

        Args:
            documents: (r, d) bfloat16 tensor.
            queries: (w, d) bfloat16 tensor.
            group: how many neighbouring documents are one; divides r.
        """
        scores = self._scores(documents, queries)
        best: Float32 = scores.view(-1, group, len(queries)).amax(dim=1).float().numpy().T
        return best

    def enough(self, documents: Any, queries: Any, least: Float32) -> Hits:
        """The pairs whose score, but for its rounding, is at least that of the query.

        Args:
            documents: (r, d) bfloat16 tensor, r a multiple of 64.
            queries: (w, d) bfloat16 tensor.
            least: (w,) above zero; plus infinity where nothing is wanted.
        """
        import torch

        scores = self._scores(documents, queries)
        # The order of positive floats is that of their bits as integers; negative ones are below them.
        bits = scores.view(torch.int16).numpy().reshape(_GROUP, -1, len(queries))
        wanted = ((least / np.float32(1 + ROUNDING)).view(np.int32) >> 16).astype(np.int16)
        groups = np.flatnonzero(np.maximum.reduce(bits, axis=0) >= wanted)
        row, column = np.divmod(groups, len(queries))
        near = np.take(bits.reshape(_GROUP, -1), groups, axis=1)
        hits = np.flatnonzero(near >= wanted[column])
        member, place = np.divmod(hits, max(1, len(groups)))
        score = (near.ravel()[hits].astype(np.int32) << 16).view(np.float32)
        row = row[place] + member * bits.shape[1]
        return Hits(column[place].astype(np.uint16), row.astype(np.int32), score)

    def _scores(self, documents: Any, queries: Any) -> Any:
        """(r, w) tensor; the next one is in its place."""
        import torch

        room = self._room[: len(documents) * len(queries)].reshape(len(documents), len(queries))
        scores = torch.from_numpy(room).view(torch.bfloat16)
        torch.mm(documents, queries.t(), out=scores)
        return scores

"""Several token sequences as one row without padding, where a shared prefix is held once. Numpy only.

The sequences of a batch form a radix tree; its nodes, laid side by side, are the row that the model reads.
Which token sees which is for ``attention`` to enforce; what the states mean is for ``summary``.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["IntArray", "Packed", "Segment", "pack"]

IntArray = npt.NDArray[np.int64]


class Segment(NamedTuple):
    """One node of the tree: tokens ``start`` to ``stop`` of the packed row."""

    start: int
    stop: int
    above: tuple[tuple[int, int], ...]
    """Spans of the row that precede it in its sequences, from the root down."""
    depth: int
    """How many tokens those spans hold: the position of the segment's first token."""


class Packed(NamedTuple):
    """A packed row of T tokens that holds n sequences."""

    ids: IntArray
    """(T,) token ids."""
    positions: IntArray
    """(T,) each token's position in its sequence."""
    segments: list[Segment]
    where: list[IntArray]
    """n arrays: for each token of sequence i, its place in the row."""


class _Node(NamedTuple):
    low: int
    high: int
    depth: int
    above: tuple[tuple[int, int], ...]


def pack(sequences: Sequence[IntArray], *, min_shared: int = 1) -> Packed:
    """Lay sequences out as one row, each shared prefix of at least ``min_shared`` tokens once.

    Args:
        sequences: n arrays of token ids, none empty.
        min_shared: a shorter shared run is computed once per sequence: a segment costs some calls of its
            own, which a token or two do not pay back on a GPU.
    """
    order = sorted(range(len(sequences)), key=lambda i: sequences[i].astype(">u8").tobytes())
    ordered = [sequences[i] for i in order]
    common = [0, *(_common_prefix(a, b) for a, b in pairwise(ordered))]
    segments: list[Segment] = []
    pieces: list[IntArray] = []
    paths: list[tuple[tuple[int, int], ...]] = [()] * len(ordered)
    stack = [_Node(0, len(ordered), 0, ())]
    total = 0
    while stack:
        node = stack.pop()
        low = node.low
        while low < node.high:
            high = low + 1
            while high < node.high and common[high] - node.depth >= min_shared:
                high += 1
            end = min(common[low + 1 : high]) if high > low + 1 else len(ordered[low])
            above = node.above
            if end > node.depth:
                size = end - node.depth
                segments.append(Segment(total, total + size, above, node.depth))
                pieces.append(ordered[low][node.depth : end])
                above = (*above, (total, total + size))
                total += size
            if high == low + 1:
                paths[low] = above
            else:
                stack.append(_Node(low, high, end, above))
            low = high
    where = [np.empty(0, dtype=np.int64)] * len(ordered)
    for rank, i in enumerate(order):
        where[i] = np.concatenate([np.arange(start, stop) for start, stop in paths[rank]])
    positions = np.concatenate([np.arange(s.depth, s.depth + s.stop - s.start) for s in segments])
    return Packed(np.concatenate(pieces), positions, segments, where)


def _common_prefix(a: IntArray, b: IntArray) -> int:
    size = min(len(a), len(b))
    differ = np.flatnonzero(a[:size] != b[:size])
    return int(differ[0]) if len(differ) else size

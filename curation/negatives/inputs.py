"""Checks and plain forms of what mining is given: embeddings, and positives as ragged row numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from curation.errors import InputError

__all__ = [
    "Checked",
    "Embeddings",
    "Float32",
    "Int64",
    "Ragged",
    "Storage",
    "as_embeddings",
    "as_ragged",
    "blocks",
    "checked_embeddings",
]

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]
Embeddings = npt.NDArray[Any]
"""(rows, dimension), float32 or float16; a ``numpy.memmap`` is read block by block."""

Storage = Literal["float32", "float16", "int8"]
"""How an index holds vectors: 4, 2 or 1 bytes a dimension."""

NORM_TOLERANCE: Final = 5e-3
"""How far from 1 a length may be: float16 storage of 1,024 dimensions stays within a fifth of it."""
_CHECK_ROWS: Final = 65_536


class Ragged(NamedTuple):
    """Lists of row numbers, one list per anchor, end to end."""

    values: Int64
    offsets: Int64
    """(n + 1): list i is ``values[offsets[i]:offsets[i + 1]]``."""

    @property
    def counts(self) -> Int64:
        return np.diff(self.offsets)

    @property
    def owners(self) -> Int64:
        """The anchor of each value."""
        return np.repeat(np.arange(len(self.offsets) - 1, dtype=np.int64), self.counts)

    def part(self, start: int, stop: int) -> Ragged:
        """The lists of anchors start to stop."""
        first, last = self.offsets[start], self.offsets[stop]
        return Ragged(self.values[first:last], self.offsets[start : stop + 1] - first)


class Checked(NamedTuple):
    """Embeddings that passed the checks."""

    vectors: Embeddings
    zeros: Int64
    """The rows that are zero everywhere: they have no direction, so no similarity means anything."""


def blocks(rows: int, size: int) -> Iterator[slice]:
    """Consecutive slices of at most ``size`` that cover ``range(rows)``."""
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))


def as_embeddings(vectors: Any, *, name: str) -> Embeddings:
    """``vectors`` when they are finite, L2-normalised (or zero) rows.

    Raises:
        InputError: naming the argument and the first row at fault.
    """
    return checked_embeddings(vectors, name=name).vectors


def checked_embeddings(vectors: Any, *, name: str) -> Checked:
    """As :func:`as_embeddings`, and which rows are zero, in one pass."""
    array = vectors if isinstance(vectors, np.ndarray) else np.asarray(vectors)
    if array.ndim != 2 or array.dtype.kind != "f":
        raise InputError(
            f"{name}: found shape {array.shape} of {array.dtype}, expected (rows, dimension) of float32 or float16"
        )
    if array.dtype not in (np.float32, np.float16):
        array = array.astype(np.float32)
    zeros: list[Int64] = [np.empty(0, np.int64)]
    for part in blocks(len(array), _CHECK_ROWS):
        squares = _squared_norms(array[part])
        zero = squares == 0
        wrong = np.flatnonzero(~((np.abs(np.sqrt(squares) - 1) <= NORM_TOLERANCE) | zero))
        if len(wrong):
            row = part.start + int(wrong[0])
            raise InputError(
                f"{name}: row {row} has length {np.sqrt(squares[wrong[0]]):.6g}, expected 1: "
                f"divide each row by its L2 norm, and leave out rows that are not finite"
            )
        zeros.append(part.start + np.flatnonzero(zero))
    return Checked(array, np.concatenate(zeros))


def _squared_norms(part: Embeddings) -> npt.NDArray[np.float32]:
    values = part.astype(np.float32, copy=False)
    squares: npt.NDArray[np.float32] = np.einsum("ij,ij->i", values, values)
    return squares


def as_ragged(lists: Any, *, anchors: int, corpus: int, name: str) -> Ragged:
    """Row numbers per anchor in one form; repeats are dropped.

    Args:
        lists: one row number per anchor; or a matrix padded with −1; or a sequence of sequences.
        anchors: how many anchors there are.
        corpus: how many rows a number may point at.
        name: the argument, for the message.

    Raises:
        InputError: when a count or a row number is wrong, with the anchor.
    """
    if len(lists) != anchors:
        raise InputError(f"{name}: found {len(lists)} entries for {anchors} anchors, expected one entry per anchor")
    values, owners = _flatten(lists, name=name)
    wrong = np.flatnonzero((values < 0) | (values >= corpus))
    if len(wrong):
        raise InputError(
            f"{name}: anchor {owners[wrong[0]]} names corpus row {values[wrong[0]]}, but the corpus has rows "
            f"0 to {corpus - 1}: add the text to the corpus, or drop the row number"
        )
    keys = np.unique(owners * np.int64(max(corpus, 1)) + values)
    owners, values = np.divmod(keys, np.int64(max(corpus, 1)))
    offsets = np.zeros(anchors + 1, np.int64)
    np.cumsum(np.bincount(owners, minlength=anchors), out=offsets[1:])
    return Ragged(values, offsets)


def _flatten(lists: Any, *, name: str) -> tuple[Int64, Int64]:
    """Values and their owners; −1 is padding in a matrix only."""
    if isinstance(lists, np.ndarray) and lists.dtype.kind in "iu":
        matrix = lists.astype(np.int64).reshape(len(lists), -1)
        owners, columns = np.nonzero(matrix != -1)
        return matrix[owners, columns], owners.astype(np.int64)
    counts = [len(entry) if isinstance(entry, Sequence | np.ndarray) else 1 for entry in lists]
    flat = [v for entry in lists for v in (entry if isinstance(entry, Sequence | np.ndarray) else (entry,))]
    values = np.asarray(flat)
    if flat and values.dtype.kind not in "iu":
        raise InputError(f"{name}: found values of {values.dtype}, expected corpus row numbers")
    return values.astype(np.int64), np.repeat(np.arange(len(counts), dtype=np.int64), counts)

"""Similarity of two answers in an encoder's space. The vectors come from the ledger."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

__all__ = ["pair_cosines", "vector_matrix"]

_BLOCK: Final = 65_536


def vector_matrix(vectors: pl.Series) -> npt.NDArray[np.float32]:
    """A column of n equally long lists as an (n, d) float32 array."""
    if vectors.is_empty():
        return np.empty((0, 0), dtype=np.float32)
    width = int(vectors.list.len()[0])
    return vectors.list.explode().to_numpy().reshape(-1, width).astype(np.float32, copy=False)


def pair_cosines(left: pl.Series, right: pl.Series, vectors: pl.DataFrame) -> pl.Series:
    """The cosine of each pair of texts.

    Args:
        left, right: n text identifiers each.
        vectors: ``text_id`` and ``vector`` (L2-normalised); one row a text.

    Returns:
        n float64 values in [-1, 1]; null where either vector is missing.
    """
    matrix = vector_matrix(vectors["vector"])
    places = vectors.select("text_id").with_row_index("place")
    positions = [
        side.alias("text_id").to_frame().join(places, on="text_id", how="left", maintain_order="left")["place"]
        for side in (left, right)
    ]
    known = (positions[0].is_not_null() & positions[1].is_not_null()).to_numpy()
    rows = [p.filter(pl.Series(known)).to_numpy().astype(np.int64) for p in positions]
    cosines = np.empty(len(rows[0]), dtype=np.float64)
    for start in range(0, len(cosines), _BLOCK):
        block = slice(start, start + _BLOCK)
        cosines[block] = np.einsum("ij,ij->i", matrix[rows[0][block]], matrix[rows[1][block]], dtype=np.float64)
    out = np.full(len(left), np.nan)
    out[known] = np.clip(cosines, -1.0, 1.0)
    return pl.Series("cosine", out).fill_nan(None)

"""Pseudo-random numbers by name: each depends on its row's identifiers and a seed, and on no other row."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from curation.hygiene.shingles import mix
from curation.text import content_hash

__all__ = ["seed_of", "uniform_draws"]

_HEX: Final = r"^[0-9a-f]{32}$"


def uniform_draws(identifiers: pl.Series, *, seed: int, salt: str = "") -> npt.NDArray[np.float64]:
    """(n,) numbers in [0, 1), the same on every machine and whatever the order of the rows.

    Args:
        identifiers: n texts, no nulls; those that are content hashes are not hashed again.
        seed: of the draw.
        salt: names the draw, so that two draws for one row differ.
    """
    if identifiers.is_empty():
        return np.empty(0)
    plain = identifiers.str.contains(_HEX)
    hexadecimal = identifiers
    if not plain.all():
        named = zip(identifiers, plain, strict=True)
        hexes = [name if is_hash else content_hash("draw", name) for name, is_hash in named]
        hexadecimal = pl.Series(hexes, dtype=pl.String)
    high = hexadecimal.str.slice(0, 15).str.to_integer(base=16, dtype=pl.Int64).to_numpy().astype(np.uint64)
    key = np.uint64(int(content_hash("draw", salt, str(seed))[:16], 16))
    return (mix(mix(high) ^ key) >> np.uint64(11)).astype(np.float64) / 2.0**53


def seed_of(*parts: str) -> int:
    """A seed for :class:`random.Random` that depends on every part."""
    return int(content_hash("seed", *parts)[:16], 16)

"""Exact duplicates: texts that are equal once normalised (``curation.text.normalise``)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from curation.hygiene.groups import Links
from curation.text import normalise

__all__ = ["exact_duplicates"]


def exact_duplicates(texts: Iterable[str], *, order: npt.NDArray[np.int64]) -> Links:
    """Which texts go because an equal one, earlier in ``order``, stays.

    Args:
        texts: N texts.
        order: the N positions, from the one to keep most.
    """
    keys = [hashlib.blake2b(normalise(text).encode(), digest_size=16).digest() for text in texts]
    first: dict[bytes, int] = {}
    kept_by = np.full(len(keys), -1, dtype=np.int64)
    for position in order.tolist():
        kept = first.setdefault(keys[position], position)
        if kept != position:
            kept_by[position] = kept
    return Links(kept_by, np.where(kept_by >= 0, 1.0, np.nan))

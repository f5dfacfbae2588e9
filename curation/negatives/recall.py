"""The recall of a search that is not exact, from a sample of its queries: how it is drawn, and what it promises."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Recall", "measured_recall", "sampled_queries"]

_Z: Final = 1.645
"""The recall that is promised is the lower end of a one-sided 95 % interval."""


class Recall(NamedTuple):
    """What a sample says of the recall; an array has one entry a setting that was tried."""

    mean: npt.NDArray[np.float64]
    lower: npt.NDArray[np.float64]


def sampled_queries(queries: int, most: int, *, seed: int) -> npt.NDArray[np.int64]:
    """Positions of at most ``most`` of so many queries, in ascending order."""
    return np.sort(np.random.default_rng(seed).choice(queries, min(queries, most), replace=False))


def measured_recall(shares: npt.NDArray[np.float64]) -> Recall:
    """The mean, and the lower end of its one-sided 95 % interval.

    Args:
        shares: (n, …) for each query of the sample the share of its true nearest rows that is found.
    """
    mean = np.asarray(shares.mean(axis=0))
    return Recall(mean, np.asarray(mean - _Z * shares.std(axis=0) / np.sqrt(len(shares))))

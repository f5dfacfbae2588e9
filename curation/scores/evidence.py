"""How much to trust each block of features: prior variances by the evidence of the labels. No text, no files.

A Bradley–Terry model with weights w_b ~ N(0, v_b) for the features of block b is a Gaussian process over pairs with
the kernel Σ v_b D_b D_bᵀ (Chu and Ghahramani 2005, preference learning with Gaussian processes). The v_b that make
the given labels likeliest are found by coordinate ascent on Laplace's approximation of the marginal likelihood
(Rasmussen and Williams 2006, algorithm 5.1). A block that says nothing about the labels ends with variance 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from curation.scores.calibration import sigmoid

__all__ = ["BlockVariances", "choose_variances", "log_evidence"]

FloatArray = npt.NDArray[np.float64]
GRID: Final = (0.0, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
MOST_ROWS: Final = 1000
_ROUNDS: Final = 2
_NEWTON_STEPS: Final = 30
_MIN_GAIN: Final = 0.1  # nats; a block that earns less is left out


class BlockVariances(NamedTuple):
    """What the labels say of the blocks."""

    variances: dict[str, float]
    """Prior variance of a block as a whole, for features of mean square 1; 0 where it says nothing."""
    evidence: float
    """log p(labels) over that of coin tosses, nats, on the rows it was measured on."""


def choose_variances(
    blocks: Mapping[str, FloatArray], *, grid: Sequence[float] = GRID, most_rows: int = MOST_ROWS, seed: int = 0
) -> BlockVariances:
    """The prior variance of each block, by coordinate ascent on the evidence.

    Args:
        blocks: (pairs, features) differences chosen − rejected; each is scaled to a mean square of 1 a row.
        grid: the variances that are tried; 0 leaves a block out.
        most_rows: of a seeded sample that the evidence is measured on; it costs the cube of it.
    """
    count = len(next(iter(blocks.values())))
    rows = np.arange(count)
    if count > most_rows:
        rows = np.sort(np.random.default_rng(seed).choice(count, most_rows, replace=False))
    kernels = {name: _kernel(block[rows]) for name, block in blocks.items()}
    chosen = dict.fromkeys(blocks, 0.0)
    total = np.zeros((len(rows), len(rows)))
    best = len(rows) * float(np.log(0.5))
    start = best
    for turn in range(_ROUNDS):
        before = best
        for name, kernel in kernels.items():
            rest = total - chosen[name] * kernel
            values = grid if turn == 0 else _near(grid, chosen[name])
            tried = [(_evidence_or_none(rest + value * kernel, value), value) for value in values]
            scored = [(found, value) for found, value in tried if found is not None]
            none = next((found for found, value in scored if value == 0.0), -np.inf)
            found, value = max(scored)
            if found < none + _MIN_GAIN:
                found, value = none, 0.0
            chosen[name], best = value, found
            total = rest + value * kernel
        if best - before < _MIN_GAIN:
            break
    return BlockVariances(chosen, best - start)


def log_evidence(kernel: FloatArray) -> float:
    """Laplace's log p(every first answer is preferred) for a zero-mean Gaussian process over pairs, nats.

    Args:
        kernel: (pairs, pairs), positive semi-definite.
    """
    from scipy.linalg import cho_factor, cho_solve

    count = len(kernel)
    values = np.zeros(count)
    weights = np.zeros(count)
    lower = np.eye(count)
    for _ in range(_NEWTON_STEPS):
        p = sigmoid(values)
        root = np.sqrt(np.maximum(p * (1 - p), 1e-10))
        lower, _low = cho_factor(np.eye(count) + root[:, None] * kernel * root, lower=True)
        target = root**2 * values + (1 - p)
        weights = target - root * cho_solve((lower, True), root * (kernel @ target))
        moved = kernel @ weights
        done = float(np.abs(moved - values).max()) < 1e-4
        values = moved
        if done:
            break
    fit = -0.5 * float(weights @ values) - float(np.logaddexp(0.0, -values).sum())
    return fit - float(np.log(np.diag(lower)).sum())


def _near(grid: Sequence[float], value: float) -> list[float]:
    """0, a variance and its neighbours: what is tried once every block has had its turn."""
    place = list(grid).index(value)
    return sorted({0.0, *grid[max(place - 1, 0) : place + 2]})


def _evidence_or_none(kernel: FloatArray, value: float) -> float | None:
    if not kernel.any():
        return len(kernel) * float(np.log(0.5)) if value == 0.0 else None
    return log_evidence(kernel)


def _kernel(block: FloatArray) -> FloatArray:
    size = float((block**2).sum() / max(len(block), 1))
    product: FloatArray = block @ block.T / (size or 1.0)
    return product

"""Which of the surviving candidates become negatives. Rules that remove candidates live in ``filters``."""

from __future__ import annotations

from typing import Final, Literal, get_args

import numpy as np

from curation.errors import InputError, closest
from curation.negatives.filters import Bool, Candidates

__all__ = ["Sampling", "check_sampling", "margin_bins", "pick"]

Sampling = Literal["top", "random", "weighted", "margin_bins"]
"""``top``: the nearest. ``random``: uniformly. ``weighted``: without replacement, in proportion to
exp(score / temperature). ``margin_bins``: TAS-Balanced's balance over equal-width bins of the margin."""

MARGIN_BINS: Final = 10


def check_sampling(sampling: str, temperature: float) -> None:
    """Raises InputError when ``sampling`` is unknown or the temperature is not positive."""
    if sampling not in get_args(Sampling):
        allowed = get_args(Sampling)
        raise InputError(
            f"sampling: found {sampling!r}, expected one of {', '.join(allowed)}{closest(sampling, allowed)}"
        )
    if not (np.isfinite(temperature) and temperature > 0):
        raise InputError(f"temperature: found {temperature}, expected a positive number")


def pick(
    candidates: Candidates, wanted: int, *, sampling: Sampling, temperature: float, rng: np.random.Generator
) -> Bool:
    """(n, k), true for at most ``wanted`` living candidates of each anchor.

    The draws do not depend on how anchors are cut into blocks, as long as the blocks come in order.
    """
    alive = candidates.alive
    if sampling == "top":
        return alive & (np.cumsum(alive, axis=1, dtype=np.int32) <= wanted)
    if sampling == "margin_bins":
        return _pick_by_margin_bins(candidates, wanted, rng)
    keys = rng.random(alive.shape)
    if sampling == "weighted":
        # The k largest of s/T + Gumbel noise are a draw without replacement from softmax(s/T).
        np.maximum(keys, np.finfo(np.float64).tiny, out=keys)
        keys = -np.log(-np.log(keys))
        with np.errstate(invalid="ignore"):
            keys += candidates.scores.astype(np.float64) / temperature
    return alive & _largest(np.where(alive, keys, -np.inf), wanted)


def margin_bins(margins: np.ndarray, alive: Bool) -> np.ndarray:
    """(n, k) the bin 0 to 9 of each margin, bins of equal width between an anchor's least and greatest.

    Hofstätter et al. 2021, TAS-Balanced. Where all margins of an anchor are equal, all are in bin 0.
    """
    low = np.where(alive, margins, np.inf).min(axis=1, keepdims=True, initial=np.inf)
    high = np.where(alive, margins, -np.inf).max(axis=1, keepdims=True, initial=-np.inf)
    width = high - low
    width = np.where(np.isfinite(width) & (width > 0), width, 1.0)
    with np.errstate(invalid="ignore"):
        share = np.where(alive, (margins - low) / width, 0.0)
    return np.clip((share * MARGIN_BINS).astype(np.int64), 0, MARGIN_BINS - 1)


def _pick_by_margin_bins(candidates: Candidates, wanted: int, rng: np.random.Generator) -> Bool:
    """``wanted`` times: draw one of the bins that still hold a candidate, then one of its candidates."""
    alive = candidates.alive.copy()
    reference = np.nan_to_num(candidates.positive_scores.astype(np.float64))[:, None]
    bins = margin_bins(reference - candidates.scores.astype(np.float64), alive)
    # All that an anchor needs is drawn at once, so that it does not matter which anchors share its block.
    keys = rng.random((len(alive), alive.shape[1] + wanted * MARGIN_BINS))
    within = keys[:, : alive.shape[1]]
    bin_keys = keys[:, alive.shape[1] :].reshape(len(alive), wanted, MARGIN_BINS)
    chosen = np.zeros_like(alive)
    every = np.arange(len(alive))
    for draw in range(wanted):
        occupied = np.stack([(alive & (bins == b)).any(axis=1) for b in range(MARGIN_BINS)], axis=1)
        drawn = np.where(occupied, bin_keys[:, draw], -1.0).argmax(axis=1)
        at = np.where(alive & (bins == drawn[:, None]), within, -1.0).argmax(axis=1)
        has = occupied.any(axis=1)
        chosen[every[has], at[has]] = True
        alive[every[has], at[has]] = False
    return chosen


def _largest(keys: np.ndarray, wanted: int) -> Bool:
    """(n, k), true at the ``wanted`` largest keys of each row."""
    if wanted >= keys.shape[1]:
        return np.ones(keys.shape, np.bool_)
    top = np.argpartition(keys, -wanted, axis=1)[:, -wanted:]
    mask = np.zeros(keys.shape, np.bool_)
    np.put_along_axis(mask, top, True, axis=1)
    return mask

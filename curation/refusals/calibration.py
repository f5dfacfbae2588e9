"""Calibrated probabilities and thresholds for a detector, from labelled answers. No detector, no sampling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from curation.errors import InputError

__all__ = [
    "Calibration",
    "Thresholds",
    "expected_calibration_error",
    "fit_calibration",
    "reliability",
    "thresholds_per_category",
]

FloatArray = npt.NDArray[np.float64]
_EDGE: Final = 1e-6
_STEPS: Final = 100
_RIDGE: Final = 1e-3
_FEW: Final = 20


class Calibration(NamedTuple):
    """Platt scaling: σ(slope · logit(p) + intercept). The identity is (1, 0)."""

    slope: float
    intercept: float

    def apply(self, probabilities: npt.ArrayLike) -> FloatArray:
        """Calibrated probabilities, in the same order; monotone when the slope is positive."""
        return _sigmoid(self.slope * _logit(probabilities) + self.intercept)


def fit_calibration(
    probabilities: npt.ArrayLike, labels: npt.ArrayLike, *, weights: npt.ArrayLike | None = None
) -> Calibration:
    """Fit Platt scaling with Platt's own target smoothing (Platt 1999, Lin et al. 2007).

    Args:
        probabilities: (n,) a detector's probabilities of a refusal.
        labels: (n,) 1 or true for a refusal.
        weights: (n,) how many answers each stands for, where they were not drawn alike; only proportions count.

    Raises:
        InputError: when lengths differ, a value is out of range, or only one class is there.
    """
    p, y = _checked(probabilities, labels)
    share = _weights(weights, len(p))
    positives, negatives = share @ y, share @ (1 - y)
    if positives == 0 or negatives == 0:
        raise InputError(
            f"calibration needs refusals and answers: found {int(y.sum())} and {int(len(y) - y.sum())}"
        )
    target = np.where(y == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    x = np.stack([_logit(p), np.ones(len(p))], axis=1)
    w = np.array([1.0, 0.0])
    for _ in range(_STEPS):
        q = _sigmoid(x @ w)
        gradient = x.T @ (share * (q - target)) + _RIDGE * (w - [1.0, 0.0])
        hessian = (x * (share * q * (1 - q))[:, None]).T @ x + _RIDGE * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        step *= min(1.0, 2.0 / max(float(np.abs(step).max()), _EDGE))
        w = w - step
        if np.abs(step).max() < 1e-10:
            break
    return Calibration(float(w[0]), float(w[1]))


def reliability(
    probabilities: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    weights: npt.ArrayLike | None = None,
    bins: int = 10,
) -> pl.DataFrame:
    """``bin`` (lower edge), ``rows``, their ``share``, ``mean_probability``, ``refusal_rate`` of bins with rows.

    Share, mean and rate are weighted; see :func:`fit_calibration`.
    """
    p, y = _checked(probabilities, labels)
    place = np.minimum((p * bins).astype(np.int64), bins - 1)
    frame = pl.DataFrame({"bin": place / bins, "p": p, "y": y, "w": _weights(weights, len(p))})
    total, weight = len(p), pl.col("w").sum()
    return (
        frame.group_by("bin")
        .agg(
            rows=pl.len().cast(pl.Int64),
            share=weight / total,
            mean_probability=pl.col("p").dot("w") / weight,
            refusal_rate=pl.col("y").dot("w") / weight,
        )
        .sort("bin")
    )


def expected_calibration_error(
    probabilities: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    weights: npt.ArrayLike | None = None,
    bins: int = 10,
) -> float:
    """Σ over bins of the share of rows × |mean probability − refusal rate| (Naeini et al. 2015)."""
    table = reliability(probabilities, labels, weights=weights, bins=bins)
    return float(((table["mean_probability"] - table["refusal_rate"]).abs() * table["share"]).sum())


class Thresholds(NamedTuple):
    """Thresholds by category, and how far they agree."""

    frame: pl.DataFrame
    """``category``, ``rows``, ``refusals``, ``threshold``, ``accuracy`` at it (weighted), ``accuracy_at_common``;
    categories with too few rows, and answers without one, have the common threshold and ``own`` false."""
    common: float
    """The one threshold that is best over all rows."""
    spread: float
    """Largest minus smallest threshold of the categories that have their own."""


def thresholds_per_category(
    probabilities: npt.ArrayLike,
    labels: npt.ArrayLike,
    categories: Sequence[str | None],
    *,
    weights: npt.ArrayLike | None = None,
    min_rows: int = _FEW,
) -> Thresholds:
    """The threshold with the highest accuracy, for all rows and for each category with both classes.

    ``weights`` as in :func:`fit_calibration`: the accuracy is that on what the answers stand for.

    Raises:
        InputError: when lengths differ or a value is out of range.
    """
    p, y = _checked(probabilities, labels)
    if len(categories) != len(p):
        raise InputError(f"found {len(p)} probabilities and {len(categories)} categories: expected as many")
    w = _weights(weights, len(p))
    common = _best_threshold(p, y, w)
    names = np.array(["" if c is None else c for c in categories], dtype=object)
    rows = []
    for name in sorted(set(names)):
        mine = names == name
        # No answer can be looked up under no category: those have the common threshold.
        own = name != "" and mine.sum() >= min_rows and 0 < y[mine].sum() < mine.sum()
        threshold = _best_threshold(p[mine], y[mine], w[mine]) if own else common
        rows.append(
            {
                "category": name or None,
                "rows": int(mine.sum()),
                "refusals": int(y[mine].sum()),
                "threshold": threshold,
                "own": bool(own),
                "accuracy": _accuracy(p[mine], y[mine], w[mine], threshold),
                "accuracy_at_common": _accuracy(p[mine], y[mine], w[mine], common),
            }
        )
    frame = pl.DataFrame(rows, schema_overrides={"category": pl.String})
    owned = frame.filter("own")["threshold"]
    spread = float(owned.max()) - float(owned.min()) if len(owned) else 0.0  # type: ignore[arg-type]
    return Thresholds(frame, common, spread)


def _accuracy(p: FloatArray, y: FloatArray, w: FloatArray, cut: float) -> float:
    return float(((p >= cut) == y) @ w / w.sum())


def _best_threshold(p: FloatArray, y: FloatArray, w: FloatArray) -> float:
    """Of the cuts between neighbouring values, the most accurate; of equals, the one nearest to a half."""
    order = np.sort(np.unique(p))
    cuts = np.concatenate([[0.5], (order[1:] + order[:-1]) / 2])
    accuracy = np.array([_accuracy(p, y, w, cut) for cut in cuts])
    best = cuts[accuracy >= accuracy.max() - 1e-12]
    return float(best[np.abs(best - 0.5).argmin()])


def _weights(weights: npt.ArrayLike | None, rows: int) -> FloatArray:
    """With the mean 1, so that no scale of theirs is stronger than the smoothing."""
    if weights is None:
        return np.ones(rows)
    w = np.asarray(weights, dtype=np.float64)
    if w.shape != (rows,) or not (np.isfinite(w).all() and (w > 0).all()):
        raise InputError(f"expected {rows} weights above 0, one for each probability")
    return np.asarray(w / w.mean())


def _checked(probabilities: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    p, y = np.asarray(probabilities, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    if p.ndim != 1 or p.shape != y.shape or not len(p):
        raise InputError(f"found {p.shape} probabilities and {y.shape} labels: expected two lists of one length")
    if not (np.isfinite(p).all() and (p >= 0).all() and (p <= 1).all()):
        bad = int(np.flatnonzero(~(np.isfinite(p) & (p >= 0) & (p <= 1)))[0])
        raise InputError(f"probability {bad} is {p[bad]}: expected a number from 0 to 1")
    if not np.isin(y, (0, 1)).all():
        bad = int(np.flatnonzero(~np.isin(y, (0, 1)))[0])
        raise InputError(f"label {bad} is {y[bad]}: expected 0 or 1")
    return p, y


def _logit(probabilities: npt.ArrayLike) -> FloatArray:
    p = np.clip(np.asarray(probabilities, dtype=np.float64), _EDGE, 1 - _EDGE)
    return np.asarray(np.log(p / (1 - p)))


def _sigmoid(x: FloatArray) -> FloatArray:
    return np.asarray(1 / (1 + np.exp(-np.clip(x, -500, 500))))

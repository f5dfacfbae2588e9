"""Scores to probabilities by Platt's method. No models, no frames."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Platt", "fit_platt", "sigmoid"]

FloatArray = npt.NDArray[np.float64]


class Platt(NamedTuple):
    """P(right) = σ(slope · score + intercept)."""

    slope: float
    intercept: float

    def __call__(self, scores: FloatArray) -> FloatArray:
        return sigmoid(self.slope * scores + self.intercept)


def sigmoid(values: FloatArray) -> FloatArray:
    """1 / (1 + e^−x) without overflow."""
    small = np.exp(-np.abs(values))
    return np.where(values >= 0, 1 / (1 + small), small / (1 + small))


def fit_platt(scores: FloatArray, right: npt.NDArray[np.bool_], *, steps: int = 100) -> Platt:
    """Fit by Newton's method to Platt's smoothed targets (Platt 1999; Lin, Lin and Weng 2007).

    Args:
        scores: (n,), higher when right is likelier.
        right: (n,) of both kinds.

    The smoothed targets (n₊+1)/(n₊+2) and 1/(n₋+2) keep the fit finite where scores separate the kinds.
    """
    positive, negative = int(right.sum()), int((~right).sum())
    targets = np.where(right, (positive + 1) / (positive + 2), 1 / (negative + 2))
    spread = float(scores.std()) or 1.0
    design = np.stack([scores / spread, np.ones_like(scores)], axis=1)
    weights = np.array([0.0, np.log((positive + 1) / (negative + 1))])
    for _ in range(steps):
        probability = sigmoid(design @ weights)
        gradient = design.T @ (probability - targets)
        curvature = (design * (probability * (1 - probability))[:, None]).T @ design + 1e-9 * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        weights = weights - step * min(1.0, 5.0 / max(float(np.abs(step).max()), 1e-12))
        if np.abs(step).max() < 1e-10:
            break
    return Platt(float(weights[0] / spread), float(weights[1]))

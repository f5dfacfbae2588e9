"""The Bradley–Terry model over feature differences, fitted by Newton's method. No text, no files.

P(chosen ≻ rejected) = σ(⟨w, φ(chosen) − φ(rejected)⟩): logistic regression without an intercept, since
swapping the answers must flip the margin (Bradley and Terry 1952).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from curation.scores.calibration import sigmoid

__all__ = ["fit_bradley_terry", "pair_log_likelihood"]

FloatArray = npt.NDArray[np.float64]
_MAX_STEPS = 50


def fit_bradley_terry(
    differences: FloatArray,
    *,
    penalty: float | FloatArray,
    targets: FloatArray | None = None,
    weights: FloatArray | None = None,
) -> FloatArray:
    """The weights (features,) of a Bradley–Terry head with a ridge penalty.

    Minimises Σ_i c_i · CE(t_i, σ(⟨w, d_i⟩)) + ½ Σ_j λ_j w_j², CE the cross-entropy in nats.

    Args:
        differences: (pairs, features), chosen minus rejected.
        penalty: λ, one number or one a feature; above 0.
        targets: (pairs,), the probability that the label is right; 1 where None.
        weights: (pairs,), c; 1 where None.
    """
    count, features = differences.shape
    target = np.ones(count) if targets is None else targets
    weight = np.ones(count) if weights is None else weights
    ridge = np.broadcast_to(np.asarray(penalty, dtype=np.float64), (features,))
    if features > count:  # solve in the space of the pairs, which is the smaller one
        scaled = differences / np.sqrt(ridge)
        vectors, values, turned = np.linalg.svd(scaled, full_matrices=False)
        solution = _newton(vectors * values, np.ones(len(values)), target, weight)
        turned_back: FloatArray = (solution @ turned) / np.sqrt(ridge)
        return turned_back
    return _newton(differences, ridge, target, weight)


def _newton(design: FloatArray, ridge: FloatArray, target: FloatArray, weight: FloatArray) -> FloatArray:
    solution = np.zeros(design.shape[1])
    loss = _loss(design, solution, ridge, target, weight)
    for _ in range(_MAX_STEPS):
        probability = sigmoid(design @ solution)
        gradient = design.T @ (weight * (probability - target)) + ridge * solution
        curvature = (design * (weight * probability * (1 - probability))[:, None]).T @ design
        step = np.linalg.solve(curvature + np.diag(ridge), gradient)
        size = 1.0
        while True:
            moved = solution - size * step
            new_loss = _loss(design, moved, ridge, target, weight)
            if new_loss <= loss or size < 1e-6:
                break
            size /= 2
        done = loss - new_loss <= 1e-10 * max(abs(loss), 1.0)
        solution, loss = moved, new_loss
        if done:
            break
    return solution


def _loss(
    design: FloatArray, solution: FloatArray, ridge: FloatArray, target: FloatArray, weight: FloatArray
) -> float:
    return float(
        -(weight * pair_log_likelihood(design @ solution, target)).sum() + 0.5 * (ridge * solution**2).sum()
    )


def pair_log_likelihood(margins: FloatArray, targets: FloatArray | float = 1.0) -> FloatArray:
    """log-likelihood of each label, in nats: t·log σ(m) + (1 − t)·log σ(−m)."""
    return -(targets * np.logaddexp(0.0, -margins) + (1 - targets) * np.logaddexp(0.0, margins))

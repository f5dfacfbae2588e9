"""GLAD for two labels (Whitehill et al. 2009), in arrays. The other voter models are crowd-kit's; see ``voters``.

The model, start, priors, steps and end are those of ``crowdkit.aggregation.GLAD`` 1.4, which joins data frames in
every step of its conjugate gradients and so takes hours for what takes seconds here. A test holds the two together.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from curation.scores.calibration import sigmoid

__all__ = ["glad"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
_PRIOR_MEAN: Final = 1.0  # of abilities and of the logarithms of inverse difficulties, each with deviation 1
_STOP_BELOW: Final = 1e-5  # gain in the expected log-likelihood per vote and label
_GRADIENTS: Final = 25
_GRADIENT_TOLERANCE: Final = 1e-2


def glad(pairs: IntArray, voters: IntArray, votes: IntArray, *, rounds: int = 100) -> FloatArray:
    """P(the label is 1) of each pair.

    A vote of voter i on pair j is right with probability σ(α_i e^{b_j}): α is the voter's ability, e^b the inverse
    of the pair's difficulty.

    Args:
        pairs: (votes,) codes 0 … n − 1, each of them there.
        voters: (votes,) codes 0 … m − 1.
        votes: (votes,) 0 or 1.
        rounds: of EM at most; it ends where a round gains less than 1e-5.

    Returns:
        (n,) the posterior of the last E-step.
    """
    from scipy.optimize import minimize

    count, people = int(pairs.max()) + 1, int(voters.max()) + 1
    sign = np.where(votes == 1, 1.0, -1.0)
    x = np.full(people + count, _PRIOR_MEAN)

    def strengths(at: FloatArray) -> tuple[FloatArray, FloatArray]:
        with np.errstate(over="ignore", invalid="ignore"):
            steep = np.exp(at[people:])[pairs]
            return at[:people][voters] * steep, steep

    def posterior(at: FloatArray) -> FloatArray:
        return sigmoid(np.bincount(pairs, weights=sign * strengths(at)[0], minlength=count).astype(np.float64))

    def loss(at: FloatArray, right: FloatArray) -> float:
        with np.errstate(invalid="ignore"):
            s, _ = strengths(at)
            expected = -right * np.logaddexp(0.0, -s) - (1 - right) * np.logaddexp(0.0, s)
            value = float(expected.sum()) - 0.5 * float(((at - _PRIOR_MEAN) ** 2 + np.log(2 * np.pi)).sum())
        return np.inf if np.isnan(value) else -value

    def slope(at: FloatArray, right: FloatArray) -> FloatArray:
        s, steep = strengths(at)
        off = right - sigmoid(s)
        ability = np.bincount(voters, weights=off * steep, minlength=people)
        ease = np.bincount(pairs, weights=off * s, minlength=count)
        return np.asarray(at - _PRIOR_MEAN - np.concatenate([ability, ease]))

    found = posterior(x)
    before = -loss(x, np.where(sign > 0, found[pairs], 1 - found[pairs]))
    for _ in range(rounds):
        found = posterior(x)
        right = np.where(sign > 0, found[pairs], 1 - found[pairs])
        x = minimize(
            loss, x, args=(right,), jac=slope, method="CG", tol=_GRADIENT_TOLERANCE,
            options={"maxiter": _GRADIENTS},
        ).x  # fmt: skip
        gained = -loss(x, right) / (2 * len(votes))
        if gained - before < _STOP_BELOW:
            break
        before = gained
    return found

"""How far the reference policy is from ranking a pair as its label does. No models, no frames.

Chen et al. 2024, Preference learning algorithms do not learn preference rankings. Log-probabilities are
summed over an answer's tokens, in nats; divide them by token counts first for the token-normalised
variants (``per_token``).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from curation.errors import InputError

__all__ = [
    "difficulty",
    "dpo_loss_threshold",
    "idealized_accuracy",
    "idealized_margin",
    "per_token",
    "ranking_accuracy",
]

FloatArray = npt.NDArray[np.float64]


def per_token(logps: npt.ArrayLike, tokens: npt.ArrayLike) -> FloatArray:
    """log π(y | x) / |y|; NaN for an answer without tokens."""
    counts = np.asarray(tokens, dtype=np.float64)
    found: FloatArray = np.asarray(logps, dtype=np.float64) / np.where(counts > 0, counts, np.nan)
    return found


def difficulty(chosen_logps: npt.ArrayLike, rejected_logps: npt.ArrayLike) -> FloatArray:
    """c = log π_ref(y⁻ | x) − log π_ref(y⁺ | x).

    Positive: the reference policy ranks the pair against its label, and training has to overcome c to
    turn it round. Train from low to high; what stays far above 0 rarely flips.
    """
    return np.asarray(rejected_logps, dtype=np.float64) - np.asarray(chosen_logps, dtype=np.float64)


def dpo_loss_threshold(difficulties: npt.ArrayLike, beta: float) -> FloatArray:
    """The DPO loss at which a pair is ranked as its label: −log σ(β c) (Theorem 4.1).

    A trained model ranks the pair correctly exactly where its DPO loss is at most this. The lower it is,
    the further the loss has to fall.

    Raises:
        InputError: when beta is not positive.
    """
    _check_beta(beta)
    return np.logaddexp(0.0, -beta * np.asarray(difficulties, dtype=np.float64))


def ranking_accuracy(chosen_logps: npt.ArrayLike, rejected_logps: npt.ArrayLike) -> float:
    """The share of pairs with π(y⁺ | x) ≥ π(y⁻ | x), those with a NaN left out; NaN where none is left."""
    c = difficulty(chosen_logps, rejected_logps)
    known = c[~np.isnan(c)]
    return float((known <= 0).mean()) if len(known) else float("nan")


def idealized_margin(
    chosen_logps: npt.ArrayLike, rejected_logps: npt.ArrayLike, *, alpha: npt.ArrayLike, beta: float
) -> FloatArray:
    """log[π*(y⁺ | x) / π*(y⁻ | x)] of the policy with the least possible loss: −c + (1/β) log[α / (1 − α)].

    Args:
        chosen_logps, rejected_logps: of the reference policy, (n,).
        alpha: the share of raters who prefer y⁺, (n,) or one number, inside (0, 1).
        beta: DPO's β.

    Raises:
        InputError: when alpha or beta is out of range.
    """
    _check_beta(beta)
    share = np.asarray(alpha, dtype=np.float64)
    if not ((share > 0) & (share < 1)).all():
        raise InputError("alpha holds a share that is not inside (0, 1)")
    return -difficulty(chosen_logps, rejected_logps) + np.log(share / (1 - share)) / beta


def idealized_accuracy(
    chosen_logps: npt.ArrayLike, rejected_logps: npt.ArrayLike, *, alpha: npt.ArrayLike, beta: float
) -> float:
    """The share of pairs that perfect training would rank as their label: :func:`idealized_margin` > 0."""
    margin = idealized_margin(chosen_logps, rejected_logps, alpha=alpha, beta=beta)
    known = margin[~np.isnan(margin)]
    return float((known > 0).mean()) if len(known) else float("nan")


def _check_beta(beta: float) -> None:
    if not beta > 0:
        raise InputError(f"beta is {beta}, expected a positive number")

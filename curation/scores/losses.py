"""Preference losses that take a noisy label or a strength into account, as the papers print them.

What trainers minimise; here to weigh pairs and to check the columns that are exported for them. All
functions are elementwise and return nats.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from curation.errors import InputError

__all__ = ["adaptive_margin_loss", "label_smoothing_loss", "rdpo_loss"]

FloatArray = npt.NDArray[np.float64]


def _log_sigmoid(values: FloatArray) -> FloatArray:
    return -np.logaddexp(0.0, -values)


def label_smoothing_loss(margins: npt.ArrayLike, alpha: npt.ArrayLike) -> FloatArray:
    """−[(1−α) log σ(d) + α log σ(−d)] (Wang et al. 2024, Secrets of RLHF II)."""
    d, a = np.asarray(margins, dtype=np.float64), np.asarray(alpha, dtype=np.float64)
    return -((1 - a) * _log_sigmoid(d) + a * _log_sigmoid(-d))


def adaptive_margin_loss(margins: npt.ArrayLike, strength: npt.ArrayLike) -> FloatArray:
    """−log σ(d − μ), μ the strength of the pair (Wang et al. 2024, Secrets of RLHF II)."""
    d, mu = np.asarray(margins, dtype=np.float64), np.asarray(strength, dtype=np.float64)
    return -_log_sigmoid(d - mu)


def rdpo_loss(margins: npt.ArrayLike, flip_rate: float) -> FloatArray:
    """[−(1−ε) log σ(h) + ε log σ(−h)] / (1 − 2ε): unbiased under flips (Chowdhury et al. 2024, rDPO).

    Raises:
        InputError: when the flip rate is not in [0, 0.5).
    """
    if not 0.0 <= flip_rate < 0.5:
        raise InputError(f"flip rate is {flip_rate}, expected at least 0 and below 0.5")
    h = np.asarray(margins, dtype=np.float64)
    return (-(1 - flip_rate) * _log_sigmoid(h) + flip_rate * _log_sigmoid(-h)) / (1 - 2 * flip_rate)

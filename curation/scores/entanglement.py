"""Gradient entanglement: whether one step on a pair moves both answers' likelihoods the same way.

Yuan et al. 2024. A margin loss moves the weights along g_w − g_l, where g_w and g_l are the gradients of
log π(y⁺ | x) and log π(y⁻ | x). To first order, per unit of step,

    Δ log π(y⁺) ∝ ⟨g_w, g_w − g_l⟩ = ‖g_w‖² − ⟨g_w, g_l⟩
    Δ log π(y⁻) ∝ ⟨g_l, g_w − g_l⟩ = ⟨g_w, g_l⟩ − ‖g_l‖²

so both fall exactly when ‖g_w‖² ≤ ⟨g_w, g_l⟩ ≤ ‖g_l‖². The inner products here are those of the output
layer's gradients (``PolicyStats.grad_gram``): exact for that matrix, a proxy for the whole model.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Entanglement", "entanglement", "entanglement_of_pairs"]

FloatArray = npt.NDArray[np.float64]


class Entanglement(NamedTuple):
    """What a step on each pair does; all arrays have the inputs' shape."""

    chosen_change: FloatArray
    """‖g_w‖² − ⟨g_w, g_l⟩; negative: the chosen answer falls."""
    rejected_change: FloatArray
    """⟨g_w, g_l⟩ − ‖g_l‖²; negative: the rejected answer falls, as it should."""
    both_fall: npt.NDArray[np.bool_]
    """The condition: drop such pairs, or train them with a term that holds the chosen answer up."""
    both_rise: npt.NDArray[np.bool_]


def entanglement(chosen_norm2: npt.ArrayLike, rejected_norm2: npt.ArrayLike, inner: npt.ArrayLike) -> Entanglement:
    """The condition from ‖g_w‖², ‖g_l‖² and ⟨g_w, g_l⟩."""
    w, l_, ip = (np.asarray(a, dtype=np.float64) for a in (chosen_norm2, rejected_norm2, inner))
    chosen, rejected = w - ip, ip - l_
    return Entanglement(chosen, rejected, (chosen <= 0) & (rejected <= 0), (chosen >= 0) & (rejected >= 0))


def entanglement_of_pairs(grad_gram: npt.ArrayLike) -> Entanglement:
    """The condition for every ordered pair: entry [i, j] is that of chosen i and rejected j.

    Args:
        grad_gram: (..., k, k) inner products of the answers' gradients.
    """
    g = np.asarray(grad_gram, dtype=np.float64)
    norms = np.diagonal(g, axis1=-2, axis2=-1)
    return entanglement(norms[..., :, None], norms[..., None, :], g)

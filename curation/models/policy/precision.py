"""Pairs whose CHES is a small difference of large numbers: which they are, and reading them in float64.

CHES(i, j) = G_ij − G_ii for the Gram matrix G of the summed states. From float32 states it is right to about
3e-7 of G_ii (measured on the bundled policy), so one below a hundredth of G_ii has an error of some 1e-5 of
itself, and a smaller one a larger. A prompt with such a pair is read a second time in float64. Imports torch.
"""

from __future__ import annotations

import copy
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from curation.models.protocols import FloatArray

__all__ = ["DoubleCopy", "cancels"]

_CANCELLATION: Final = 100.0
"""‖S(y⁺)‖² / |CHES| from which a pair counts as cancelling: two of a hundred pairs of hh_harmless, by either."""
_MOST_PARAMETERS: Final = 200_000_000
"""Above it a float64 copy of the weights (1.6 GB) costs more than the digits are worth."""


def cancels(gram: FloatArray, tokens: npt.NDArray[np.int64]) -> bool:
    """Whether any ordered pair's CHES, or its length-normalised CHES, is so small that float32 loses it.

    The two are small for different pairs: answers of which one is long and the other short, and that are alike
    token by token, have a large CHES and a length-normalised one near zero.

    Args:
        gram: (k, k); rows of candidates with a fault are NaN. Equal answers, whose CHES is exactly 0, do not count.
        tokens: (k,) lengths of the answers; 0 for a candidate with a fault.
    """
    lengths = np.maximum(tokens, 1)
    return _is_small(gram) or _is_small(gram / np.outer(lengths, lengths))


def _is_small(gram: FloatArray) -> bool:
    squared = np.diag(gram)[:, None]
    ches = np.abs(gram - squared)
    return bool(np.any((ches > 0) & (squared > _CANCELLATION * ches)))


class DoubleCopy:
    """A float64 copy of a model, made when the first prompt needs it."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._double: Any = None

    @staticmethod
    def fits(model: Any) -> bool:
        """Whether a copy makes sense: float32 weights, not too many, on a device that has float64."""
        small = sum(p.numel() for p in model.parameters()) <= _MOST_PARAMETERS
        whole = getattr(model, "quantization_method", None) is None
        return small and whole and model.dtype == torch.float32 and model.device.type in {"cpu", "cuda"}

    def model(self) -> Any:
        if self._double is None:
            self._double = copy.deepcopy(self._model).double()
            # torch's grouped products, which experts are multiplied by, know no float64.
            self._double.set_experts_implementation("eager")
        return self._double

"""The bands of preference strength: likely flipped, ambiguous, normal, very strong. What is done by band is in
``curation.pairs.views``.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from curation.errors import InputError
from curation.scores.margins import MIN_ROWS_TO_SCALE

__all__ = ["BANDS", "bands_of", "checked_cuts"]

FloatArray = npt.NDArray[np.float64]
BANDS: Final = ("likely_flipped", "ambiguous", "normal", "very_strong")
_QUANTILES: Final = (0.2, 0.4, 0.9)
_PROBABILITIES: Final = (0.35, 0.6, 0.95)
_TIED_AT_THE_CUT: Final = (
    "WARNING: {:,} of {:,} pairs are likely flipped, more than the {:.0%} asked for: many have the very same mean, "
    "as where grades are whole numbers; look at them before the band is flipped or dropped"
)


def checked_cuts(thresholds: tuple[float, float, float] | None, bands: str) -> tuple[float, ...]:
    """The three cuts between the bands: shares of the rows, or probabilities that the label is right.

    Raises:
        InputError: when they are no three rising shares, or ``bands`` is unknown.
    """
    if bands not in ("quantile", "probability"):
        raise InputError(f"bands is {bands!r}, expected quantile or probability")
    cuts = thresholds or (_QUANTILES if bands == "quantile" else _PROBABILITIES)
    if len(cuts) != 3 or not 0 <= cuts[0] <= cuts[1] <= cuts[2] <= 1:
        raise InputError(f"band thresholds are {cuts}, expected three that do not decrease, from 0 to 1")
    return cuts


def bands_of(
    mean: FloatArray,
    probability: FloatArray,
    bands: str,
    cuts: tuple[float, ...],
    notes: list[str],
    *,
    calibrated: bool,
) -> pl.Series:
    """The band of each row (rows,).

    Args:
        mean: (rows,) strength.
        probability: (rows,) that the label is right; ``calibrated`` on people's labels or not.
        bands: ``quantile`` of the mean, or ``probability``.
        cuts: as :func:`checked_cuts` gives them.
        notes: gets what a user has to know.
    """
    if bands == "quantile" and len(mean) < MIN_ROWS_TO_SCALE:
        notes.append(f"bands are by probability: {len(mean)} rows are too few for quantiles")
        bands, cuts = "probability", _PROBABILITIES
    if bands == "probability":
        code = np.searchsorted(np.asarray(cuts), probability, side="right")
    else:
        code = np.searchsorted(np.quantile(mean, cuts), mean, side="left")
        # Where people's labels say what a mean is worth, neither band may contradict them.
        said = probability - 0.5 if calibrated else mean
        code = np.where((code == 0) & (np.maximum(mean, said) >= 0), 1, code)
        # Nor is a pair very strong whose label the models contradict, or say nothing of.
        code = np.where((code == 3) & (np.minimum(mean, said) <= 0), 2, code)
        flipped = int((code == 0).sum())
        if flipped > max(np.ceil(cuts[0] * len(mean)), 1):
            notes.append(_TIED_AT_THE_CUT.format(flipped, len(mean), cuts[0]))
    return pl.Series(code).replace_strict(dict(enumerate(BANDS)), return_dtype=pl.String)

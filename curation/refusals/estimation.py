"""A refusal rate with a confidence interval from a detector and a small labelled sample (DSL).

Design-based supervised learning (Egami et al. 2023): the detector may be biased in any way; because the
sampling probabilities are known, the estimate is not.
"""

from __future__ import annotations

from statistics import NormalDist
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from curation.errors import InputError, closest
from curation.refusals.sheets import SHEET_COLUMNS, numbered, read_sheet

__all__ = [
    "RateEstimate",
    "dsl_rate",
    "labelled_rates",
    "naive_rate",
    "pseudo_outcomes",
    "sample_for_labelling",
]

FloatArray = npt.NDArray[np.float64]
_STRATA: Final = (0.0, 0.1, 0.35, 0.65, 0.9, 1.0)
_NO_GROUP: Final = "(none)"


class RateEstimate(NamedTuple):
    """A rate and its interval."""

    rate: float
    standard_error: float
    low: float
    high: float
    rows: int
    labelled: int


def pseudo_outcomes(
    predictions: npt.ArrayLike, labels: npt.ArrayLike, sampling_probability: npt.ArrayLike
) -> FloatArray:
    """ĝ + (R/π)(y − ĝ), (n,): equation 4 of the paper. ``labels`` is NaN where there is none (R = 0).

    Raises:
        InputError: when lengths differ, or a sampling probability is not in (0, 1].
    """
    g = np.asarray(predictions, dtype=np.float64)
    y = np.asarray(labels, dtype=np.float64)
    pi = np.broadcast_to(np.asarray(sampling_probability, dtype=np.float64), g.shape)
    if g.ndim != 1 or y.shape != g.shape:
        raise InputError(f"found {g.shape} predictions and {y.shape} labels: expected two lists of one length")
    if not (np.isfinite(pi).all() and (pi > 0).all() and (pi <= 1).all()):
        raise InputError("every sampling probability must be known, above 0 and at most 1")
    if not np.isfinite(g).all():
        raise InputError(f"prediction {int(np.flatnonzero(~np.isfinite(g))[0])} is not finite")
    known = np.isfinite(y)
    found: FloatArray = g + np.where(known, (np.where(known, y, 0.0) - g) / pi, 0.0)
    return found


def dsl_rate(
    predictions: npt.ArrayLike,
    labels: npt.ArrayLike,
    sampling_probability: npt.ArrayLike,
    *,
    confidence: float = 0.95,
    folds: int = 5,
    cross_fit: bool = True,
    seed: int = 0,
) -> RateEstimate:
    """The refusal rate of n answers.

    Args:
        predictions: (n,) a detector's classes or probabilities.
        labels: (n,) 0 or 1 where somebody labelled the answer, NaN elsewhere.
        sampling_probability: (n,) or one number, with what probability each answer was chosen for labelling,
            each on its own.
        confidence: of the interval, a normal one: rate ± z · sd/√n. Where all labels are alike the sd is of no use
            (it is 0), and the interval reaches to the exact binomial bound as well (Clopper and Pearson 1934).
        folds: parts for cross-fitting.
        cross_fit: replace the predictions by the labelled rate among answers with like predictions, fitted on
            the other folds. Without it the detector, fitted elsewhere, is ĝ itself.

    Raises:
        InputError: see ``pseudo_outcomes``; and when fewer than two answers are labelled.
    """
    g = np.asarray(predictions, dtype=np.float64)
    y = np.asarray(labels, dtype=np.float64)
    pi = np.broadcast_to(np.asarray(sampling_probability, dtype=np.float64), g.shape)
    pseudo_outcomes(g, y, pi)
    known = np.isfinite(y)
    if known.sum() < 2:
        raise InputError(f"{int(known.sum())} answers are labelled: expected at least 2")
    if cross_fit:
        g = _cross_fitted(g, y, pi, folds, seed)
    pseudo = pseudo_outcomes(g, y, pi)
    error = float(pseudo.std(ddof=1) / np.sqrt(len(pseudo)))
    found = _interval(float(pseudo.mean()), error, confidence, len(pseudo), int(known.sum()))
    return _at_the_edge(found, y[known], 1 / pi[known], confidence)


def naive_rate(predictions: npt.ArrayLike, *, confidence: float = 0.95) -> RateEstimate:
    """The detector's own rate, as if it made no mistakes. Its interval does not cover the truth."""
    g = np.asarray(predictions, dtype=np.float64)
    return _interval(float(g.mean()), float(g.std() / np.sqrt(len(g))), confidence, len(g), 0)


def _interval(rate: float, error: float, confidence: float, rows: int, labelled: int) -> RateEstimate:
    reach = NormalDist().inv_cdf((1 + confidence) / 2) * error
    return RateEstimate(rate, error, rate - reach, rate + reach, rows, labelled)


def _at_the_edge(found: RateEstimate, labels: FloatArray, weights: FloatArray, confidence: float) -> RateEstimate:
    """Where all labels are alike: as far as so many answers can tell (n is Kish's, for unequal weights)."""
    if labels.min() != labels.max():
        return found
    reach = 1 - ((1 - confidence) / 2) ** (weights @ weights / weights.sum() ** 2)
    low, high = (0.0, reach) if labels[0] == 0 else (1 - reach, 1.0)
    return found._replace(low=min(found.low, low), high=max(found.high, high))


def _cross_fitted(g: FloatArray, y: FloatArray, pi: FloatArray, folds: int, seed: int) -> FloatArray:
    """The weighted line through the labels of the other folds, cut to [0, 1]; their mean where it is flat."""
    part = np.random.default_rng(seed).permutation(len(g)) % folds
    fitted = np.empty_like(g)
    for fold in range(folds):
        train = np.isfinite(y) & (part != fold)
        here = part == fold
        if train.sum() < 2:
            fitted[here] = g[here]
            continue
        w = 1 / pi[train]
        centre, level = np.average(g[train], weights=w), np.average(y[train], weights=w)
        spread = np.average((g[train] - centre) ** 2, weights=w)
        slope = np.average((g[train] - centre) * (y[train] - level), weights=w) / spread if spread > 1e-12 else 0.0
        fitted[here] = np.clip(level + slope * (g[here] - centre), 0.0, 1.0)
    return fitted


def sample_for_labelling(
    frame: pl.DataFrame, *, size: int, probability: str = "refusal_probability", seed: int = 0
) -> pl.DataFrame:
    """Draw answers to label, with known probabilities: more of those the detector is unsure of.

    Each answer is drawn on its own (Poisson sampling), with a probability proportional to
    √(p(1 − p)) + 0.1, averaged within strata of p, so the number drawn is ``size`` on average.

    Returns:
        The drawn rows with ``row`` (in ``frame``), ``sampling_probability``, ``sheet_line`` ("7 of 40") and an
        empty ``label`` to fill in with 0 (answers) or 1 (refuses).

    Raises:
        InputError: when the column is missing or holds something else, ``size`` is not in 1 … rows, or the frame
            has a column that the sheet would write over.
    """
    p = _probabilities(frame, probability)
    taken = [name for name in SHEET_COLUMNS if name in frame.columns]
    if taken:
        raise InputError(f"there is a column {taken[0]!r} already, and the sheet needs the name: rename yours")
    if not 1 <= size <= frame.height:
        raise InputError(f"size is {size}: expected 1 to {frame.height}, the number of rows")
    stratum = np.digitize(p, _STRATA[1:-1])
    wanted = np.sqrt(p * (1 - p)) + 0.1
    for number in np.unique(stratum):
        wanted[stratum == number] = wanted[stratum == number].mean()
    pi = _scaled(wanted, size)
    drawn = np.random.default_rng(seed).random(len(p)) < pi
    rows = frame.with_row_index("row").with_columns(
        sampling_probability=pl.Series(pi), label=pl.lit(None, dtype=pl.Int8)
    )
    return numbered(rows.filter(pl.Series(drawn)))


def _scaled(wanted: FloatArray, size: int) -> FloatArray:
    """Probabilities that add up to ``size``, none above 1."""
    pi = wanted * size / wanted.sum()
    while (pi > 1 + 1e-12).any():
        full = pi >= 1
        rest = size - full.sum()
        pi = np.where(full, 1.0, wanted * rest / max(wanted[~full].sum(), 1e-300))
    return np.asarray(np.minimum(pi, 1.0))


def _probabilities(frame: pl.DataFrame, column: str) -> FloatArray:
    if column not in frame.columns:
        raise InputError(f"column {column!r} is missing: run `curation refusals` first")
    if not frame[column].dtype.is_numeric():
        raise InputError(f"column {column!r} holds {frame[column].dtype}, expected numbers from 0 to 1")
    p = frame[column].cast(pl.Float64).to_numpy()
    # A null is NaN here.
    bad = np.flatnonzero(~((p >= 0) & (p <= 1)))
    if len(bad):
        raise InputError(
            f"column {column!r} has no number from 0 to 1 in {len(bad):,} rows, the first of them row {bad[0]}: "
            "remove those rows"
        )
    return np.asarray(p)


def labelled_rates(
    frame: pl.DataFrame,
    sheet: pl.DataFrame,
    *,
    by: str | None = None,
    probability: str = "refusal_probability",
    confidence: float = 0.95,
) -> pl.DataFrame:
    """Refusal rates of a frame from its filled-in sheet, over all rows and by the values of a column.

    The sheet's rows may stand in any order. A line that was taken out would be read as an answer that was not
    drawn, and bias the rates: it is missed where the sheet has its column ``sheet_line``.

    Every row of ``frame`` must have had a chance to be drawn: ``sampling_probability`` is needed for drawn
    rows only, since the others enter through their predictions alone.

    Returns:
        ``group`` (null for all, ``(none)`` for rows without a value), ``rows``, ``labelled``, ``detector_rate``,
        ``rate``, ``low``, ``high``: the normal interval as it is, which may reach below 0 or above 1. Groups with
        fewer than two labels have nulls.

    Raises:
        InputError: when a column is missing, a label is neither 0 nor 1, or the sheet is not of this frame or lacks
            lines that were drawn.
    """
    p = _probabilities(frame, probability)
    labels, pi = read_sheet(frame, sheet)
    groups: list[tuple[str | None, npt.NDArray[np.bool_]]] = [(None, np.ones(frame.height, dtype=bool))]
    if by is not None:
        if by not in frame.columns:
            raise InputError(
                f"column {by!r} is missing{closest(by, frame.columns)}; found {', '.join(frame.columns)}"
            )
        values = frame[by].cast(pl.String).fill_null(_NO_GROUP)
        groups += [(v, (values == v).to_numpy()) for v in values.unique().sort()]
    said = p >= 0.5
    if "refusal_class" in frame.columns:
        # A calibrated detector has thresholds of its own.
        said = (frame["refusal_class"] != "compliance").fill_null(False).to_numpy()
    records = []
    for name, mine in groups:
        labelled = int(np.isfinite(labels[mine]).sum())
        found = dsl_rate(p[mine], labels[mine], pi[mine], confidence=confidence) if labelled >= 2 else None
        records.append(
            {
                "group": name,
                "rows": int(mine.sum()),
                "labelled": labelled,
                "detector_rate": float(said[mine].mean()),
                "rate": found.rate if found else None,
                "low": found.low if found else None,
                "high": found.high if found else None,
            }
        )
    kinds = dict.fromkeys(("rate", "low", "high"), pl.Float64)
    return pl.DataFrame(records, schema_overrides={"group": pl.String, **kinds})

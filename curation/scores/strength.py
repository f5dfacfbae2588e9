"""Preference strength: what several reward models together say of a pair's label.

Reading and scaling of margins is in ``margins``; what is done with a pair of a band is in
``curation.pairs.views``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from curation.errors import InputError
from curation.prompts.column_kinds import known_labels
from curation.scores.calibration import fit_platt, sigmoid
from curation.scores.margins import MIN_ROWS_TO_SCALE, Scaling, read_margins, scale_margins
from curation.scores.strength_bands import bands_of, checked_cuts

__all__ = [
    "STRENGTH_COLUMNS",
    "Strength",
    "StrengthSummary",
    "preference_strength",
    "summarise",
]

FloatArray = npt.NDArray[np.float64]
STRENGTH_COLUMNS: Final = (
    "strength_mean",
    "strength_std",
    "agreement",
    "label_probability",
    "label_calibrated",
    "strength_band",
    "strength_models",
)
_FEW_TO_CONTROL: Final = 50  # ours: the standard error of a correlation is then 0.14
_MIN_LABELLED: Final = 20


class StrengthSummary(NamedTuple):
    """The margins of each row in a few numbers; all arrays (rows,)."""

    mean: FloatArray
    std: FloatArray
    """Population standard deviation over the models that answered; 0 for one."""
    agreement: FloatArray
    """Share of the models that prefer chosen; an equal reward counts one half."""
    models: npt.NDArray[np.int64]
    """How many models answered."""


class Strength(NamedTuple):
    """The scored rows, the rest, and what was learned about the models."""

    frame: pl.DataFrame
    """The input rows that could be scored, in order, with ``STRENGTH_COLUMNS``."""
    rejects: pl.DataFrame
    """``row``, ``rule``, ``value``, ``reason``."""
    models: pl.DataFrame
    """One row a model: ``model``, ``scale``, ``missing``, ``ties``, ``prefers_chosen``, ``constant``."""
    notes: list[str]
    """What a reader must know: no calibration, one model, constant models, too few rows to scale."""


def preference_strength(
    frame: pl.DataFrame,
    *,
    chosen: str = "chosen_rewards",
    rejected: str = "rejected_rewards",
    models: Sequence[str] | None = None,
    scaling: Scaling = "robust",
    labelled: str | None = None,
    bands: Literal["quantile", "probability"] = "quantile",
    thresholds: tuple[float, float, float] | None = None,
    lengths: tuple[str, str] | None = None,
) -> Strength:
    """How strongly an ensemble of reward models prefers chosen over rejected, pair by pair.

    Margins d_m = r_m(chosen) − r_m(rejected) are divided by each model's robust scale (1.4826 × median
    |d_m|; nothing is subtracted, so the sign stays), then summed up by mean and population std
    (Wang et al. 2024, Secrets of RLHF II, section 2.1). Below 10 rows no scale can be estimated and
    margins stay as given. Models whose margins are all equal say nothing and are left out.

    Args:
        frame: a row a pair, with two columns of lists: one reward per model, in the same order.
        models: the models' names, in that order; a list of another length is rejected. None takes the
            most frequent length.
        scaling: ``none`` where the rewards are on one scale already.
        labelled: a Boolean column that says of some rows whether the label is right (null elsewhere).
            With 20 of them or more, of both kinds, ``label_probability`` is calibrated by Platt's method.
        bands: cut by quantiles of the mean (default 0.2, 0.4, 0.9: the parts that Wang et al. found
            mislabelled, ambiguous and over-strong) or by ``label_probability`` (0.35, 0.6, 0.95, ours).
            By quantile, a pair is only called likely flipped where its mean is below 0, and very strong
            where it is above; a calibrated ``label_probability`` has to be below, or above, 0.5 as well.
        thresholds: other cuts, increasing.
        lengths: columns with the lengths of chosen and rejected: what follows the log length ratio is then
            taken out of each model's margins (length-controlled strength, after Dubois et al. 2024).

    Raises:
        InputError: when a column is missing or of the wrong type, or the thresholds do not increase.
    """
    cuts = checked_cuts(thresholds, bands)
    count = None if models is None else len(models)
    margins = read_margins(frame, chosen=chosen, rejected=rejected, models=count)
    constant = _constant(margins.values)
    scaled, scales = scale_margins(margins.values, scaling)
    # A model that says the same of every pair says nothing of any; alone, it would turn all labels or none.
    used = scaled[:, ~constant] if not constant.all() else np.where(np.isfinite(scaled), 0.0, np.nan)
    names = list(models) if models is not None else [str(index) for index in range(margins.values.shape[1])]
    notes = _notes(margins.values, constant, scaling, names)
    if lengths is not None:
        used = _length_controlled(used, frame[margins.kept], lengths, notes)
    summary = summarise(used)
    scored = summary.models > 0
    rejects = margins.rejects
    if not scored.all():
        lost = margins.kept[~scored]
        rejects = pl.concat([rejects, _unscored(lost)]).sort("row")
        summary = summarise(used[scored])
        used = used[scored]
    kept = frame[margins.kept[scored]]
    probability, calibrated = _label_probability(used, summary, kept, labelled, notes)
    band = bands_of(summary.mean, probability, bands, cuts, notes, calibrated=calibrated)
    columns: dict[str, Any] = {
        "strength_mean": summary.mean,
        "strength_std": summary.std,
        "agreement": summary.agreement,
        "label_probability": probability,
        "label_calibrated": np.full(len(probability), calibrated),
        "strength_band": band,
        "strength_models": summary.models,
    }
    return Strength(
        kept.with_columns(pl.Series(name, values) for name, values in columns.items()),
        rejects,
        _model_table(margins.values, scales, constant, names),
        notes,
    )


def _length_controlled(
    margins: FloatArray, frame: pl.DataFrame, lengths: tuple[str, str], notes: list[str]
) -> FloatArray:
    """The margins without the part that is linear in the log length ratio, model by model."""
    from curation.scores.structure import length_bias

    for name in lengths:
        if name not in frame.columns or not frame[name].dtype.is_numeric():
            raise InputError(f"column {name!r} of lengths is no number: found {', '.join(frame.columns)}")
    if 0 < len(margins) < _FEW_TO_CONTROL:
        notes.append(
            f"WARNING: what follows length is taken from {len(margins)} pairs alone, too few to tell it from what "
            "is better: bands, and what they flip or drop, may follow chance"
        )
    sizes = [frame[name].cast(pl.Float64).to_numpy() for name in lengths]
    columns = [length_bias(margins[:, model], *sizes).controlled for model in range(margins.shape[1])]
    return np.stack(columns, axis=1) if columns else margins


def summarise(margins: FloatArray) -> StrengthSummary:
    """Mean, population std and agreement of (rows, models) margins; NaN entries are left out."""
    there = np.isfinite(margins)
    count = there.sum(axis=1)
    divisor = np.maximum(count, 1)
    filled = np.where(there, margins, 0.0)
    mean = filled.sum(axis=1) / divisor
    spread = np.where(there, margins - mean[:, None], 0.0)
    std = np.sqrt((spread**2).sum(axis=1) / divisor)
    wins = (filled > 0).sum(axis=1) + 0.5 * (there & (filled == 0)).sum(axis=1)
    return StrengthSummary(mean, std, wins / divisor, count.astype(np.int64))


def _label_probability(
    margins: FloatArray,
    summary: StrengthSummary,
    frame: pl.DataFrame,
    labelled: str | None,
    notes: list[str],
) -> tuple[FloatArray, bool]:
    """P(label right): Platt on the mean where rows are labelled, else the models' mean σ(margin)."""
    if labelled is not None:
        if labelled not in frame.columns:
            raise InputError(f"column {labelled!r} of known labels is missing: found {', '.join(frame.columns)}")
        labels = known_labels(frame[labelled])
        known = labels.is_not_null().to_numpy()
        right = labels.fill_null(False).to_numpy()[known]
        if known.sum() >= _MIN_LABELLED and right.any() and not right.all():
            platt = fit_platt(summary.mean[known], right)
            if platt.slope <= 0:
                notes.append(
                    f"the {int(known.sum())} labelled rows contradict the models: where they prefer chosen more, "
                    "labels are right less often; look at both before a band is flipped or dropped"
                )
            return platt(summary.mean), True
        notes.append(
            f"label_probability is not calibrated: {int(known.sum())} labelled rows "
            f"({int(right.sum())} right), at least {_MIN_LABELLED} of both kinds are needed"
        )
    else:
        notes.append(
            "label_probability is not calibrated: it is the models' mean Bradley-Terry probability; "
            "give a labelled sample to calibrate it"
        )
    there = np.isfinite(margins)
    probabilities = np.where(there, sigmoid(np.where(there, margins, 0.0)), 0.0)
    return probabilities.sum(axis=1) / np.maximum(summary.models, 1), False


def _constant(margins: FloatArray) -> npt.NDArray[np.bool_]:
    """Models with one and the same margin everywhere; never claimed of a handful of rows."""
    there = np.isfinite(margins)
    result: npt.NDArray[np.bool_] = np.asarray(~there.any(axis=0))
    if len(margins) >= MIN_ROWS_TO_SCALE:
        low = np.where(there, margins, np.inf).min(axis=0)
        high = np.where(there, margins, -np.inf).max(axis=0)
        result = np.asarray([not a < b for a, b in zip(low, high, strict=True)])
    return result


def _notes(
    margins: FloatArray, constant: npt.NDArray[np.bool_], scaling: Scaling, names: Sequence[str]
) -> list[str]:
    rows, models = margins.shape
    notes = []
    says = models - int(constant.sum())
    if models == 1 or says == 1:
        only = "one model" if models == 1 else "one model with information"
        notes.append(f"{only}: strength_std is 0 everywhere and says nothing")
    if constant.any() and rows:
        which = ", ".join(f"reward {names[int(index)]}" for index in np.flatnonzero(constant))
        left = "so every margin is a tie" if constant.all() else "left out"
        notes.append(f"models without information (the same margin on every row, or none): {which}; {left}")
    if scaling == "robust" and 0 < rows < MIN_ROWS_TO_SCALE:
        notes.append(f"margins are not scaled: {rows} rows are fewer than {MIN_ROWS_TO_SCALE}")
    missing = int(np.isnan(margins).sum())
    if missing:
        notes.append(f"{missing} rewards were missing or not finite; their models were left out on those rows")
    return notes


def _model_table(
    margins: FloatArray, scales: FloatArray, constant: npt.NDArray[np.bool_], names: Sequence[str]
) -> pl.DataFrame:
    there = np.isfinite(margins)
    answered = np.maximum(there.sum(axis=0), 1)
    return pl.DataFrame(
        {
            "model": names,
            "scale": scales,
            "missing": (~there).sum(axis=0),
            "ties": (margins == 0).sum(axis=0) / answered,
            "prefers_chosen": (np.where(there, margins, 0.0) > 0).sum(axis=0) / answered,
            "constant": constant,
        }
    )


def _unscored(rows: npt.NDArray[np.int64]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "row": rows,
            "rule": ["no_reward"] * len(rows),
            "value": [""] * len(rows),
            "reason": ["only models without information gave a reward"] * len(rows),
        }
    )

"""A calibration kept in a file: Platt scaling and thresholds per category, applied to a detector's verdicts.

Fitting is in ``calibration``; detecting in ``detection``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import polars as pl
from pydantic import TypeAdapter, ValidationError

from curation.errors import InputError
from curation.files import ROW
from curation.refusals.calibration import (
    Calibration,
    expected_calibration_error,
    fit_calibration,
    thresholds_per_category,
)
from curation.refusals.faults import NO_ANSWER
from curation.refusals.sheets import drawn_for
from curation.text import canonical_json, content_hash
from curation.validation_words import fault_words

__all__ = [
    "CALIBRATED",
    "CalibrationFit",
    "CategoryFit",
    "FittedCalibration",
    "StoredCalibration",
    "apply_calibration",
    "fit_stored",
    "load_calibration",
    "need_column",
]

CALIBRATED: Final = " calibrated@"
"""Between the fingerprints of a detector and of the calibration that was applied to its probabilities."""
_VERSION: Final = 1
_FIELDS: Final = frozenset({"version", "slope", "intercept", "threshold", "thresholds", "detector"})


class CategoryFit(NamedTuple):
    """A category's threshold and how good it is on the rows that it was fitted to."""

    category: str | None
    rows: int
    refusals: int
    threshold: float
    own: bool
    """False: too few rows, so the common threshold."""
    accuracy: float
    accuracy_at_common: float


class CalibrationFit(NamedTuple):
    """What a calibration rests on. Nothing is computed from it."""

    rows: int
    error_before: float
    """Expected calibration error, 10 bins, on the rows that it was fitted to."""
    error_after: float
    categories: tuple[CategoryFit, ...]
    """In the order of their names."""

    @property
    def own(self) -> list[float]:
        """The thresholds of the categories that have their own, increasing."""
        return sorted(c.threshold for c in self.categories if c.own)


class StoredCalibration(NamedTuple):
    """What a calibration file holds."""

    scaling: Calibration
    threshold: float
    """Of the calibrated probability, for categories without their own."""
    thresholds: Mapping[str, float]
    """By category."""
    detector: str | None
    """The fingerprint of the detector that it was fitted for; None where nobody said."""
    fit: CalibrationFit | None = None
    """None in files of earlier versions."""

    @property
    def fingerprint(self) -> str:
        """What the verdicts depend on."""
        return content_hash("refusal calibration", canonical_json(self._content()))[:12]

    def _content(self) -> dict[str, Any]:
        return {
            "version": _VERSION,
            "slope": self.scaling.slope,
            "intercept": self.scaling.intercept,
            "threshold": self.threshold,
            "thresholds": dict(sorted(self.thresholds.items())),
            "detector": self.detector,
        }

    def to_json(self) -> str:
        """The text of the file."""
        content = self._content()
        if self.fit is not None:
            content["fit"] = self.fit._asdict() | {"categories": [c._asdict() for c in self.fit.categories]}
        return json.dumps(content, indent=1, ensure_ascii=False) + "\n"

    def in_words(self, detector: str, categories: Collection[str] | None = None) -> str:
        """For the user: the thresholds, how far they agree, and whether they are another detector's or taxonomy's.

        Args:
            detector: the fingerprint of the detector that is used.
            categories: what requests are sorted into; None where that is not known.
        """
        own = sorted(self.thresholds.values())
        text = f"calibrated: threshold {self.threshold:.2f}"
        if len(own) == 1:
            text += f"; 1 category has its own, {own[0]:.2f}"
        elif own:
            text += f"; {len(own):,} categories have their own, from {own[0]:.2f} to {own[-1]:.2f}"
        unused = [] if categories is None else sorted(set(self.thresholds) - set(categories))
        if unused:
            text += (
                f"; {len(unused):,} of them not used, for requests are not sorted into {unused[0]} here: give the "
                "taxonomy that it was fitted with"
            )
        if self.detector not in (None, detector):
            text += f"; fitted for detector {self.detector}, and this is {detector}: calibrate it anew"
        return text


class FittedCalibration(NamedTuple):
    """A calibration and how good it is on the rows that it was fitted to."""

    stored: StoredCalibration
    by_category: pl.DataFrame
    """See ``thresholds_per_category``: of the calibrated probabilities."""
    spread: float
    error_before: float
    """Expected calibration error, 10 bins."""
    error_after: float


def need_column(frame: pl.DataFrame, column: str) -> None:
    """InputError when a column is missing that a calibration is fitted to."""
    if column not in frame.columns:
        raise InputError(
            f"column {column!r} is missing: found {', '.join(name for name in frame.columns if name != ROW)}; "
            f"`curation refusals sample-for-labelling` makes a sheet with all that is needed"
        )


def fit_stored(frame: pl.DataFrame, *, label: str = "label", detector: str | None = None) -> FittedCalibration:
    """Fit to labelled answers.

    Args:
        frame: ``refusal_probability``, a column of labels (0 answers, 1 refuses; null: not labelled), for
            thresholds of their own ``refusal_category``, and ``sampling_probability`` where the answers were drawn
            (``sample_for_labelling`` draws more of the doubtful ones: each then stands for so many of all).
        label: the column of labels.
        detector: the fingerprint of the detector, kept in the file.

    Raises:
        InputError: when a column is missing, a label or a sampling probability is something else, only one class is
            there, or the labels run against the detector: applied, that calibration would turn refusals into
            answers.
    """
    for column in ("refusal_probability", label):
        need_column(frame, column)
    known = frame.filter(pl.col(label).is_not_null() & pl.col("refusal_probability").is_not_null())
    wrong = known.filter(~pl.col(label).cast(pl.String).is_in(["0", "1", "0.0", "1.0", "true", "false"]))
    if wrong.height:
        raise InputError(f"column {label!r} holds {wrong[label][0]!r}: expected 0 (answers) or 1 (refuses)")
    text = known[label].cast(pl.String)
    y = text.is_in(["1", "1.0", "true"]).to_numpy().astype(np.float64)
    p = known["refusal_probability"].to_numpy().astype(np.float64)
    if not len(p):
        raise InputError(f"no row has a number in {label!r}: fill in 0 (answers) or 1 (refuses)")
    w = drawn_for(known)
    scaling = fit_calibration(p, y, weights=w)
    if scaling.slope <= 0:
        raise InputError(
            f"column {label!r} runs against the detector: mean probability of a refusal {p[y == 1].mean():.2f} "
            f"where it says 1 and {p[y == 0].mean():.2f} where it says 0; 1 must stand for an answer that refuses"
        )
    calibrated = scaling.apply(p)
    names = known["refusal_category"].to_list() if "refusal_category" in known.columns else [None] * len(p)
    found = thresholds_per_category(calibrated, y, names, weights=w)
    own = found.frame.filter(pl.col("own") & pl.col("category").is_not_null())
    before, after = (expected_calibration_error(values, y, weights=w) for values in (p, calibrated))
    categories = tuple(CategoryFit(*row) for row in found.frame.select(CategoryFit._fields).iter_rows())
    stored = StoredCalibration(
        scaling, found.common, dict(own.select("category", "threshold").iter_rows()), detector,
        CalibrationFit(len(p), before, after, categories),
    )  # fmt: skip
    return FittedCalibration(stored, found.frame, found.spread, before, after)


def load_calibration(path: str | Path) -> StoredCalibration:
    """Read a calibration file.

    Raises:
        InputError: when it is missing or holds something else.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"calibration {path} cannot be read ({type(error).__name__}): give a file that is there"
        ) from None
    except ValueError:
        raise InputError(f"calibration {path} is not JSON: make it with `curation refusals calibrate`") from None
    if not isinstance(content, dict) or set(content) - {"fit"} != _FIELDS or content["version"] != _VERSION:
        raise InputError(
            f"calibration {path}: expected the fields {', '.join(sorted(_FIELDS))}, version {_VERSION}; make "
            "it with `curation refusals calibrate`"
        )
    slope, intercept = _number(path, "slope", content["slope"]), _number(path, "intercept", content["intercept"])
    if slope <= 0:
        raise InputError(
            f"calibration {path}: slope is {slope:g}, expected more than 0, or refusals become answers; make it "
            "anew with `curation refusals calibrate`, with 1 for answers that refuse"
        )
    if not isinstance(content["thresholds"], dict):
        raise InputError(f"calibration {path}: thresholds must map categories to numbers")
    thresholds = {str(k): _share(path, f"thresholds.{k}", v) for k, v in content["thresholds"].items()}
    common = _share(path, "threshold", content["threshold"])
    detector = content["detector"]
    fit = _fit(path, content["fit"]) if "fit" in content else None
    return StoredCalibration(Calibration(slope, intercept), common, thresholds, detector and str(detector), fit)


def _fit(path: str | Path, value: Any) -> CalibrationFit:
    try:
        return TypeAdapter(CalibrationFit).validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(["fit", *(str(part) for part in first["loc"])])
        raise InputError(
            f"calibration {path}: {place}: {fault_words(first)}; make it again with `curation refusals calibrate`"
        ) from None


def apply_calibration(frame: pl.DataFrame, calibration: StoredCalibration) -> pl.DataFrame:
    """Replace probabilities by calibrated ones and draw the line between answer and refusal anew.

    Args:
        frame: ``refusal_probability``, ``refusal_class``, ``refusal_kind`` and, for thresholds per category,
            ``refusal_category``.
        calibration: what to apply.

    Returns:
        The frame with the three columns changed: an answer that comes to lie above its threshold is a full
        refusal (of no known kind), a refusal that comes to lie below is compliance. Nulls stay.
    """
    raw = frame["refusal_probability"].to_numpy().astype(np.float64)
    values = pl.Series("refusal_probability", calibration.scaling.apply(raw)).fill_nan(None)
    return _draw_line(frame.with_columns(values), calibration)


def _draw_line(frame: pl.DataFrame, calibration: StoredCalibration) -> pl.DataFrame:
    threshold = pl.lit(calibration.threshold)
    if "refusal_category" in frame.columns and calibration.thresholds:
        category = pl.col("refusal_category").cast(pl.String)
        threshold = category.replace_strict(
            dict(calibration.thresholds), default=calibration.threshold, return_dtype=pl.Float64
        )
    # Nothing said stays nothing said: under a high threshold a server's error would become an answer.
    nothing = (pl.col("refusal_kind") == NO_ANSWER).fill_null(value=False)
    refuses = (pl.col("refusal_probability") >= threshold) | nothing
    was = pl.col("refusal_class")
    return frame.with_columns(
        refusal_class=pl.when(was.is_null() | refuses.is_null())
        .then(was)
        .when(~refuses)
        .then(pl.lit("compliance"))
        .when(was == "compliance")
        .then(pl.lit("full_refusal"))
        .otherwise(was),
        refusal_kind=pl.when(refuses).then(pl.col("refusal_kind")),
    )


def _number(path: str | Path, field: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"calibration {path}: {field} is {value!r}, expected a number")
    return float(value)


def _share(path: str | Path, field: str, value: Any) -> float:
    number = _number(path, field, value)
    if not 0 <= number <= 1:
        raise InputError(f"calibration {path}: {field} is {number:g}, expected 0 to 1")
    return number

"""Calibration and thresholds, against slow oracles."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from curation.errors import InputError
from curation.refusals.calibrated import StoredCalibration, apply_calibration
from curation.refusals.calibration import (
    Calibration,
    expected_calibration_error,
    fit_calibration,
    reliability,
    thresholds_per_category,
)


def overconfident(n: int = 4_000) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    z = rng.normal(size=n) * 2
    labels = (rng.random(n) < 1 / (1 + np.exp(-(0.5 * z - 0.7)))).astype(float)
    return 1 / (1 + np.exp(-z)), labels


def test_calibration_finds_slope_and_intercept() -> None:
    fitted = fit_calibration(*overconfident())
    assert fitted.slope == pytest.approx(0.5, abs=0.06)
    assert fitted.intercept == pytest.approx(-0.7, abs=0.1)


def test_calibration_lowers_the_error() -> None:
    p, y = overconfident()
    assert expected_calibration_error(fit_calibration(p, y).apply(p), y) < 0.03 < expected_calibration_error(p, y)


def test_calibration_error_by_hand() -> None:
    p, y = [0.05, 0.15, 0.15, 0.95], [0, 0, 1, 1]
    assert expected_calibration_error(p, y) == pytest.approx((1 * 0.05 + 2 * 0.35 + 1 * 0.05) / 4)


def test_reliability_counts_every_row() -> None:
    p, y = overconfident(500)
    assert reliability(p, y)["rows"].sum() == 500


def test_separable_labels_do_not_diverge() -> None:
    fitted = fit_calibration([0.1, 0.2, 0.8, 0.9] * 20, [0, 0, 1, 1] * 20)
    assert np.isfinite([fitted.slope, fitted.intercept]).all()


def test_answers_without_a_category_have_the_common_threshold() -> None:
    low, high = [0.1, 0.2] * 15, [0.7, 0.9] * 20
    found = thresholds_per_category([*low, *high], [0, 1] * 35, [None] * 30 + ["named"] * 40)
    rows = {row["category"]: row for row in found.frame.iter_rows(named=True)}
    assert (rows[None]["own"], rows["named"]["own"]) == (False, True)
    assert rows[None]["threshold"] == found.common
    assert found.spread == 0.0


def test_one_class_is_an_error() -> None:
    with pytest.raises(InputError, match="refusals and answers"):
        fit_calibration([0.1, 0.2], [0, 0])


@pytest.mark.parametrize("bad", [float("nan"), 1.2, -0.1])
def test_probability_out_of_range_is_an_error(bad: float) -> None:
    with pytest.raises(InputError, match="probability 1"):
        fit_calibration([0.5, bad], [0, 1])


def test_thresholds_differ_by_category_and_spread_is_their_range() -> None:
    p = np.tile(np.linspace(0.01, 0.99, 50), 2)
    y = np.concatenate([p[:50] > 0.3, p[50:] > 0.7]).astype(int)
    result = thresholds_per_category(p, y, ["a"] * 50 + ["b"] * 50)
    by_name = dict(zip(result.frame["category"], result.frame["threshold"], strict=True))
    assert by_name["a"] == pytest.approx(0.3, abs=0.02)
    assert by_name["b"] == pytest.approx(0.7, abs=0.02)
    assert result.spread == pytest.approx(0.4, abs=0.04)
    assert (result.frame["accuracy"] == 1).all()


def test_small_category_has_the_common_threshold() -> None:
    p = np.linspace(0.01, 0.99, 60)
    result = thresholds_per_category(p, (p > 0.4).astype(int), ["big"] * 55 + ["small"] * 5)
    small = result.frame.filter(category="small").row(0, named=True)
    assert small["own"] is False
    assert small["threshold"] == result.common


def test_an_answer_counts_for_those_that_it_was_drawn_for() -> None:
    p, y, w = [0.2, 0.3, 0.3, 0.3, 0.4, 0.8], [0, 1, 1, 1, 0, 1], [1, 1, 1, 1, 10, 1]
    repeated = [np.repeat(values, w) for values in (p, y)]
    plain, weighted = (
        thresholds_per_category(p, y, [None] * 6),
        thresholds_per_category(p, y, [None] * 6, weights=w),
    )
    assert weighted.common == thresholds_per_category(*repeated, [None] * 15).common
    assert (plain.common < 0.3, weighted.common > 0.4) == (True, True)
    assert weighted.frame["accuracy"].item() == pytest.approx(12 / 15)
    assert weighted.frame["rows"].item() == 6
    assert expected_calibration_error(p, y, weights=w) == pytest.approx(expected_calibration_error(*repeated))


def test_only_the_proportions_of_the_weights_count() -> None:
    p, y = overconfident(400)
    w = np.where(p > 0.5, 8.0, 1.0)
    assert fit_calibration(p, y, weights=np.ones(400)) == fit_calibration(p, y)
    assert fit_calibration(p, y, weights=3 * w) == pytest.approx(fit_calibration(p, y, weights=w))
    often = [np.repeat(values, w.astype(int)) for values in (p, y)]
    assert fit_calibration(p, y, weights=w) == pytest.approx(fit_calibration(*often), abs=0.02)
    with pytest.raises(InputError, match="weights above 0"):
        fit_calibration(p, y, weights=np.zeros(400))


def test_what_is_no_answer_stays_one_under_any_threshold() -> None:
    frame = pl.DataFrame(
        {"refusal_probability": [0.999, 0.999], "refusal_class": ["full_refusal"] * 2,
         "refusal_kind": ["empty_or_filtered", "declined"]}
    )  # fmt: skip
    strict = StoredCalibration(Calibration(1.0, 0.0), 1.0, {}, None)
    assert apply_calibration(frame, strict)["refusal_class"].to_list() == ["full_refusal", "compliance"]

"""DSL rates, and sampling for labelling."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.errors import InputError
from curation.refusals.estimation import (
    dsl_rate,
    labelled_rates,
    naive_rate,
    pseudo_outcomes,
    sample_for_labelling,
)

NAN = float("nan")


def test_pseudo_outcomes_of_the_paper() -> None:
    found = pseudo_outcomes([1, 1, 0, 0, 1, 0], [1, NAN, NAN, 1, NAN, NAN], 1 / 3)
    assert found.tolist() == pytest.approx([1, 1, 0, 3, 1, 0])


def test_rate_of_the_paper() -> None:
    found = dsl_rate([1, 1, 0, 0, 1, 0], [1, NAN, NAN, 1, NAN, NAN], 1 / 3, cross_fit=False)
    assert found.rate == pytest.approx(1.0)
    assert found.standard_error == pytest.approx(0.447, abs=5e-4)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 1)), min_size=2, max_size=30))
def test_all_labelled_gives_the_labels_mean(rows: list[tuple[float, int]]) -> None:
    g, y = zip(*rows, strict=True)
    assert dsl_rate(g, y, 1.0).rate == pytest.approx(float(np.mean(y)))


def test_interval_covers_a_biased_detectors_truth() -> None:
    rng = np.random.default_rng(0)
    covered = naive_covered = 0
    for run in range(200):
        y = (rng.random(1_000) < 0.3).astype(float)
        g = np.where(rng.random(1_000) < 0.15, 1 - y, y)
        shown = rng.random(1_000) < 0.2
        found = dsl_rate(g, np.where(shown, y, NAN), 0.2, seed=run)
        covered += found.low <= 0.3 <= found.high
        naive = naive_rate(g)
        naive_covered += naive.low <= 0.3 <= naive.high
    assert 180 <= covered <= 199
    assert naive_covered < 20


def test_zero_sampling_probability_is_an_error() -> None:
    with pytest.raises(InputError, match="above 0"):
        pseudo_outcomes([1, 0], [1, NAN], [0.5, 0.0])


def test_two_labels_are_needed() -> None:
    with pytest.raises(InputError, match="at least 2"):
        dsl_rate([1, 0, 1], [1, NAN, NAN], 0.5)


def detected(n: int = 2_000) -> pl.DataFrame:
    p = np.random.default_rng(2).beta(0.4, 0.6, size=n)
    return pl.DataFrame({"refusal_probability": p, "source": ["a", "b"] * (n // 2)})


def test_sample_has_about_the_size_asked_for() -> None:
    sizes = [sample_for_labelling(detected(), size=200, seed=seed).height for seed in range(20)]
    assert np.mean(sizes) == pytest.approx(200, abs=12)


def test_unsure_answers_are_drawn_more_often() -> None:
    sheet = sample_for_labelling(detected(), size=300)
    unsure = sheet.filter(pl.col("refusal_probability").is_between(0.4, 0.6))["sampling_probability"].mean()
    sure = sheet.filter(pl.col("refusal_probability") < 0.05)["sampling_probability"].mean()
    assert isinstance(unsure, float)
    assert isinstance(sure, float)
    assert unsure > 2 * sure > 0


def test_sample_is_the_seeds() -> None:
    assert sample_for_labelling(detected(), size=50, seed=3).equals(
        sample_for_labelling(detected(), size=50, seed=3)
    )


def test_sample_of_everything_draws_everything() -> None:
    sheet = sample_for_labelling(detected(100), size=100)
    assert sheet.height == 100
    assert (sheet["sampling_probability"] == 1).all()


@pytest.mark.parametrize("size", [0, 101])
def test_sample_size_out_of_range_is_an_error(size: int) -> None:
    with pytest.raises(InputError, match="size"):
        sample_for_labelling(detected(100), size=size)


def test_rates_from_a_filled_in_sheet_are_near_the_truth() -> None:
    frame = detected(4_000)
    truth = np.random.default_rng(5).random(4_000) < frame["refusal_probability"].to_numpy() ** 2
    sheet = sample_for_labelling(frame, size=600)
    filled = sheet.with_columns(label=pl.Series([int(truth[row]) for row in sheet["row"]]))
    rates = labelled_rates(frame, filled, by="source")
    whole = rates.row(0, named=True)
    assert whole["low"] <= truth.mean() <= whole["high"]
    assert rates["group"].to_list() == [None, "a", "b"]


def test_unfilled_label_is_named() -> None:
    frame = detected(100)
    with pytest.raises(InputError, match="has no label"):
        labelled_rates(frame, sample_for_labelling(frame, size=10))

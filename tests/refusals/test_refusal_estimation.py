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


def filled(frame: pl.DataFrame, *, label: int | None = None) -> pl.DataFrame:
    """A sheet with one label for all, or that of the true column."""
    sheet = sample_for_labelling(frame, size=40)
    return sheet.with_columns(label=pl.col("truth") if label is None else pl.lit(label))


def answered(n: int = 200) -> pl.DataFrame:
    frame = detected(n)
    texts = [f"answer {row}" for row in range(n)]
    return frame.with_columns(response=pl.Series(texts), truth=(frame["refusal_probability"] > 0.6).cast(pl.Int8))


@pytest.mark.parametrize(("label", "rate"), [(0, 0.0), (1, 1.0)])
def test_labels_that_are_all_alike_are_no_proof(label: int, rate: float) -> None:
    frame = answered()
    sheet = filled(frame, label=label)
    whole = labelled_rates(frame, sheet).row(0, named=True)
    weights = 1 / sheet["sampling_probability"].to_numpy()
    n = weights.sum() ** 2 / (weights**2).sum()
    assert whole["rate"] == rate
    # Clopper and Pearson: so many answers of one kind are seen in 2.5 % of samples at the bound.
    bound = whole["high"] if label == 0 else 1 - whole["low"]
    assert (1 - bound) ** n == pytest.approx(0.025)
    assert (whole["low"] if label == 0 else 1 - whole["high"]) == 0.0


def test_the_order_of_the_sheet_does_not_matter() -> None:
    frame = answered()
    sheet = filled(frame)
    assert labelled_rates(frame, sheet.reverse()).equals(labelled_rates(frame, sheet))


def test_a_sheet_of_a_file_in_another_order_is_an_error() -> None:
    frame = answered()
    with pytest.raises(InputError, match="sorted or changed"):
        labelled_rates(frame.reverse(), filled(frame))


def test_white_space_that_a_spreadsheet_changed_is_no_other_answer() -> None:
    frame = answered().with_columns(pl.format("{}\n", "response").alias("response"))
    sheet = filled(frame).with_columns(pl.col("response").str.replace("\n", "\r\n"))
    assert labelled_rates(frame, sheet).equals(labelled_rates(frame, filled(frame)))


def test_a_row_that_stands_twice_in_the_sheet_is_an_error() -> None:
    frame = answered()
    sheet = filled(frame)
    with pytest.raises(InputError, match="twice"):
        labelled_rates(frame, pl.concat([sheet, sheet.head(1).with_columns(label=1 - pl.col("label"))]))


@pytest.mark.parametrize("column", ["row", "sampling_probability"])
def test_columns_of_the_draw_that_were_changed_are_an_error(column: str) -> None:
    frame = answered()
    with pytest.raises(InputError, match="as they were drawn"):
        labelled_rates(frame, filled(frame).with_columns(pl.lit(None, dtype=pl.String).alias(column)))


def test_a_line_that_was_taken_out_of_the_sheet_is_missed() -> None:
    frame = answered()
    sheet = filled(frame)
    with pytest.raises(InputError, match=rf"{sheet.height - 2} of its {sheet.height} lines, .* 3, 7: rates"):
        labelled_rates(frame, sheet.filter(~pl.col("sheet_line").str.contains("^(3|7) of")).reverse())


def test_lines_of_two_draws_are_no_sheet() -> None:
    frame = answered()
    sheet = filled(frame)
    for size in (40, 41):
        other = sample_for_labelling(frame, size=size, seed=1).with_columns(label=pl.col("truth"))
        both = pl.concat([sheet, other]).unique("row", maintain_order=True)
        with pytest.raises(InputError, match="several draws"):
            labelled_rates(frame, both)


def test_a_sheet_of_dialogues_is_compared_too() -> None:
    frame = answered().with_columns(messages=pl.concat_list(pl.struct(content="response"))).drop("response")
    with pytest.raises(InputError, match="sorted or changed"):
        labelled_rates(frame.reverse(), filled(frame))


def test_rows_without_a_value_are_a_group_of_their_own() -> None:
    frame = answered().with_columns(source=pl.when(pl.col("source") == "a").then("source"))
    rates = labelled_rates(frame, filled(frame), by="source")
    assert rates["group"].to_list() == [None, "(none)", "a"]
    assert rates["rows"].to_list() == [200, 100, 100]


def test_a_group_column_that_is_not_there_is_an_error() -> None:
    frame = answered()
    with pytest.raises(InputError, match=r"'sorce' is missing.*source"):
        labelled_rates(frame, filled(frame), by="sorce")


@pytest.mark.parametrize("bad", [None, NAN, 1.5])
def test_a_probability_that_is_none_is_named_by_its_row(bad: float | None) -> None:
    frame = pl.DataFrame({"refusal_probability": [0.1, bad, 0.9]})
    with pytest.raises(InputError, match="row 1"):
        sample_for_labelling(frame, size=2)


@pytest.mark.parametrize("name", ["row", "label", "sampling_probability", "sheet_line"])
def test_a_column_of_the_users_is_not_written_over(name: str) -> None:
    with pytest.raises(InputError, match=f"{name!r} already"):
        sample_for_labelling(detected(10).with_columns(pl.lit(1).alias(name)), size=2)


def test_the_detectors_own_rate_is_that_of_its_classes() -> None:
    classes = ["full_refusal", "partial_refusal", "compliance", "compliance"] * 50
    frame = answered().with_columns(refusal_class=pl.Series(classes))
    assert labelled_rates(frame, filled(frame))["detector_rate"].to_list() == [0.5]

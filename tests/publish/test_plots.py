"""Figures: what they count, and how small their specifications stay."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest

from curation.publish.chart_style import figure_png, figure_svg
from curation.publish.plots import (
    Bound,
    density_chart,
    histogram_chart,
    refusal_chart,
    scatter_chart,
    waterfall_chart,
)


def values(chart) -> list[list[dict[str, object]]]:
    """The rows behind each layer of a chart."""
    spec = chart.to_dict(validate=False)
    layers = spec.get("layer", [spec])
    return [json.loads(spec["datasets"][layer["data"]["name"]]) for layer in layers]


def pairs(rows: int) -> pl.DataFrame:
    rng = np.random.default_rng(0)
    return pl.DataFrame(
        {
            "pair_id": [f"{i:032x}" for i in range(rows)],
            "status": np.where(rng.random(rows) < 0.8, "kept", "dropped"),
            "a": rng.normal(size=rows),
            "b": rng.standard_cauchy(size=rows),
        }
    )


def test_histogram_counts_every_finite_value():
    frame = pairs(5_000).with_columns(b=pl.when(pl.int_range(pl.len()) > 9).then(pl.col("b")))
    (bars,) = values(histogram_chart(frame, "b"))
    by_status = {s: sum(b["upto"] - b["above"] for b in bars if b["status"] == s) for s in ("kept", "dropped")}
    expected = dict(frame.filter(pl.col("b").is_not_null()).group_by("status").len().iter_rows())
    assert by_status == expected


def test_histogram_of_one_value_is_one_bar():
    frame = pairs(10).with_columns(a=pl.lit(2.0), status=pl.lit("kept"))
    (bars,) = values(histogram_chart(frame, "a"))
    assert [(b["above"], b["upto"]) for b in bars] == [(0, 10)]


def test_no_values_give_no_figure():
    frame = pairs(10).with_columns(a=pl.lit(float("nan")))
    assert histogram_chart(frame, "a") is None
    assert density_chart(frame, "a", "b", x_title="", y_title="") is None
    assert scatter_chart(frame, "a", "b", x_title="", y_title="") is None
    assert refusal_chart(frame) is None


def test_density_counts_every_row():
    (cells,) = values(density_chart(pairs(5_000), "a", "b", x_title="", y_title=""))
    assert sum(c["pairs"] for c in cells) == 5_000
    assert len(cells) <= 1_600


def test_scatter_takes_a_sample_that_does_not_depend_on_order():
    frame = pairs(20_000)
    bounds = [Bound("x", 0.5, "max")]
    first = values(scatter_chart(frame, "a", "b", x_title="", y_title="", bounds=bounds))
    again = values(scatter_chart(frame.reverse(), "a", "b", x_title="", y_title="", bounds=bounds))
    assert len(first[0]) == 1_500
    assert first == again
    assert first[1] == [{"at": 0.5, "label": "max"}]


@pytest.mark.parametrize("rows", [1_000, 1_000_000])
def test_specifications_stay_small(rows):
    frame = pairs(rows)
    for chart in (
        histogram_chart(frame, "a"),
        density_chart(frame, "a", "b", x_title="", y_title=""),
        scatter_chart(frame, "a", "b", x_title="", y_title=""),
    ):
        assert len(json.dumps(chart.to_dict(validate=False))) < 400_000


def test_refusal_shares_by_hand():
    frame = pl.DataFrame(
        {
            "status": ["kept", "kept", "dropped", "dropped"],
            "chosen_refusal_class": ["full_refusal", "compliance", "partial_refusal", None],
            "rejected_refusal_class": ["compliance"] * 4,
        }
    )
    bars, totals = values(refusal_chart(frame))
    ends = {(b["set"], b["class"]): b["to"] for b in bars}
    assert ends["chosen, all", "full refusal"] == pytest.approx(1 / 3)
    assert ends["chosen, all", "partial refusal"] == pytest.approx(2 / 3)
    assert ends["chosen, kept", "partial refusal"] == pytest.approx(1 / 2)
    assert [t["label"] for t in totals] == ["66.7%", "50.0%", "0.0%", "0.0%"]


def test_a_share_of_no_known_answer_is_not_drawn_as_none_refusing():
    frame = pl.DataFrame({"status": ["dropped"], "chosen_refusal_class": ["full_refusal"]})
    bars, totals = values(refusal_chart(frame))
    assert {bar["set"] for bar in bars} == {"chosen, all"}
    assert [total["label"] for total in totals] == ["100.0%"]


def test_waterfall_goes_from_input_to_what_is_left():
    frame = pl.DataFrame(
        {
            "dataset": ["d"] * 2,
            "position": [1, 0],
            "stage": ["s"] * 2,
            "rule": ["second_rule", "first_rule"],
            "removed": [5, 10],
            "left": [85, 90],
        }
    )
    _, labels = values(waterfall_chart(frame))
    assert [(r["rule"], r["label"]) for r in labels] == [
        ("input", "100"),
        ("1. first rule", "90  (−10)"),
        ("2. second rule", "85  (−5)"),
    ]


def test_svg_and_png_are_the_same_each_time():
    chart, again = (histogram_chart(pairs(500), "a") for _ in range(2))
    assert figure_svg(chart) == figure_svg(again)
    assert figure_png(chart) == figure_png(again)
    assert figure_png(chart).startswith(b"\x89PNG")

"""Counts of refusals, over-refusals and unsafe compliances, and the worst category beside the average."""

from __future__ import annotations

import polars as pl
import pytest

from curation.publish.refusing import summarise_refusals


def answers(*rows: tuple[str | None, str | None, str, str]) -> pl.DataFrame:
    frame = pl.DataFrame(
        rows,
        schema=["refusal_class", "expected_behaviour", "source", "category"],
        orient="row",
        infer_schema_length=None,
    )
    kind = pl.when(pl.col("refusal_class") == "full_refusal").then(pl.lit("declined"))
    return frame.with_columns(refusal_kind=kind, generator=pl.lit(None, dtype=pl.String))


def test_faults_are_counted_where_something_was_expected() -> None:
    found = summarise_refusals(
        answers(
            ("full_refusal", "comply", "a", "x"),
            ("partial_refusal", "comply", "a", "x"),
            ("compliance", "comply", "b", "x"),
            ("compliance", "refuse", "b", "y"),
            ("full_refusal", "refuse", "b", "y"),
            ("full_refusal", None, "b", "y"),
            (None, "refuse", "b", "y"),
        )
    )
    assert found is not None
    assert (found.answers, found.expected_answers, found.over_refusals) == (6, 3, 2)
    assert (found.expected_refusals, found.unsafe_compliances) == (2, 1)
    assert found.kinds == [("declined", 3), ("not told", 1)]
    by_source = {row["name"]: row for row in dict(found.groups)["source"]}
    assert by_source["a"]["over_refusals"] == 2
    assert by_source["b"]["unsafe_compliances"] == 1
    assert "generator" not in dict(found.groups)


def test_the_worst_category_stands_beside_the_average_over_categories() -> None:
    good = [("full_refusal", "refuse", "a", "good")] * 9 + [("compliance", "refuse", "a", "good")]
    bad = [("full_refusal", "refuse", "a", "bad")] * 2 + [("compliance", "refuse", "a", "bad")] * 3
    few = [("compliance", "refuse", "a", "few")]
    found = summarise_refusals(answers(*good, *bad, *few))
    assert found is not None
    (worst,) = found.worst
    assert (worst.fault, worst.category, worst.rows, worst.categories) == ("unsafe compliance", "bad", 5, 2)
    assert (worst.rate, worst.average) == pytest.approx((0.6, 0.35))


def test_without_verdicts_there_is_nothing_to_say() -> None:
    assert summarise_refusals(answers((None, "refuse", "a", "x"))) is None

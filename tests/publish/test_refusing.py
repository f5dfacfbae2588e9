"""Counts of refusals, over-refusals and unsafe compliances, and the worst category beside the average."""

from __future__ import annotations

import polars as pl
import pytest

from curation.publish.refusing import summarise_built, summarise_confusion, summarise_refusals
from curation.refusals.sorting import confusion
from schemas import TABLES


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


def test_the_dataset_is_counted_by_category_beside_its_quotas() -> None:
    rows = pl.DataFrame(
        {
            "kind": ["refusal", "refusal", "contrast", "uncertain", "contrast"],
            "category": ["fraud", "fraud", "fraud", "facts", None],
            "certainty": [None, None, None, "sure", None],
        }
    )
    quotas = pl.DataFrame({"category": ["fraud", "malware"], "wanted": [3, 2], "kept": [3, 0], "missing": [0, 2]})
    found = summarise_built(rows, quotas)
    by_name = {row["name"]: row for row in found.categories}
    assert found.categories[0] == {
        "name": "malware", "refusal": 0, "contrast": 0, "uncertain": 0, "wanted": 2, "missing": 2
    }  # fmt: skip
    assert (by_name["fraud"]["refusal"], by_name["fraud"]["contrast"], by_name["fraud"]["missing"]) == (2, 1, 0)
    assert (by_name["(none)"]["contrast"], by_name["(none)"]["wanted"]) == (1, None)
    assert (found.missing, found.short, found.certainty) == (2, 1, [("sure", 1)])
    assert (found.without_contrast, found.least) == (0, None)
    small = quotas.with_columns(contrast_from=pl.Series([None, 4]))
    assert summarise_built(rows, small)[4:6] == (1, 4)


def test_rows_without_a_category_stand_beside_their_quota() -> None:
    rows = pl.DataFrame({"kind": ["contrast"] * 2}).with_columns(category=pl.lit(None, dtype=pl.String))
    quotas = pl.DataFrame({"category": ["(none)"], "wanted": [3], "kept": [2], "missing": [1]})
    (row,) = summarise_built(rows, quotas).categories
    assert (row["name"], row["contrast"], row["wanted"], row["missing"]) == ("(none)", 2, 3, 1)


def test_no_shortfall_is_hidden_among_many_categories() -> None:
    names = [f"c{n:03}" for n in range(200)]
    rows = pl.DataFrame({"kind": ["refusal"] * 400, "category": names * 2})
    quotas = pl.DataFrame(
        {"category": [*names, "zzz"], "wanted": 2, "kept": [2] * 200 + [0], "missing": [0] * 200 + [2]}
    )
    found = summarise_built(rows, quotas)
    assert found.categories[0]["name"] == "zzz"
    assert found.left_out == 201 - len(found.categories)
    assert found.missing == 2


def test_without_quotas_nothing_is_missing() -> None:
    found = summarise_built(
        pl.DataFrame({"kind": ["refusal"], "category": ["a"]}), TABLES["refusal_quotas"].create_empty()
    )
    assert (found.missing, found.short, found.certainty) == (0, 0, [])


def test_every_confusion_is_counted_and_none_is_right_by_having_no_category() -> None:
    given = ["a", "a", "a", "b", "b", "c"]
    found = summarise_confusion(confusion(given, ["a", "b", None, None, None, "c"]))
    assert [tuple(row.values()) for row in found] == [
        ("a", 3, 1, [("(none)", 1), ("b", 1)]),
        ("b", 2, 0, [("(none)", 2)]),
        ("c", 1, 1, []),
    ]
    assert summarise_confusion(confusion([], [])) == []

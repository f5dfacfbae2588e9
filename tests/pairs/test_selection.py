"""Selecting pairs: bounds, quantiles, missing scores, and one reason for each dropped pair."""

from __future__ import annotations

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from curation.pairs.selection import select_pairs
from curation.recipe import SelectionRule

values = st.lists(st.one_of(st.none(), st.integers(-5, 5).map(float)), min_size=1, max_size=30)


def pairs(ches: list[float | None], strength: list[float | None] | None = None) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "pair_id": [str(i) for i in range(len(ches))],
            "ches": ches,
            "strength_mean": strength or [1.0] * len(ches),
        },
        schema={"pair_id": pl.String, "ches": pl.Float64, "strength_mean": pl.Float64},
    )


@given(values, st.floats(-4, 4), st.floats(-4, 4))
def test_absolute_bounds_equal_a_plain_loop(ches: list[float | None], low: float, high: float) -> None:
    low, high = sorted((low, high))
    selected = select_pairs(pairs(ches), [SelectionRule(score="ches", min=low, max=high)])
    expected = [str(i) for i, v in enumerate(ches) if v is not None and low <= v <= high]
    assert selected.kept["pair_id"].to_list() == expected


@given(values, st.floats(0, 1))
def test_quantiles_are_numpys(ches: list[float | None], q: float) -> None:
    selected = select_pairs(pairs(ches), [SelectionRule(score="ches", max_quantile=q, missing="keep")])
    known = [v for v in ches if v is not None]
    bound = np.quantile(known, q) if known else 0.0
    expected = [str(i) for i, v in enumerate(ches) if v is None or v <= bound + 1e-12]
    assert selected.kept["pair_id"].to_list() == expected


@given(values, values)
def test_every_pair_is_kept_or_rejected_once(ches: list[float | None], strength: list[float | None]) -> None:
    n = min(len(ches), len(strength))
    frame = pairs(ches[:n], strength[:n])
    rules = [SelectionRule(score="ches", max_quantile=0.5), SelectionRule(score="strength_mean", min=0.0)]
    selected = select_pairs(frame, rules)
    rejected = selected.rejects["row_id"].to_list()
    assert sorted(selected.kept["pair_id"].to_list() + rejected) == sorted(frame["pair_id"].to_list())


def test_the_order_of_rules_moves_no_threshold() -> None:
    frame = pairs([1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0])
    a = SelectionRule(score="ches", max_quantile=0.5)
    b = SelectionRule(score="strength_mean", min_quantile=0.5)
    one, two = select_pairs(frame, [a, b]), select_pairs(frame, [b, a])
    assert one.thresholds.sort("rule").rows() == two.thresholds.sort("rule").rows()
    assert one.kept.rows() == two.kept.rows()


def test_a_reject_carries_rule_value_and_threshold() -> None:
    selected = select_pairs(pairs([1.0, 9.0, None]), [SelectionRule(score="ches", max=5.0)])
    assert selected.rejects.select("row_id", "rule", "value", "threshold").rows() == [
        ("2", "ches_missing", None, None),
        ("1", "ches_above_bound", "9.0", "5.0"),
    ]


def test_two_refusals_are_dropped_on_request() -> None:
    classes = pl.DataFrame(
        {
            "pair_id": ["0", "1", "2"],
            "chosen_refusal_class": ["full_refusal", "full_refusal", None],
            "rejected_refusal_class": ["full_refusal", "compliance", "full_refusal"],
        }
    )
    selected = select_pairs(classes, [], drop_refusal_pairs=True)
    assert selected.kept["pair_id"].to_list() == ["1", "2"]
    assert selected.rejects["rule"].to_list() == ["refusal_pair"]


def test_a_rule_on_a_score_that_no_pair_has_drops_them_by_name() -> None:
    selected = select_pairs(pairs([None, None]), [SelectionRule(score="ches", max_quantile=0.5)])
    assert selected.kept.is_empty()
    assert selected.rejects["rule"].to_list() == ["ches_missing", "ches_missing"]


def test_a_score_that_is_not_a_number_passes_no_bound() -> None:
    frame = pairs([1.0, float("nan"), 3.0, None])
    selected = select_pairs(frame, [SelectionRule(score="ches", min=0.0, max_quantile=1.0)])
    assert selected.kept["pair_id"].to_list() == ["0", "2"]
    assert selected.rejects["rule"].to_list() == ["ches_missing"] * 2
    assert selected.thresholds["threshold"].to_list() == [0.0, 3.0]

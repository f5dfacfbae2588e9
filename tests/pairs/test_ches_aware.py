"""Filtering by CHES, and pairing that looks for a safer pair first."""

from __future__ import annotations

import math

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.errors import InputError
from curation.pairs.ches_aware import ches_aware_pairs, keep_lowest

ROWS = st.lists(st.tuples(st.integers(0, 5), st.integers(-2, 5), st.integers(-4, 4)), min_size=1, max_size=40)


def frame(rows: list[tuple[str, str, str, float | None, float | None]]) -> pl.DataFrame:
    schema = {"prompt_id": pl.String, "chosen_id": pl.String, "rejected_id": pl.String,
              "margin": pl.Float64, "ln_ches": pl.Float64}  # fmt: skip
    return pl.DataFrame(rows, schema=schema, orient="row")


def drawn(rows: list[tuple[int, int, int]]) -> pl.DataFrame:
    return frame([(f"p{p}", f"c{i}", f"r{i}", float(m), float(s)) for i, (p, m, s) in enumerate(rows)])


def test_the_strongest_pair_under_the_threshold_is_taken() -> None:
    pairs = frame([("p", "a", "b", 3.0, 5.0), ("p", "a", "c", 2.0, -1.0), ("p", "b", "c", 1.0, -2.0)])
    found = ches_aware_pairs(pairs, quantile=None, threshold=0.0)
    assert found.pairs.rows() == [("p", "a", "c", 2.0, -1.0, True)]
    assert (found.prompts, found.kept_by_filter, found.saved) == (1, 0, 1)


def test_a_safe_strongest_pair_is_not_replaced() -> None:
    pairs = frame([("p", "a", "b", 3.0, -5.0), ("p", "a", "c", 2.0, -9.0)])
    found = ches_aware_pairs(pairs, quantile=None, threshold=0.0)
    assert found.pairs["replaced"].to_list() == [False]
    assert found.saved == 0


def test_a_prompt_without_a_safe_pair_is_rejected_with_its_lowest_score() -> None:
    pairs = frame([("p", "a", "b", 3.0, 5.0), ("p", "a", "c", 2.0, 4.0)])
    found = ches_aware_pairs(pairs, quantile=None, threshold=0.0)
    assert found.rejects.select("prompt_id", "rule", "value").rows() == [("p", "ln_ches_above_threshold", "4.0")]


def test_a_prompt_without_a_preference_says_so() -> None:
    pairs = frame([("p", "a", "b", 0.0, -5.0), ("q", "a", "b", None, -5.0), ("r", "a", "b", 1.0, math.nan)])
    found = ches_aware_pairs(pairs)
    assert found.rejects["rule"].to_list() == ["no_preference"] * 3


def test_the_quantile_is_taken_over_the_strongest_pairs() -> None:
    rows = [(f"p{n:02}", "a", "b", 2.0, float(n)) for n in range(20)]
    rows += [(f"p{n:02}", "b", "c", 1.0, -50.0) for n in range(5, 20)]
    found = ches_aware_pairs(frame(rows), quantile=0.25)
    assert found.threshold == 4.0
    assert (found.kept_by_filter, found.saved) == (5, 15)


@given(ROWS)
def test_nothing_above_the_threshold_and_one_pair_a_prompt(rows: list[tuple[int, int, int]]) -> None:
    found = ches_aware_pairs(drawn(rows), quantile=0.3)
    assert found.pairs["prompt_id"].is_unique().all()
    assert (found.pairs["ln_ches"] <= found.threshold).all()
    assert found.saved >= 0
    assert found.pairs.height + found.rejects.height == drawn(rows)["prompt_id"].n_unique()


@given(ROWS)
def test_no_safe_pair_of_a_prompt_is_stronger(rows: list[tuple[int, int, int]]) -> None:
    pairs = drawn(rows)
    found = ches_aware_pairs(pairs, quantile=0.5)
    for kept in found.pairs.iter_rows(named=True):
        safe = pairs.filter(pl.col("prompt_id") == kept["prompt_id"], pl.col("ln_ches") <= found.threshold)
        assert kept["margin"] == safe["margin"].max()


@given(ROWS, st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_nothing(rows: list[tuple[int, int, int]], random: object) -> None:
    pairs = drawn(rows)
    shuffled = pairs.sample(fraction=1.0, shuffle=True, seed=random.randint(0, 99))  # type: ignore[attr-defined]
    first, second = (ches_aware_pairs(p, quantile=0.4).pairs.sort("prompt_id") for p in (pairs, shuffled))
    assert first.equals(second)


def test_the_filter_keeps_the_lowest_share() -> None:
    pairs = frame([(f"p{n}", "a", "b", 1.0, float(n)) for n in range(100)])
    kept, threshold = keep_lowest(pairs, 0.05)
    assert kept["ln_ches"].to_list() == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert threshold == 4.0


def test_the_filter_drops_what_has_no_score() -> None:
    pairs = frame([("p", "a", "b", 1.0, math.nan), ("q", "a", "b", 1.0, None), ("r", "a", "b", 1.0, 2.0)])
    assert keep_lowest(pairs, 1.0)[0]["prompt_id"].to_list() == ["r"]


def test_nothing_to_filter() -> None:
    kept, threshold = keep_lowest(frame([]), 0.05)
    assert kept.height == 0
    assert threshold == -math.inf


@pytest.mark.parametrize("quantile", [0.0, 1.5, -0.1])
def test_impossible_quantile_is_refused(quantile: float) -> None:
    with pytest.raises(InputError, match="quantile"):
        keep_lowest(frame([]), quantile)


def test_quantile_and_threshold_together_are_refused() -> None:
    with pytest.raises(InputError, match="either"):
        ches_aware_pairs(frame([]), threshold=1.0)


def test_missing_column_is_named() -> None:
    with pytest.raises(InputError, match="'margin'"):
        ches_aware_pairs(frame([]).drop("margin"))

"""Cycles, conflicts and length bias."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.scores.structure import conflicts, length_bias, match_lengths, preference_cycles


def edges(*pairs: tuple[str, str], prompt: str = "p") -> pl.DataFrame:
    return pl.DataFrame(
        {
            "prompt_id": [prompt] * len(pairs),
            "chosen_id": [a for a, _ in pairs],
            "rejected_id": [b for _, b in pairs],
        }
    )


def reaches(pairs: list[tuple[str, str]], start: str, end: str) -> bool:
    seen = {start}
    while more := {b for a, b in pairs if a in seen} - seen:
        seen |= more
    return end in seen


def test_a_cycle_of_three_is_found_and_its_tail_is_not() -> None:
    found = preference_cycles(edges(("a", "b"), ("b", "c"), ("c", "a"), ("c", "d")))
    assert found["in_cycle"].to_list() == [True, True, True, False]
    assert found["cycle"].to_list() == [0, 0, 0, None]


def test_answers_of_different_prompts_are_different_answers() -> None:
    pairs = pl.concat([edges(("a", "b"), prompt="p"), edges(("b", "a"), prompt="q")])
    assert preference_cycles(pairs)["in_cycle"].to_list() == [False, False]


def test_no_pairs_have_no_cycles() -> None:
    assert preference_cycles(edges()).height == 0


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from("abcdef")), min_size=1, max_size=15))
@settings(max_examples=60, deadline=None)
def test_cycles_equal_those_of_a_plain_search(pairs: list[tuple[str, str]]) -> None:
    pairs = [(a, b) for a, b in pairs if a != b] or [("a", "b")]
    expected = [reaches(pairs, b, a) for a, b in pairs]
    assert preference_cycles(edges(*pairs))["in_cycle"].to_list() == expected


def test_conflicts_count_both_judgements_and_name_the_sources() -> None:
    pairs = edges(("a", "b"), ("b", "a"), ("a", "b"), ("a", "c")).with_columns(
        source=pl.Series(["x", "y", "x", "x"])
    )
    row = conflicts(pairs).row(0, named=True)
    assert conflicts(pairs).height == 1
    assert (row["first_id"], row["prefer_first"], row["prefer_second"]) == ("a", 2, 1)
    assert row["sources"] == ["x", "y"]


def test_margins_that_are_length_are_all_bias() -> None:
    random = np.random.default_rng(0)
    chosen, rejected = random.integers(1, 500, 200), random.integers(1, 500, 200)
    bias = length_bias(np.log1p(chosen) - np.log1p(rejected), chosen, rejected)
    assert bias.correlation == pytest.approx(1.0)
    assert bias.longer_preferred == 1.0
    np.testing.assert_allclose(bias.controlled, 0, atol=1e-9)


def test_equal_lengths_keep_their_margin_and_have_no_bias() -> None:
    bias = length_bias([1.0, -2.0], [5, 5], [5, 5])
    assert bias.controlled.tolist() == [1.0, -2.0]
    assert (bias.correlation, bias.longer_preferred) == (0.0, 0.5)


def test_matched_lengths_are_balanced() -> None:
    random = np.random.default_rng(0)
    chosen, rejected = random.integers(50, 500, 2000), random.integers(1, 300, 2000)
    rows = match_lengths(chosen, rejected)
    ratio = np.log1p(chosen[rows]) - np.log1p(rejected[rows])
    assert (ratio > 0).sum() == (ratio < 0).sum() > 100
    assert abs(ratio.mean()) < 0.05
    assert rows.tolist() == match_lengths(chosen, rejected).tolist()

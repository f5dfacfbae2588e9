"""Verdicts of a judge by the frame: the same as one by one, and statistics that catch its biases."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from curation.models.rewards.judge_parsing import combine_orders
from curation.scores.judging import judge_statistics, judge_verdicts

COLUMNS = [f"{order}_{letter}" for order in ("first", "swapped") for letter in "abc"]


def compared(rows: list[list[float]], **ids: list[str]) -> pl.DataFrame:
    names = {name: ids.get(name, [f"{name} {n}" for n in range(len(rows))]) for name in ("prompt_id", "first_id")}
    names["second_id"] = ids.get("second_id", [f"second {n}" for n in range(len(rows))])
    probabilities = pl.DataFrame(rows, schema=dict.fromkeys(COLUMNS, pl.Float64), orient="row")
    return pl.DataFrame(names, schema=dict.fromkeys(names, pl.String)).hstack(probabilities)


@pytest.mark.parametrize("delta", [0.0, 0.2])
def test_a_frame_of_comparisons_gets_what_each_alone_gets(delta: float) -> None:
    rng = np.random.default_rng(0)
    rows = np.concatenate([rng.dirichlet([0.5, 0.5, 0.2], 300), rng.dirichlet([0.5, 0.5, 0.2], 300)], axis=1)
    found = judge_verdicts(compared(rows.tolist()), delta=delta)
    names = {"A": "chosen", "B": "rejected", "tie": "tie"}
    for row, said in zip(rows, found.iter_rows(named=True), strict=True):
        one, two = (dict(zip("ABC", part.tolist(), strict=True)) for part in (row[:3], row[3:]))
        verdict = combine_orders(one, two, delta=delta)
        assert said["judge_verdict"] == names[verdict.better]
        assert said["judge_consistent"] == verdict.consistent
        share = verdict.scores["A"] / (verdict.scores["A"] + verdict.scores["B"])
        assert said["judge_probability"] == pytest.approx(share)
    assert set(found["judge_verdict"]) == {"chosen", "rejected", "tie"}


def test_the_worked_example_of_trustjudge() -> None:
    found = judge_verdicts(compared([[0.5, 0.3, 0.2, 0.6, 0.1, 0.3]])).row(0, named=True)
    assert (found["judge_verdict"], found["judge_consistent"]) == ("rejected", False)
    assert found["judge_probability"] == pytest.approx(0.6 / 1.5)


def test_a_judge_that_gives_all_to_ties_decides_nothing() -> None:
    found = judge_verdicts(compared([[0.0, 0.0, 1.0, 0.0, 0.0, 1.0]])).row(0, named=True)
    assert (found["judge_verdict"], found["judge_probability"]) == ("tie", 0.5)


def test_a_judge_that_takes_the_first_place_is_caught() -> None:
    said = judge_statistics(compared([[1.0, 0.0, 0.0, 1.0, 0.0, 0.0]] * 4))
    assert (said.compared, said.ties, said.inconsistent, said.first_both, said.lean_to_first) == (4, 1, 1, 1, 1)
    assert said.second_both == 0


def test_a_circle_of_verdicts_is_counted() -> None:
    sure = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    ids = {"prompt_id": ["p"] * 3 + ["q"], "first_id": ["a", "b", "c", "a"], "second_id": ["b", "c", "a", "b"]}
    assert judge_statistics(compared([sure] * 4, **ids)).in_cycle == 0.75


def test_no_comparisons_give_no_division() -> None:
    assert judge_statistics(compared([])).compared == 0


def test_equal_probabilities_are_a_lean_to_no_place() -> None:
    said = judge_statistics(compared([[0.45, 0.45, 0.1, 0.45, 0.45, 0.1]] * 3))
    assert (said.ties, said.inconsistent, said.first_both, said.second_both) == (1, 0, 0, 0)
    half = [0.5, 0.5, 0.0, 0.1, 0.9, 0.0]
    assert judge_verdicts(compared([half]))["judge_consistent"].to_list() == [False]
    assert not combine_orders({"A": 0.5, "B": 0.5}, {"A": 0.1, "B": 0.9}).consistent

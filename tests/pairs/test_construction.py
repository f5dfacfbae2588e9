"""Building pairs, against plain loops."""

from __future__ import annotations

import itertools
import math

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.pairs.construction import PAIR_KEY, BuiltPairs, Strategy, build_pairs, once_each, without_conflicts
from curation.pairs.provided import provided_pairs
from curation.text import content_hash

Row = tuple[str, str, float | None]
scores = st.one_of(st.none(), st.just(math.nan), st.just(math.inf), st.integers(-3, 3).map(float))
tables = st.lists(st.tuples(st.sampled_from("pqr"), st.integers(0, 30), scores), max_size=14).map(
    lambda rows: [(p, content_hash(p, str(c)), s) for p, c, s in {(p, c): (p, c, s) for p, c, s in rows}.values()]
)


def frame(rows: list[Row]) -> pl.DataFrame:
    schema = {"prompt_id": pl.String, "candidate_id": pl.String, "score": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row")


def chosen(built: BuiltPairs) -> set[tuple[str, str]]:
    return set(built.pairs.select("chosen_id", "rejected_id").rows())


def usable(rows: list[Row]) -> dict[str, list[tuple[float, str]]]:
    found: dict[str, list[tuple[float, str]]] = {}
    for prompt, candidate, score in rows:
        if score is not None and math.isfinite(score):
            found.setdefault(prompt, []).append((score, candidate))
    return found


@given(tables, st.sampled_from([0.0, 1.0, 2.5]))
def test_all_pairs_equals_a_plain_loop(rows: list[Row], margin: float) -> None:
    expected = {
        (a[1], b[1])
        for group in usable(rows).values()
        for a, b in itertools.permutations(group, 2)
        if a[0] - b[0] > margin
    }
    assert chosen(build_pairs(frame(rows), strategy="all", min_margin=margin)) == expected


@given(tables)
def test_best_vs_worst_equals_a_plain_loop(rows: list[Row]) -> None:
    expected = set()
    for group in usable(rows).values():
        best = min(group, key=lambda c: (-c[0], c[1]))
        worst = min(group, key=lambda c: (c[0], c[1]))
        if best[0] > worst[0]:
            expected.add((best[1], worst[1]))
    assert chosen(build_pairs(frame(rows), strategy="best_vs_worst")) == expected


@given(tables, st.integers(0, 5))
def test_best_vs_random_takes_a_lower_one_of_the_same_prompt(rows: list[Row], seed: int) -> None:
    built = build_pairs(frame(rows), strategy="best_vs_random", seed=seed)
    score = {c: s for group in usable(rows).values() for s, c in group}
    for row in built.pairs.iter_rows(named=True):
        group = usable(rows)[row["prompt_id"]]
        assert score[row["chosen_id"]] == max(group)[0]
        assert score[row["rejected_id"]] < score[row["chosen_id"]]


@given(tables, st.sampled_from(["all", "best_vs_worst", "best_vs_random"]), st.randoms())
def test_the_order_of_rows_does_not_matter(rows: list[Row], strategy: Strategy, random: object) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert chosen(build_pairs(frame(rows), strategy=strategy)) == chosen(
        build_pairs(frame(shuffled), strategy=strategy)
    )


@given(tables, st.sampled_from(["all", "best_vs_worst", "best_vs_random"]))
def test_every_prompt_and_candidate_is_accounted_for(rows: list[Row], strategy: Strategy) -> None:
    built = build_pairs(frame(rows), strategy=strategy)
    without_pair = set(built.rejects.filter(pl.col("table") == "prompts")["row_id"])
    paired = set(built.pairs["prompt_id"])
    assert paired | without_pair == {p for p, _, _ in rows}
    assert paired.isdisjoint(without_pair)
    unscored = set(built.rejects.filter(pl.col("rule") == "no_score")["row_id"])
    assert unscored == {c for _, c, s in rows if s is None or not math.isfinite(s)}


@pytest.mark.parametrize(
    ("rows", "rule"),
    [
        ([("p", "a", 1.0)], "one_candidate"),
        ([("p", "a", 1.0), ("p", "b", math.nan)], "one_candidate"),
        ([("p", "a", 1.0), ("p", "b", 1.0), ("p", "c", 1.0)], "tied_scores"),
        ([("p", "a", 1.0), ("p", "b", 1.4)], "margin_too_small"),
    ],
)
def test_a_prompt_without_a_pair_says_why(rows: list[Row], rule: str) -> None:
    rejects = build_pairs(frame(rows), min_margin=0.5).rejects.filter(pl.col("table") == "prompts")
    assert rejects["rule"].to_list() == [rule]


def test_different_seeds_draw_different_pairs() -> None:
    rows: list[Row] = [("p", content_hash(str(i)), float(i == 0)) for i in range(40)]
    drawn = {next(iter(chosen(build_pairs(frame(rows), strategy="best_vs_random", seed=s))))[1] for s in range(10)}
    assert len(drawn) > 3


def inputs(*rows: tuple[str, str, str]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "input_id": [f"s#{i}" for i in range(len(rows))],
            "source": "s",
            "kind": "pair",
            "prompt_id": [r[0] for r in rows],
            "candidate_ids": [[r[1], r[2]] for r in rows],
            "chosen_index": 0,
            "rejected_index": 1,
            "scores": pl.Series([None] * len(rows), dtype=pl.List(pl.Float64)),
        }
    )


def test_provided_pairs_are_kept_once_and_repeats_name_the_kept_row() -> None:
    built = provided_pairs(inputs(("p", "a", "b"), ("p", "b", "a"), ("p", "a", "b"), ("p", "c", "c")), {"s": None})
    assert built.pairs.select("chosen_id", "rejected_id").rows() == [("a", "b"), ("b", "a")]
    assert built.rejects.select("row_id", "rule", "value").rows() == [
        ("s#3", "chosen_equals_rejected", None),
        ("s#2", "duplicate_pair", "s#0"),
    ]


def test_pairs_that_contradict_each_other_are_both_rejected() -> None:
    built = without_conflicts(
        provided_pairs(inputs(("p", "a", "b"), ("p", "b", "a"), ("p", "a", "c")), {"s": None}).pairs
    )
    assert built.pairs.select("chosen_id", "rejected_id").rows() == [("a", "c")]
    assert built.rejects["rule"].to_list() == ["contradictory_pair", "contradictory_pair"]


def test_a_pair_of_known_order_outlives_one_that_contradicts_it() -> None:
    rows = [("p", "a", "b", "constructed"), ("p", "b", "a", "all"),
            ("q", "a", "b", "constructed"), ("q", "b", "a", "refusal_vs_compliance"),
            ("r", "a", "b", "all"), ("r", "b", "a", "provided")]  # fmt: skip
    pairs = pl.DataFrame(rows, schema=[*PAIR_KEY, "strategy"], orient="row").with_columns(
        pair_id=pl.concat_str(*PAIR_KEY)
    )
    built = without_conflicts(pairs)
    assert built.pairs.drop("pair_id").rows() == [rows[0]]
    assert built.pairs.columns == pairs.columns
    assert built.rejects["row_id"].to_list() == ["pba", "qab", "qba", "rab", "rba"]
    said = built.rejects["reason"].to_list()
    assert said[0] == "pair pab says the opposite of the same two answers, and its order is known"
    assert not any("known" in reason for reason in said[1:])


def test_duplicate_prompts_with_different_answers_stay_different_pairs() -> None:
    assert provided_pairs(inputs(("p", "a", "b"), ("p", "a", "c")), {"s": None}).pairs.height == 2


def test_a_pair_of_several_strategies_is_under_one_that_knows_its_order() -> None:
    rows = [("p", "all", 1.0), ("q", "all", 2.0), ("p", "constructed", None), ("q", "first_round", 2.0),
            ("p", "refusal_vs_compliance", None)]  # fmt: skip
    pairs = pl.DataFrame(rows, schema=["pair_id", "strategy", "margin"], orient="row")
    assert once_each(pairs).rows() == [("p", "constructed", 1.0), ("q", "all", 2.0)]

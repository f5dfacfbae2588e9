"""Every strategy against a slow and obvious implementation."""

from __future__ import annotations

import itertools
import math

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.errors import InputError
from curation.pairs.construction import build_pairs, pair_ids
from curation.text import content_hash, pair_id
from tests.pairs.test_construction import chosen, frame, tables, usable

Answers = list[tuple[float, str]]
margins = st.sampled_from([0.0, 1.0, 2.5])


def best_first(group: Answers) -> Answers:
    return sorted(group, key=lambda answer: (-answer[0], answer[1]))


def number(identifier: str, seed: int) -> int:
    """The seeded draw, in plain integers."""
    multiplier = (0x9E3779B97F4A7C15 * (2 * seed + 1)) % 2**31 | 1
    return int(identifier[:7], 16) * multiplier % 2_147_483_647


@given(tables, margins)
def test_best_vs_median_equals_a_plain_loop(rows: list, margin: float) -> None:
    expected = set()
    for group in usable(rows).values():
        order = best_first(group)
        median = order[len(order) // 2]
        if len(order) > 1 and order[0][0] - median[0] > margin:
            expected.add((order[0][1], median[1]))
    assert chosen(build_pairs(frame(rows), strategy="best_vs_median", min_margin=margin)) == expected


@given(tables, margins)
def test_best_vs_each_equals_a_plain_loop(rows: list, margin: float) -> None:
    expected = set()
    for group in usable(rows).values():
        best, *others = best_first(group)
        expected |= {(best[1], other[1]) for other in others if best[0] - other[0] > margin}
    assert chosen(build_pairs(frame(rows), strategy="best_vs_each", min_margin=margin)) == expected


def test_best_vs_each_gives_the_gaps_of_curry_dpo() -> None:
    rows = [("p", content_hash(str(s)), float(s)) for s in (5, 4, 3, 2)]
    assert build_pairs(frame(rows), strategy="best_vs_each").pairs["margin"].to_list() == [3.0, 2.0, 1.0]


@given(tables, margins, st.integers(0, 3))
def test_best_vs_random_equals_a_plain_loop(rows: list, margin: float, seed: int) -> None:
    expected = set()
    for group in usable(rows).values():
        best, *others = best_first(group)
        lower = [answer for answer in others if best[0] - answer[0] > margin]
        if lower:
            expected.add((best[1], min(lower, key=lambda a: (-number(a[1], seed), a[1]))[1]))
    assert chosen(build_pairs(frame(rows), strategy="best_vs_random", min_margin=margin, seed=seed)) == expected


@given(tables, margins)
def test_margin_window_equals_a_plain_loop(rows: list, margin: float) -> None:
    built = build_pairs(frame(rows), strategy="margin_window", min_margin=margin, max_margin=margin + 1.5)
    assert chosen(built) == {
        (a[1], b[1])
        for group in usable(rows).values()
        for a, b in itertools.permutations(group, 2)
        if margin < a[0] - b[0] <= margin + 1.5
    }


@given(tables, margins, st.integers(0, 3), st.sampled_from(["first_round", "tournament"]))
def test_tournaments_equal_a_plain_loop(rows: list, margin: float, seed: int, strategy: str) -> None:
    expected, undecided = set(), set()
    for prompt, group in usable(rows).items():
        playing = sorted(group, key=lambda a: (number(a[1], seed), a[1]))
        while len(playing) > 1:
            winners = []
            for one, other in itertools.zip_longest(playing[::2], playing[1::2]):
                if other is None:
                    winners.append(one)
                    continue
                better, worse = best_first([one, other])
                winners.append(better)
                if better[0] - worse[0] > margin:
                    expected.add((better[1], worse[1]))
                else:
                    undecided.add(pair_id(prompt, better[1], worse[1]))
            playing = winners if strategy == "tournament" else []
    built = build_pairs(frame(rows), strategy=strategy, min_margin=margin, seed=seed)  # type: ignore[arg-type]
    assert chosen(built) == expected
    matches = built.rejects.filter(pl.col("table") == "pairs")
    assert set(matches["row_id"]) == undecided
    assert set(matches["rule"]) <= {"match_tied", "match_too_close"}
    if strategy == "first_round":
        used = pl.concat([built.pairs["chosen_id"], built.pairs["rejected_id"]])
        assert used.n_unique() == len(used)


@given(tables, margins, st.integers(1, 4))
def test_diverse_pairs_equal_a_plain_loop(rows: list, margin: float, count: int) -> None:
    expected = set()
    for group in usable(rows).values():
        order = best_first(group)
        place = {answer[1]: i for i, answer in enumerate(order)}
        left = [(a, b) for a, b in itertools.combinations(order, 2) if a[0] - b[0] > margin]
        uses = dict.fromkeys(place, 0)
        for _ in range(count):
            if not left:
                break
            pick = min(
                left,
                key=lambda p: (uses[p[0][1]] + uses[p[1][1]], p[1][0] - p[0][0], place[p[0][1]], place[p[1][1]]),
            )
            left.remove(pick)
            expected.add((pick[0][1], pick[1][1]))
            for answer in pick:
                uses[answer[1]] += 1
    built = build_pairs(frame(rows), strategy="diverse", min_margin=margin, per_prompt=count)
    assert chosen(built) == expected


ALL = ("best_vs_median", "best_vs_each", "margin_window", "first_round", "tournament", "diverse")


@pytest.mark.parametrize("strategy", ALL)
@given(rows=tables, random=st.randoms())
def test_order_does_not_matter_and_every_prompt_is_accounted_for(strategy: str, rows: list, random: object) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    built = build_pairs(frame(rows), strategy=strategy)  # type: ignore[arg-type]
    assert chosen(built) == chosen(build_pairs(frame(shuffled), strategy=strategy))  # type: ignore[arg-type]
    without = set(built.rejects.filter(pl.col("table") == "prompts")["row_id"])
    paired = set(built.pairs["prompt_id"])
    assert paired.isdisjoint(without)
    assert paired | without == {p for p, _, _ in rows}
    unscored = set(built.rejects.filter(pl.col("rule") == "no_score")["row_id"])
    assert unscored == {c for _, c, s in rows if s is None or not math.isfinite(s)}
    assert (built.pairs["margin"] > 0).all()
    assert (built.pairs["chosen_id"] != built.pairs["rejected_id"]).all()


def test_a_prompt_whose_margins_miss_the_window_says_so() -> None:
    rows = frame([("p", content_hash("a"), 9.0), ("p", content_hash("b"), 0.0)])
    rejects = build_pairs(rows, strategy="margin_window", max_margin=2.0).rejects
    assert rejects.select("row_id", "rule", "value").rows() == [("p", "margin_outside_window", "9.0")]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"strategy": "best_vs_wurst"}, "did you mean 'best_vs_worst'"),
        ({"min_margin": -1.0}, "min_margin is -1.0"),
        ({"min_margin": math.nan}, "min_margin is nan"),
        ({"min_margin": 1.0, "max_margin": 1.0}, "max_margin is 1.0, expected more than min_margin"),
        ({"per_prompt": 0}, "per_prompt is 0"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict, said: str) -> None:
    with pytest.raises(InputError, match=said):
        build_pairs(frame([]), **options)


def test_identifiers_are_hashed_the_same_way_in_bulk() -> None:
    keys = [tuple(content_hash(side, str(i)) for side in "pcr") for i in range(5)]
    rows = pl.DataFrame(keys, schema=["prompt_id", "chosen_id", "rejected_id"], orient="row")
    assert pair_ids(rows)["pair_id"].to_list() == [pair_id(*key) for key in keys]

"""Caps, mixtures and curricula, against plain loops."""

from __future__ import annotations

import math
from typing import Any

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from curation.errors import InputError
from curation.pairs.curriculum import EASY_WHEN, arrange
from curation.pairs.mixture import cap_per_prompt, mix_pairs
from curation.text import content_hash
from tests.pairs.test_strategies import number

rows = st.lists(
    st.tuples(
        st.sampled_from("pqr"),
        st.sampled_from(["a", "b", None]),
        st.sampled_from(["x", "y", None]),
        st.one_of(st.none(), st.just(math.nan), st.integers(-3, 3).map(float)),
    ),
    max_size=16,
)


def frame(given_rows: list[tuple[Any, ...]]) -> pl.DataFrame:
    return pl.DataFrame(
        [(content_hash("pair", str(i)), *row) for i, row in enumerate(given_rows)],
        schema={
            "pair_id": pl.String,
            "prompt_id": pl.String,
            "source": pl.String,
            "category": pl.String,
            "strength_mean": pl.Float64,
        },
        orient="row",
    )


def finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


@settings(max_examples=60)
@given(rows, st.integers(1, 3))
def test_a_cap_keeps_the_strongest_of_each_prompt(given_rows: list, limit: int) -> None:
    pairs = frame(given_rows)
    expected = set()
    for prompt in "pqr":
        group = [r for r in pairs.iter_rows(named=True) if r["prompt_id"] == prompt]
        group.sort(key=lambda r: (-(finite(r["strength_mean"]) or 0.0) if finite(r["strength_mean"]) is not None
                                  else math.inf, r["pair_id"]))  # fmt: skip
        expected |= {r["pair_id"] for r in group[:limit]}
    capped = cap_per_prompt(pairs, limit=limit)
    assert set(capped.kept["pair_id"]) == expected
    assert capped.kept["pair_id"].to_list() == [i for i in pairs["pair_id"] if i in expected]
    assert set(capped.rejects["row_id"]) == set(pairs["pair_id"]) - expected
    assert set(capped.rejects["rule"]) <= {"over_prompt_cap"}


weights = st.dictionaries(st.sampled_from(["a", "b", "none", "absent"]), st.integers(0, 3), max_size=4)


def slow_mixture(
    pairs: pl.DataFrame, sources: dict, categories: dict, total: int | None, seed: int
) -> tuple[set[str], dict[tuple[str, ...], int]]:
    """Kept pairs, and what is wanted of each group."""
    cells: dict[tuple[str, ...], float] = {(): 1.0}
    columns = []
    for column, given_weights in (("source", sources), ("category", categories)):
        if given_weights:
            columns.append(column)
            cells = {(*cell, name): w * v for cell, w in cells.items() for name, v in given_weights.items()}
    groups: dict[tuple[str, ...], list[str]] = {cell: [] for cell in cells}
    for row in pairs.iter_rows(named=True):
        cell = tuple(row[c] or "none" for c in columns)
        if cell in groups:
            groups[cell].append(row["pair_id"])
    if total is None:
        scales = [len(groups[c]) / w for c, w in cells.items() if w > 0 and groups[c]]
        wanted = {c: math.floor(w * min(scales, default=0.0) + 1e-9) for c, w in cells.items()}
    else:
        exact = {c: w * total / sum(cells.values()) for c, w in cells.items()}
        wanted = {c: math.floor(e + 1e-9) for c, e in exact.items()}
        rest = total - sum(wanted.values())
        for cell in sorted(cells, key=lambda c: -round(exact[c] - wanted[c], 9))[:rest]:
            wanted[cell] += 1
    kept = set()
    for cell, members in groups.items():
        kept |= set(sorted(members, key=lambda i: (number(i, seed), i))[: wanted[cell]])
    return kept, wanted


@settings(max_examples=120)
@given(rows, weights, weights.map(lambda w: {{"a": "x", "b": "y"}.get(k, k): v for k, v in w.items()}),
       st.one_of(st.none(), st.integers(1, 20)), st.integers(0, 2))  # fmt: skip
@example([], {"a": 1, "b": 1, "none": 2, "absent": 3}, {"x": 1, "y": 1, "none": 3}, 14, 0)
def test_a_mixture_equals_a_plain_loop(
    given_rows: list, sources: dict, categories: dict, total: int | None, seed: int
) -> None:
    pairs = frame(given_rows)
    if not (sources or categories) or any(w and not sum(w.values()) for w in (sources, categories)):
        with pytest.raises(InputError):
            mix_pairs(pairs, sources=sources, categories=categories, rows=total, seed=seed)
        return
    mixed = mix_pairs(pairs, sources=sources, categories=categories, rows=total, seed=seed)
    kept, wanted = slow_mixture(pairs, sources, categories, total, seed)
    shares = {
        tuple(v for v in (r["source"], r["category"]) if v is not None): r
        for r in mixed.shares.iter_rows(named=True)
    }
    assert {cell: row["wanted"] for cell, row in shares.items()} == wanted
    assert set(mixed.kept["pair_id"]) == kept
    assert mixed.kept["pair_id"].n_unique() == mixed.kept.height
    assert set(mixed.rejects["row_id"]) == set(pairs["pair_id"]) - kept
    assert sum(row["short"] for row in shares.values()) == sum(wanted.values()) - len(kept)


def test_a_group_that_falls_short_is_reported_and_not_padded() -> None:
    pairs = frame([("p", "a", None, 1.0)] * 2 + [("p", "b", None, 1.0)] * 10)
    mixed = mix_pairs(pairs, sources={"a": 1, "b": 1}, rows=10)
    assert mixed.shares.select("source", "found", "wanted", "kept", "short").rows() == [
        ("a", 2, 5, 2, 3),
        ("b", 10, 5, 5, 0),
    ]
    assert mixed.kept.height == 7


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "needs weights"),
        ({"sources": {"a": -1}}, "weight of source 'a' is -1"),
        ({"sources": {"a": math.nan}}, "weight of source 'a' is nan"),
        ({"categories": {"x": 0}}, "nothing would be left"),
        ({"sources": {"a": 1}, "rows": 0}, "a mixture of 0 rows"),
    ],
)
def test_weights_that_make_no_sense_are_refused(options: dict, said: str) -> None:
    with pytest.raises(InputError, match=said):
        mix_pairs(frame([]), **options)


@settings(max_examples=80)
@given(rows, st.booleans(), st.booleans(), st.integers(1, 4), st.sampled_from(["margin", "difficulty"]))
def test_a_curriculum_equals_a_plain_loop(given_rows: list, hard: bool, within: bool, tiers: int, by: str) -> None:
    pairs = frame(given_rows).rename({"strength_mean": by})
    sign = -1 if (EASY_WHEN[by] == "high") != hard else 1
    order = sorted(
        pairs.to_dicts(),
        key=lambda r: (finite(r[by]) is None, sign * (finite(r[by]) or 0.0), r["pair_id"]),
    )
    tier = {}
    seen: dict[str, int] = {}
    for place, row in enumerate(order):
        one = seen.setdefault(row["prompt_id"], 0)
        seen[row["prompt_id"]] += 1
        tier[row["pair_id"]] = min(one, tiers - 1) if within else place * tiers // len(order)
        if finite(row[by]) is None:
            tier[row["pair_id"]] = tiers - 1
    arranged = arrange(pairs, by=by, hardest_first=hard, tiers=tiers, within_prompt=within)
    expected = sorted(order, key=lambda r: tier[r["pair_id"]])
    assert arranged.pairs["pair_id"].to_list() == [r["pair_id"] for r in expected]
    assert arranged.pairs["curriculum_tier"].to_list() == [tier[r["pair_id"]] for r in expected]
    assert arranged.pairs["curriculum_order"].to_list() == list(range(len(order)))
    assert arranged.missing == sum(finite(r[by]) is None for r in order)
    shuffled = arrange(pairs.reverse(), by=by, hardest_first=hard, tiers=tiers, within_prompt=within)
    assert shuffled.pairs.equals(arranged.pairs)


def test_curry_dpo_goes_from_the_largest_gap_to_the_smallest() -> None:
    from curation.pairs.construction import build_pairs

    answers = [(p, content_hash(p, str(s)), float(s)) for p in ("one", "two") for s in (5, 4, 3, 2)]
    schema = ["prompt_id", "candidate_id", "score"]
    built = build_pairs(pl.DataFrame(answers, schema=schema, orient="row"), strategy="best_vs_each")
    found = arrange(built.pairs, by="margin", tiers=3, within_prompt=True).pairs
    assert found["margin"].to_list() == [3.0, 3.0, 2.0, 2.0, 1.0, 1.0]
    assert found["curriculum_tier"].to_list() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"by": "strenght_mean"}, "did you mean 'strength_mean'"),
        ({"by": "difficulty"}, "no column 'difficulty'"),
        ({"by": "strength_mean", "tiers": 0}, "a curriculum of 0 tiers"),
    ],
)
def test_a_curriculum_by_what_is_not_there_is_refused(options: dict, said: str) -> None:
    with pytest.raises(InputError, match=said):
        arrange(frame([]), **options)

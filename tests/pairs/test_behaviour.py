"""Pairs by what the answers do, against plain loops."""

from __future__ import annotations

import math
from typing import Any

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.pairs.behaviour import fault_pairs, forget_pairs, refusal_pairs
from curation.recipe.pairs import Pairs
from curation.refusals.faults import judged_rows, turned_round
from curation.text import content_hash
from tests.pairs.test_strategies import number

CLASSES = ("full_refusal", "partial_refusal", "compliance", None)
EXPECTED = {"p": "refuse", "q": "comply", "r": None}
answers = st.lists(
    st.tuples(
        st.sampled_from("pqr"), st.integers(0, 30), st.sampled_from(CLASSES), st.sampled_from([0.0, 0.3, 0.8, 1.0])
    ),
    max_size=14,
    unique_by=lambda row: (row[0], row[1]),
)


def frame(rows: list[tuple[str, int, str | None, float]]) -> pl.DataFrame:
    return pl.DataFrame(
        [(p, content_hash(p, str(c)), EXPECTED[p], kind, share) for p, c, kind, share in rows],
        schema={
            "prompt_id": pl.String,
            "candidate_id": pl.String,
            "expected_behaviour": pl.String,
            "refusal_class": pl.String,
            "refusal_probability": pl.Float64,
        },
        orient="row",
    )


def surest(rows: list[dict[str, Any]], kind: str, least: float) -> list[str]:
    found = []
    for row in rows:
        sure = row["refusal_probability"] if kind == "full_refusal" else 1 - row["refusal_probability"]
        if row["refusal_class"] == kind and sure >= least:
            found.append((-sure, row["candidate_id"]))
    return [identifier for _, identifier in sorted(found)]


@settings(max_examples=60)
@given(answers, st.integers(1, 3), st.sampled_from([0.0, 0.5]))
def test_refusal_pairs_equal_a_plain_loop(rows: list, count: int, least: float) -> None:
    table = frame(rows)
    expected, without = set(), {}
    for prompt in dict.fromkeys(table["prompt_id"]):
        group = table.filter(pl.col("prompt_id") == prompt).to_dicts()
        refusing, complying = (surest(group, kind, least) for kind in ("full_refusal", "compliance"))
        if EXPECTED[prompt] is None:
            without[prompt] = "expected_behaviour_unknown"
        elif not refusing:
            without[prompt] = "no_refusal"
        elif not complying:
            without[prompt] = "no_compliance"
        else:
            both = list(zip(refusing, complying, strict=False))[:count]
            expected |= {pair if EXPECTED[prompt] == "refuse" else pair[::-1] for pair in both}
    built = refusal_pairs(table, per_prompt=count, min_certainty=least)
    assert set(built.pairs.select("chosen_id", "rejected_id").rows()) == expected
    assert dict(built.rejects.select("row_id", "rule").rows()) == without


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.sampled_from("pqr"), st.integers(0, 30), st.sampled_from(["provided", "template", "generated"])
        ),
        max_size=14,
        unique_by=lambda row: (row[0], row[1]),
    ),
    st.integers(0, 3),
)
def test_forget_pairs_equal_a_plain_loop(rows: list, seed: int) -> None:
    named = [(p, content_hash(p, str(c)), origin) for p, c, origin in rows]
    expected, without = set(), {}
    for prompt in dict.fromkeys(p for p, _, _ in named):
        templates = sorted(c for p, c, origin in named if p == prompt and origin == "template")
        forget = [c for p, c, origin in named if p == prompt and origin == "provided"]
        if not templates:
            without[prompt] = "no_template"
        elif not forget:
            without[prompt] = "nothing_to_forget"
        expected |= {(templates[number(c, seed) % len(templates)], c) for c in forget if templates}
    table = pl.DataFrame(
        named, schema=dict.fromkeys(("prompt_id", "candidate_id", "origin"), pl.String), orient="row"
    )
    built = forget_pairs(table, seed=seed)
    assert set(built.pairs.select("chosen_id", "rejected_id").rows()) == expected
    assert dict(built.rejects.select("row_id", "rule").rows()) == without


@settings(max_examples=60)
@given(answers)
def test_fault_pairs_equal_a_plain_loop(rows: list) -> None:
    table = frame(rows).with_columns(messages=pl.lit(None), category=pl.lit(None), response=pl.lit(""))
    table = table.with_row_index("called_wrong").with_columns(pl.col("called_wrong") % 3 == 1)
    judged = judged_rows(table.filter(pl.col("refusal_class").is_not_null()))
    built = fault_pairs(turned_round(judged), judged)
    expected = []
    for prompt in "pq":
        right: list[tuple[float, str]] = []
        wrong = []
        for row in table.filter(prompt_id=prompt).iter_rows(named=True):
            kind, refuses = row["refusal_class"], row["refusal_class"] != "compliance"
            if kind is None:
                continue
            sure = row["refusal_probability"] if refuses else 1 - row["refusal_probability"]
            if sure < 0.6:
                continue
            if refuses == (prompt == "p"):
                if kind != "partial_refusal" and (refuses or not row["called_wrong"]):
                    right.append((-sure, row["candidate_id"]))
            else:
                wrong.append(row["candidate_id"])
        expected += [(prompt, min(right)[1], loser) for loser in wrong if right]
    found = built.pairs.select("prompt_id", "chosen_id", "rejected_id").rows()
    assert sorted(found) == sorted(expected)
    named = set(found and [row[0] for row in found]) | set(built.rejects["row_id"])
    assert named == set(judged["prompt_id"])


def test_an_answer_that_may_refuse_is_no_compliance_by_default() -> None:
    """ "No." and "Not allowed." have the logit -0.4: compliance is likelier, and far from sure."""
    rows = frame([("q", 1, "full_refusal", 1.0), ("q", 2, "compliance", 1 / (1 + math.exp(0.4)))])
    built = refusal_pairs(rows, min_certainty=Pairs().min_refusal_certainty)
    assert built.pairs.is_empty()
    assert built.rejects["rule"].to_list() == ["no_compliance"]

"""Validation on the way into a table."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.tables import concat_rejects, validated
from schemas import TABLES

A, B, C = ("a" * 32, "b" * 32, "c" * 32)


def pairs(**changes: list[object]) -> pl.DataFrame:
    columns = {
        "pair_id": [A, B],
        "prompt_id": [C, C],
        "chosen_id": [A, A],
        "rejected_id": [B, B],
        "strategy": ["provided", "provided"],
    }
    return pl.DataFrame(columns | changes)


def test_good_rows_pass_with_their_extra_columns() -> None:
    result = validated("pairs", pairs(extra=[1, 2]), stage="pairs")
    assert result.kept["extra"].to_list() == [1, 2]
    assert result.rejects.is_empty()


def test_chosen_equal_to_rejected_is_rejected_by_name() -> None:
    result = validated("pairs", pairs(rejected_id=[B, A], extra=[1, 2]), stage="pairs")
    assert result.kept["extra"].to_list() == [1]
    assert result.rejects.select("table", "row_id", "rule", "stage").rows() == [
        ("pairs", B, "chosen_is_not_rejected", "pairs")
    ]


def test_a_duplicated_key_rejects_every_row_with_it() -> None:
    result = validated("pairs", pairs(pair_id=[A, A]), stage="pairs")
    assert result.kept.is_empty()
    assert result.rejects["rule"].to_list() == ["primary_key"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.1, 1.1, None])
def test_a_probability_is_finite_and_between_0_and_1(value: float | None) -> None:
    frame = pl.DataFrame(
        {
            "candidate_id": [A],
            "detector": ["d"],
            "refusal_probability": pl.Series([value], dtype=pl.Float64),
            "refusal_class": ["compliance"],
            "refusal_kind": pl.Series([None], dtype=pl.String),
            "refusal_category": pl.Series([None], dtype=pl.String),
            "refusal_truncated": [False],
        }
    )
    result = validated("refusals", frame, stage="refusals")
    assert result.kept.is_empty()
    assert result.rejects["rule"][0].startswith("refusal_probability_")


def test_an_unknown_role_is_rejected() -> None:
    none = pl.Series([None, None], dtype=pl.String)
    messages = [[{"role": "user", "content": "x"}], [{"role": "human", "content": "x"}]]
    frame = pl.DataFrame(
        {
            "prompt_id": [A, B],
            "messages": messages,
            "source": "s",
            "category": none,
            "expected_behaviour": pl.Series([None, "refuse"], dtype=pl.String),
            "family_id": [A, B],
            "parent_id": none,
            "mutation": none,
            "group_id": none,
            "split_plan": none,
            "split": "train",
        }
    )
    result = validated("prompts", frame, stage="prompts")
    assert result.kept["prompt_id"].to_list() == [A]
    assert result.rejects["row_id"].to_list() == [B]


def test_vectors_of_one_model_have_one_width() -> None:
    frame = pl.DataFrame(
        {
            "text_id": [A, B, C],
            "model": ["m", "m", "n"],
            "vector": pl.Series([[1.0, 2.0], [1.0], [1.0]], dtype=pl.List(pl.Float32)),
            "truncated": False,
        }
    )
    result = validated("embeddings", frame, stage="embeddings")
    assert result.kept["text_id"].to_list() == [A, C]
    assert result.rejects["rule"].to_list() == ["one_width_per_model"]


@given(st.lists(st.tuples(st.sampled_from([A, B, C, "x", None]), st.sampled_from([A, B])), max_size=8))
def test_every_row_is_kept_or_its_key_is_rejected(rows: list[tuple[str | None, str]]) -> None:
    frame = pl.DataFrame(
        {
            "pair_id": pl.Series([r[0] for r in rows], dtype=pl.String),
            "prompt_id": pl.Series([C] * len(rows), dtype=pl.String),
            "chosen_id": pl.Series([A] * len(rows), dtype=pl.String),
            "rejected_id": pl.Series([r[1] for r in rows], dtype=pl.String),
            "strategy": pl.Series(["s"] * len(rows), dtype=pl.String),
        }
    )
    result = validated("pairs", frame, stage="pairs")
    rejected = set(result.rejects["row_id"].to_list())
    kept = set(result.kept["pair_id"].to_list())
    assert kept.isdisjoint(rejected)
    assert {r[0] or "" for r in rows} == kept | rejected


def test_every_table_has_a_key_and_a_docstring() -> None:
    for name, schema in TABLES.items():
        assert schema.primary_key(), name
        assert schema.__doc__, name


def test_rejects_of_several_stages_are_one_frame() -> None:
    one = validated("pairs", pairs(pair_id=[A, "x"]), stage="pairs").rejects
    assert concat_rejects(one, one.clear()).height == 1

"""Columns of texts and messages say the same as the functions for one text."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from curation.prompts.shapes import MESSAGES_DTYPE
from curation.text import content_hash, messages_text, normalise, prompt_id, response_id
from curation.text_columns import (
    message_texts,
    nested_series,
    normalised,
    prompt_ids,
    response_id_lists,
    response_ids,
    text_ids,
)

# White space of every kind, what Unicode puts together, and ends of lines as different systems write them.
ODD = [
    " ",
    "\n",
    "\r",
    "\r\n",
    "\t",
    "\x0b",
    "\x0c",
    "\x1c",
    "\x1f",
    "\x85",
    "\u00a0",
    "\u2028",
    "\u3000",
    "\u200b",
    "\ufeff",
]
LETTERS = st.one_of(
    st.sampled_from([*ODD, "a", "B ", " c", "e\u0301", "\u00e9", "\u1e9b\u0323"]), st.characters(codec="utf-8")
)
TEXTS = st.lists(LETTERS, max_size=8).map("".join)
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant"]), "content": TEXTS}),
    max_size=3,
)


@given(st.lists(TEXTS, max_size=6))
@example([" a \n b  ", "a\x1c", "\x1f", "x\t\ny", "a\r\nb ", "", " ", "\n \n"])
def test_texts_are_normalised_and_named_as_one_by_one(texts: list[str]) -> None:
    column = pl.Series("text", texts, dtype=pl.String)
    assert normalised(column).to_list() == [normalise(text) for text in texts]
    assert text_ids(column).to_list() == [content_hash("text", normalise(text)) for text in texts]
    prompts = pl.Series(
        [prompt_id([{"role": "user", "content": str(n)}]) for n in range(len(texts))], dtype=pl.String
    )
    expected = [response_id(prompt, text) for prompt, text in zip(prompts, texts, strict=True)]
    assert response_ids(prompts, column).to_list() == expected


@given(st.lists(MESSAGES, max_size=5))
def test_messages_are_named_and_read_as_one_by_one(messages: list[list[dict[str, str]]]) -> None:
    column = pl.Series("messages", messages, dtype=MESSAGES_DTYPE)
    assert prompt_ids(column).to_list() == [prompt_id(m) for m in messages]
    assert message_texts(column).to_list() == [messages_text(m) for m in messages]


@given(st.lists(st.lists(TEXTS, max_size=3), max_size=5))
def test_lists_of_answers_are_named_as_one_by_one(answers: list[list[str]]) -> None:
    prompts = pl.Series([f"{n:032x}" for n in range(len(answers))], dtype=pl.String)
    found = response_id_lists(prompts, pl.Series("responses", answers, dtype=pl.List(pl.String)))
    assert found.dtype == pl.List(pl.String)
    assert found.to_list() == [[response_id(p, r) for r in some] for p, some in zip(prompts, answers, strict=True)]


def test_nulls_stay_null() -> None:
    assert normalised(pl.Series([None, "a ", None], dtype=pl.String)).to_list() == [None, "a", None]
    assert message_texts(pl.Series([None], dtype=MESSAGES_DTYPE)).to_list() == [None]


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([["a", "b"], [], None], pl.List(pl.String)),
        ([[1.0, None], None], pl.List(pl.Float64)),
        ([[{"role": "user", "content": "\u00e9"}], []], MESSAGES_DTYPE),
        ([True, None], pl.Boolean()),
        ([], pl.List(pl.String)),
    ],
)
def test_a_nested_column_is_what_polars_makes_of_it(values: list[object], dtype: pl.DataType) -> None:
    made = nested_series("c", values, dtype)
    assert made.dtype == dtype
    assert made.equals(pl.Series("c", values, dtype=dtype), check_names=True, null_equal=True)

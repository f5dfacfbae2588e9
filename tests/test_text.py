"""Normalisation, identifiers and messages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.text import as_messages, content_hash, fault_in_text, normalise, prompt_id, response_id

texts = st.text(st.characters(exclude_categories=["Cs"]))


@given(texts)
def test_normalise_is_idempotent(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


def test_normalise_keeps_case_and_indentation() -> None:
    assert normalise("If x:\n    return Y") == "If x:\n    return Y"
    assert normalise("if x:\n  return Y") != normalise("if x:\nreturn Y")


def test_normalise_unifies_line_ends_and_composed_letters() -> None:
    assert normalise("caf\u0065\u0301 \r\nbar\t\n") == "café\nbar"


@pytest.mark.parametrize(("one", "other"), [("10²", "102"), ("1½", "11⁄2"), ("ﬁne", "fine"), ("１", "1")])
def test_normalise_keeps_what_may_mean_something_else(one: str, other: str) -> None:
    assert normalise(one) != normalise(other)


@given(st.lists(texts, max_size=4), st.lists(texts, max_size=4))
def test_content_hash_tells_parts_apart(left: list[str], right: list[str]) -> None:
    assert (content_hash(*left) == content_hash(*right)) == (left == right)


def test_content_hash_takes_lone_surrogates() -> None:
    assert len(content_hash("\ud800")) == 32


def test_identifiers_depend_on_role_and_prompt() -> None:
    user, system = (
        prompt_id([{"role": "user", "content": "a"}]),
        prompt_id([{"role": "system", "content": "a"}]),
    )
    assert user != system
    assert response_id(user, "x") != response_id(system, "x")
    assert response_id(user, "x") == response_id(user, " x\n")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (3, "expected a string or a list of messages, found a number"),
        (["hello"], "message 0 is text"),
        ([{"role": "user"}], "message 0 has no text content"),
        ([{"role": "human", "content": "x"}], "message 0 has role 'human', expected one of system"),
    ],
)
def test_as_messages_says_what_is_wrong(value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        as_messages(value)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (None, "null"),
        (" \n\t", "empty"),
        ("\u200b \ufeff\u2003", "empty"),
        ("\ufe0f\u200d", "empty"),
        ("\u3164\uffa0\u115f", "empty"),
        ("\u2800\u2067\u202e\u2069", "empty"),
        ("\u2764\ufe0f", None),
        ("\u1112\u1161", None),
        ("\u200ba", None),
        ("a\x00b", "nul_character"),
        ("a\udc00", "invalid_unicode"),
        ("a", None),
    ],
)
def test_fault_in_text(text: str | None, rule: str | None) -> None:
    assert fault_in_text(text) == rule

"""Dialogues that are stored a message a row become prompts with their answers, and nothing is passed over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from curation.errors import InputError
from curation.prompts.sources import SourceRows, read_source

MESSAGES = [
    {"message_id": "q", "parent_id": None, "role": "prompter", "text": "one?", "rank": None},
    {"message_id": "bad", "parent_id": "q", "role": "assistant", "text": "no", "rank": 1},
    {"message_id": "more", "parent_id": "good", "role": "prompter", "text": "why?", "rank": 0},
    {"message_id": "good", "parent_id": "q", "role": "assistant", "text": "yes", "rank": 0},
    {"message_id": "deep", "parent_id": "more", "role": "assistant", "text": "so", "rank": None},
]


def read(folder: Path, rows: list[dict[str, Any]], **options: Any) -> SourceRows:
    path = folder / "in.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_source(str(path), name="mine", format="tree", **options)


def test_replies_to_a_message_are_the_answers_to_the_dialogue_down_to_it(tmp_path: Path) -> None:
    found = read(tmp_path, MESSAGES, columns={"score": "rank"}, lower_is_better=True)

    assert found.rows["responses"].to_list() == [["no", "yes"], ["so"]]
    assert found.rows["scores"].to_list() == [[-1.0, 0.0], None]
    turns = [[(m["role"], m["content"]) for m in prompt] for prompt in found.rows["messages"].to_list()]
    assert turns == [[("user", "one?")], [("user", "one?"), ("assistant", "yes"), ("user", "why?")]]
    assert found.rows["row"].to_list() == [1, 4]
    assert found.rows_read == 5
    assert found.rejects.height == 0
    assert found.read_as.endswith("from message_id, parent_id, text, role, rank; 0 that nobody answered")


def test_a_message_that_nobody_answered_is_counted_and_no_fault(tmp_path: Path) -> None:
    rows = [
        {"message_id": "rules", "parent_id": None, "role": "system", "text": "Be kind.", "lang": "en"},
        {**MESSAGES[0], "parent_id": "rules"},
        *MESSAGES[1:],
        {"message_id": "leaf", "parent_id": "deep", "role": "prompter", "text": "and then?"},
        {"message_id": "alone", "parent_id": None, "role": "prompter", "text": "anyone?"},
    ]

    found = read(tmp_path, rows)

    assert found.rejects.height == 0
    assert found.read_as.endswith("; 2 that nobody answered; not read: lang, rank")
    assert [m["content"] for m in found.rows["messages"][0]] == ["Be kind.", "one?"]


def test_every_message_that_no_prompt_is_made_of_has_a_reason(tmp_path: Path) -> None:
    rows = [
        *MESSAGES,
        {"message_id": "lost", "parent_id": "gone", "role": "assistant", "text": "x"},
        {"message_id": "odd", "parent_id": "q", "role": "asistant", "text": "x"},
        {"message_id": "top", "parent_id": None, "role": "assistant", "text": "x"},
        {"message_id": "again", "parent_id": "good", "role": "assistant", "text": "x"},
        MESSAGES[0],
        {"message_id": None, "parent_id": "q", "role": "assistant", "text": "x"},
        {"message_id": "round", "parent_id": "circle", "role": "prompter", "text": "x"},
        {"message_id": "circle", "parent_id": "round", "role": "assistant", "text": "x"},
    ]

    found = read(tmp_path, rows)

    assert found.rows.height == 2
    assert found.rejects.select("row", "rule").rows() == [
        (5, "no_parent"),
        (6, "unknown_role"),
        (7, "null_prompt"),
        (8, "no_user_turn"),
        (9, "repeated_message_id"),
        (10, "null_message_id"),
        (12, "no_parent"),
    ]


def test_answers_to_one_of_two_messages_with_an_identifier_are_no_answers_to_the_other(tmp_path: Path) -> None:
    found = read(tmp_path, [*MESSAGES, {**MESSAGES[0], "text": "another?"}])

    assert found.rows.height == 0
    assert found.rejects.select("row", "rule").rows() == [
        (0, "repeated_message_id"),
        (1, "no_parent"), (3, "no_parent"), (4, "no_parent"),
        (5, "repeated_message_id"),
    ]  # fmt: skip


def test_a_column_that_is_missing_or_not_of_a_tree_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no column 'id', which columns\.message_id names"):
        read(tmp_path, MESSAGES, columns={"message_id": "id"})
    with pytest.raises(InputError, match=r"columns\.prompt is not used: with format tree"):
        read(tmp_path, MESSAGES, columns={"prompt": "text"})
    with pytest.raises(InputError, match=r"'role' \(columns\.score\) holds String, expected numbers"):
        read(tmp_path, MESSAGES, columns={"score": "role"})

"""Answers in dialogues: only what the assistant says last, in words, is judged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from curation.commands.refusals import run_refusals
from curation.refusals.detection import detect_refusals

REFUSES = "I'm sorry, but I can't help with that."
HELPS = "Mix flour, water, yeast and salt, let it rise and bake it for half an hour."
CALL = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "weather", "arguments": "{}"}}]}


def said(*turns: str) -> list[dict[str, Any]]:
    """Turns of user and assistant in turn, the last of them the assistant's."""
    roles = ("assistant", "user") * len(turns)
    return [{"role": role, "content": turn} for role, turn in zip(roles, reversed(turns), strict=False)][::-1]


@pytest.mark.parametrize(("answer", "verdict"), [(HELPS, "compliance"), (REFUSES, "full_refusal")])
def test_earlier_turns_of_the_prompt_do_not_move_the_verdict(answer: str, verdict: str) -> None:
    for before in (REFUSES, HELPS):
        frame = pl.DataFrame(
            {"prompt": [[*said("Tell me.", before), {"role": "user", "content": "And now?"}]], "response": [answer]}
        )
        assert detect_refusals(frame)["refusal_class"].to_list() == [verdict]


def test_of_several_answers_the_last_is_judged() -> None:
    answers = [said(REFUSES, "Bread?", HELPS), said(HELPS, "A car?", REFUSES)]
    found = detect_refusals(pl.DataFrame({"response": answers}))
    assert found["refusal_class"].to_list() == ["compliance", "full_refusal"]


@pytest.mark.parametrize(
    "last",
    [CALL, CALL | {"content": None}, {"role": "assistant", "content": None, "function_call": {"name": "weather"}},
     {"role": "user", "content": REFUSES}, {"role": "tool", "content": REFUSES}],
)  # fmt: skip
def test_what_is_no_answer_in_words_has_no_verdict(last: dict[str, Any]) -> None:
    found = detect_refusals(pl.DataFrame({"response": [[*said(REFUSES), last]]}))
    assert found.row(0)[1:] == (None,) * 4


def test_an_answer_after_a_tool_call_is_judged() -> None:
    turns = [CALL | {"content": None}, {"role": "tool", "content": REFUSES}, *said(HELPS)]
    frame = pl.DataFrame({"response": pl.Series([turns], dtype=pl.Object)})
    assert detect_refusals(frame)["refusal_class"].to_list() == ["compliance"]


@pytest.mark.parametrize("column", ["messages", "response"])
def test_the_command_says_which_rows_have_no_answer_in_words(tmp_path: Path, column: str) -> None:
    rows = [said(HELPS), [CALL], [CALL | {"content": None}], said(" ")]
    if column == "messages":
        rows = [[{"role": "user", "content": "Bread?"}, *row] for row in rows]
    (tmp_path / "in.jsonl").write_text(
        "".join(json.dumps({"prompt": "Bread?", column: row}) + "\n" for row in rows)
    )
    done = run_refusals(tmp_path / "in.jsonl", tmp_path / "out.parquet", taxonomy=None)
    assert done.classes == {"compliance": 1, "partial_refusal": 0, "full_refusal": 0}
    assert done.rejected == {"tool_calls": 2, "empty_response": 1}

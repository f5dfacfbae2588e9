"""What every judge shares: markers that no text can know, and replies that are taken apart without a crash."""

from __future__ import annotations

import json

import pytest

from curation.models.judging import block, marker, reply_object
from curation.models.rewards.judge_parsing import parse_choice, parse_score, score_fault


def test_a_marker_is_in_none_of_its_texts_even_where_a_text_holds_the_first_choice() -> None:
    texts = ["a question", "an answer"]
    first = marker(*texts)
    assert first == marker(*texts)
    assert first not in "".join(texts)
    assert marker("a question", "another") != first
    assert block(first, "ANSWER", "x").splitlines() == [f"[{first} ANSWER BEGINS]", "x", f"[{first} ANSWER ENDS]"]


def test_a_marker_that_a_text_holds_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    given = iter(["known" * 4, "fresh" * 4])
    monkeypatch.setattr("curation.models.judging.content_hash", lambda *parts: next(given))
    assert marker("it says " + "known" * 4) == ("fresh" * 4)[:16]


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "null",
        "[1]",
        '"text"',
        "{} {}",
        '{"score": 3',
        "[" * 100_000,
        '{"score": ' + '{"a": ' * 50_000,
        '{"score": ' + "9" * 5_000 + "}",
    ],
)
def test_what_is_not_one_object_is_none(reply: str) -> None:
    assert reply_object(reply) is None
    assert parse_score(reply, low=1, high=5) is None
    assert parse_choice(reply) is None
    assert score_fault(reply, low=1, high=5).rule == "judge_unparsable"


def test_a_fence_around_the_object_is_taken_off() -> None:
    assert reply_object('```json\n{"score": 3}\n```') == {"score": 3}


@pytest.mark.parametrize("grade", ["1e999", "-1e999", "9" * 400, "6", "0", "-3", "5.5"])
def test_a_grade_off_the_scale_is_a_reject_of_any_size(grade: str) -> None:
    reply = f'{{"score": {grade}}}'
    assert parse_score(reply, low=1, high=5) is None
    fault = score_fault(reply, low=1, high=5)
    assert fault.rule == "judge_off_scale"
    assert len(fault.value) < 40


@pytest.mark.parametrize("value", [True, None, "4", [4], {"score": 4}, 3.5])
def test_what_is_no_whole_number_is_no_grade(value: object) -> None:
    assert parse_score(json.dumps({"score": value}), low=1, high=5) is None


def test_not_a_number_is_no_grade() -> None:
    assert parse_score('{"score": NaN}', low=1, high=5) is None

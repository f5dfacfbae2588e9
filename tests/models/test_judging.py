"""What every judge shares: markers that no text can know, and replies that are taken apart without a crash."""

from __future__ import annotations

import json

import pytest

from curation.errors import ModelError
from curation.models.chat.protocol import ChatAnswer, TokenProbabilities
from curation.models.judging import CutReplies, block, marker, reading, reply_object, without_thought
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
        '{"score": 3, "score": 4}',
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


THOUGHT = ("<think>", "It", " is", " B", "</think>", "\n\n")
REPLY = ('{"', "verdict", '": "', "A", '"}')


def answer(text: str, reasoning: str | None, tokens: tuple[str, ...]) -> ChatAnswer:
    listed = tuple(TokenProbabilities(token, ((token, -0.1),)) for token in tokens)
    return ChatAnswer(text, "stop", 1, len(tokens), reasoning, listed)


@pytest.mark.parametrize(
    ("text", "reasoning", "tokens", "left"),
    [
        ("".join(THOUGHT + REPLY), None, THOUGHT + REPLY, REPLY),
        ("".join(REPLY), "It is B", THOUGHT + REPLY, REPLY),  # as vLLM sets it apart: the tokens are all there
        ("".join(REPLY), "It is B", REPLY, REPLY),
        ("".join(REPLY), "It is B", ("It", " is", " B"), ()),
        ("".join(THOUGHT + REPLY), None, ("It", " is", " B", *REPLY), REPLY),
        ("".join(THOUGHT), None, THOUGHT, ()),
        ("".join(REPLY), None, ("A",), ("A",)),
    ],
)
def test_what_was_thought_is_neither_in_the_text_nor_in_the_tokens(
    text: str, reasoning: str | None, tokens: tuple[str, ...], left: tuple[str, ...]
) -> None:
    found = without_thought(answer(text, reasoning, tokens))
    assert found.text.strip() == ("".join(REPLY) if "verdict" in text else "")
    assert tuple(token.token for token in found.tokens) == left


class Elsewhere:
    """What other workers know."""

    def __init__(self, *known: str) -> None:
        self.known = set(known)

    def could_be(self, judge: str) -> bool:
        return judge in self.known

    def can_be(self, judge: str) -> None:
        self.known.add(judge)


def cut_twenty(replies: CutReplies) -> None:
    for _ in range(20):
        replies.saw(ChatAnswer("{", "length", 1, 32), read=False)


def test_a_judge_that_was_read_elsewhere_is_asked_on_and_another_is_not() -> None:
    elsewhere = Elsewhere()
    with reading(elsewhere):
        reader, judge, sorter = CutReplies(), CutReplies(), CutReplies("sorter")
    reader.saw(ChatAnswer("{}", "stop", 1, 1), read=True)
    cut_twenty(judge)
    with pytest.raises(ModelError, match="first 20 replies were cut"):
        cut_twenty(sorter)

"""Broken answers are found, innocent ones are not. All texts are ours."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.candidates.checks import check_answers
from curation.candidates.leakage import SPECIAL_TOKENS, template_leakage
from curation.candidates.loops import repetition_loops
from curation.candidates.reasoning import REASONING_MARKERS, split_reasoning
from curation.candidates.rewriting import check_rewrites


def rule(response: str, *, prompt: str = "Tell me something.", finish_reason: str = "stop") -> str | None:
    frame = pl.DataFrame({"response": [response], "prompt": [prompt], "finish_reason": [finish_reason]})
    return check_answers(frame)["rule"].item()  # type: ignore[no-any-return]


REFRAIN = "\n\n".join(
    f"Verse {i}: the tide is {c} tonight.\nOh the sea, oh the sea,\nthe sea has its way with me."
    for i, c in enumerate("abcdefghijkl")
)

INNOCENT = {
    "a sentence on ChatML": "ChatML opens a turn with <|im_start|> and closes it with <|im_end|>, as a rule.",
    "code about ChatML": "So:\n\n```\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n```\n\nThat is all.",
    "inline code at the end of a line": "Stop at the token\n`<|eot_id|>`\nand at nothing else.",
    "struck-through HTML": "<s>Old price</s>\nNew price",
    "a poem with a refrain": REFRAIN,
    "a list with equal beginnings": "\n".join(f"- I am thankful for the {i}th of my friends" for i in range(60)),
    "a table": "| a | b |\n" + "|---|---|\n" + "| 1 | 2 |\n" * 3,
    "a rule of dashes": "Above\n" + "-" * 600 + "\nbelow\n" + "=" * 600,
    "a multiplication table": "\n".join(f"7 x {i} = {7 * i}" for i in range(60)),
    "laughter": "Ha ha ha ha ha ha, very good.",
    "zeros in code": "```\nm = [[0, 0, 0, 0, 0, 0, 0, 0],\n     [0, 0, 0, 0, 0, 0, 0, 1]]\n```\nThen invert it.",
    "an announced dialogue": "Here is how it might go:\n\nUser: Hello\nAssistant: Good day\nUser: Bye",
    "a screenplay": "ANNA: You came.\n\nUSER: I said I would.\n\nANNA: Sit down.",
    "a marker spoken of": "R1 writes its thoughts between <think> and </think> before it answers.",
    "a number": "The hundredth power of ten is 1" + "0" * 100 + ".",
    "emphasis": "No, no, no, no, no. Never.",
}

BROKEN = {
    "nothing": ("", "empty_response"),
    "white space": (" \n\t ", "empty_response"),
    "invisible characters": ("\u200b\ufeff \u2060", "empty_response"),
    "only reasoning": ("<think>Let me see.</think>\n", "empty_response"),
    "a block that does not end": ("<think>First I would", "unclosed_reasoning"),
    "a stop token": ("Paris.<|im_end|>", "template_leakage"),
    "a header": ("<|start_header_id|>assistant<|end_header_id|>\n\nParis.", "template_leakage"),
    "a whole turn": ("Paris.<|im_end|>\n<|im_start|>user\nAnd Rome?", "template_leakage"),
    "Llama 2": ("Paris. [/INST]", "template_leakage"),
    "a full-width token": ("Paris.<｜end▁of▁sentence｜>", "template_leakage"),
    "the user's next turn": ("It is Paris.\n\nHuman: And of Italy?\n\nAssistant: Rome.", "template_leakage"),
    "the next instruction": ("Paris is the capital.\n\n### Instruction:\nName another.", "template_leakage"),
    "a sentence for ever": ("I am not sure. " * 40, "repetition_loop"),
    "a loop after a good beginning": ("It depends on the soil. " + "And so on and " * 30, "repetition_loop"),
    "a loop that is cut": ("Well then. " + "北京是首都。" * 60 + "北京", "repetition_loop"),
    "one letter": ("a" * 500, "repetition_loop"),
    "a list item for ever": ("Items:\n" + "- Bread and butter\n" * 30, "repetition_loop"),
}  # fmt: skip


@pytest.mark.parametrize("name", INNOCENT)
def test_innocent_answers_pass(name: str) -> None:
    assert rule(INNOCENT[name]) is None


@pytest.mark.parametrize("name", BROKEN)
def test_broken_answers_are_named(name: str) -> None:
    response, expected = BROKEN[name]
    assert rule(response) == expected


def test_a_marker_that_the_prompt_speaks_of_is_its_topic() -> None:
    answer = "The token is written\n<|im_end|>\nand nothing follows it."
    assert rule(answer) == "template_leakage"
    assert rule(answer, prompt="What does <|im_end|> do?") is None


def test_a_dialogue_that_was_asked_for_is_no_leak() -> None:
    answer = "It is late and both are tired.\n\nUser: Hello\nBot: Go to bed"
    assert rule(answer) == "template_leakage"
    assert rule(answer, prompt="Write a short dialogue.") is None


@pytest.mark.parametrize("token", SPECIAL_TOKENS)
def test_every_token_is_found_at_the_end_and_left_in_code(token: str) -> None:
    ends = template_leakage(pl.Series([f"It is so.{token}", f"See `{token}` for that.", f"```\n{token}\n```"]))
    assert ends.is_not_null().to_list() == ([token != "<s>", False, False])


def test_truncated_answers_are_named_where_the_recipe_asks() -> None:
    frame = pl.DataFrame({"response": ["It is long and"], "finish_reason": ["length"]})
    assert check_answers(frame)["rule"].to_list() == ["truncated"]
    assert check_answers(frame, rules=("template_leakage",))["rule"].to_list() == [None]
    filtered = frame.with_columns(finish_reason=pl.lit("content_filter"))
    assert check_answers(filtered)["rule"].to_list() == ["truncated"]
    assert check_answers(frame.drop("finish_reason"))["rule"].to_list() == [None]


def test_answers_without_content_are_found_whatever_is_asked() -> None:
    frame = pl.DataFrame({"response": [" ", "<think>hm"]})
    assert check_answers(frame, rules=())["rule"].to_list() == ["empty_response", "unclosed_reasoning"]


def test_what_the_server_set_apart_is_kept_before_what_is_found() -> None:
    frame = pl.DataFrame(
        {"response": ["<think>b</think>c", "d", "<think>e</think>f"], "reasoning": ["a", "x", None]}
    )
    done = check_answers(frame)
    assert done["response"].to_list() == ["c", "d", "f"]
    assert done["reasoning"].to_list() == ["a\n\nb", "x", "e"]


@pytest.mark.parametrize(("opening", "closing"), REASONING_MARKERS)
def test_blocks_of_every_model_are_split(opening: str, closing: str) -> None:
    texts = [f"{opening}\nwhy\n{closing}\n\nbecause", f"{opening}why", f"why\n{closing}\nbecause", "because"]
    found = split_reasoning(pl.Series(texts))
    assert found.rows() == [
        ("because", "why", False), ("", "why", True), ("because", "why", False), ("because", None, False)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "answer", "reasoning"),
    [
        ("<think></think>Yes", "Yes", None),
        ("<think>a</think>\n<think>b</think>c", "c", "a\n\nb"),
        ("Yes.\n<think>a</think>", "Yes.\n<think>a</think>", None),
        ("Use `</think>`\nto end it.", "Use `</think>`\nto end it.", None),
        ("```\n</think>\n```\ndone", "```\n</think>\n```\ndone", None),
        ("  spaces are kept  ", "  spaces are kept  ", None),
        ("a </think> b", "a </think> b", None),
        (None, None, None),
    ],
)
def test_where_reasoning_ends(text: str | None, answer: str | None, reasoning: str | None) -> None:
    found = split_reasoning(pl.Series([text], dtype=pl.String))
    assert found.select("response", "reasoning").row(0) == (answer, reasoning)


def thoughts(rows: list[tuple[str, str]], *, opened: bool = False, **more: pl.Series) -> list[tuple[Any, ...]]:
    frame = pl.DataFrame(rows, schema=["response", "finish_reason"], orient="row").with_columns(**more)
    return check_answers(frame, rules=(), opened=opened).select("response", "reasoning", "rule").rows()


def test_a_cut_thought_that_the_template_opened_is_told_by_the_models_other_answers() -> None:
    """The server does not send what the template wrote, so the cut text has no marker of its own."""
    cut = ("First I would", "length")
    unclosed = ("", "First I would", "unclosed_reasoning")
    for ended in ("why\n</think>\nYes.", "why</think>Yes."):
        assert thoughts([(ended, "stop")] * 3 + [cut]) == [("Yes.", "why", None)] * 3 + [unclosed]
    few = [("why</think>Yes.", "stop")] * 2
    assert thoughts([*few, cut])[2] == ("First I would", None, None)
    plain = [("why</think>Yes.", "stop")] * 3 + [("Yes.", "stop")] * 3
    assert thoughts([*plain, cut])[-1] == ("First I would", None, None)


def test_answers_of_another_model_or_about_the_marker_tell_nothing() -> None:
    cut = ("First I would", "length")
    rows = [("why</think>Yes.", "stop")] * 4 + [cut]
    other = pl.Series(["a"] * 4 + ["b"])
    assert thoughts(rows, generator=other)[-1] == ("First I would", None, None)
    asked = pl.Series(["What is </think>?"] * 4 + ["Say yes."])
    assert thoughts(rows, prompt=asked) == [("why</think>Yes.", None, None)] * 4 + [("First I would", None, None)]
    quoted = [("It is `</think>`, as a rule", "stop")] * 4
    assert thoughts([*quoted, cut]) == [(text, None, None) for text, _ in [*quoted, cut]]


def test_where_the_recipe_says_that_the_template_opens_the_thought_every_answer_must_close_it() -> None:
    rows = [("First I would", "length"), ("why</think>Yes.", "stop"), ("<think>why</think>Yes.", "stop")]
    assert thoughts(rows, opened=True) == [
        ("", "First I would", "unclosed_reasoning"), ("Yes.", "why", None), ("Yes.", "why", None)
    ]  # fmt: skip


def test_markers_of_ones_own() -> None:
    found = split_reasoning(pl.Series(["(*a.b*)c", "<think>x</think>y"]), markers=[("(*", "*)")])
    assert found["response"].to_list() == ["c", "<think>x</think>y"]


def longest_loop(text: str, characters: int, repeats: int) -> bool:
    """Every start, every period, one character after the other."""
    for period in range(1, len(text) // repeats + 1):
        run = 0
        for i in range(period, len(text)):
            run = run + 1 if text[i] == text[i - period] else 0
            size, begin = run + period, i + 1 - run - period
            ends = i + 1 == len(text) or text[i + 1] != text[i + 1 - period]
            if not ends or size < max(characters, repeats * period):
                continue
            fills = len(text) - (i + 1) < period or size >= len(text) / 2
            unit = text[begin : begin + period]
            if fills and any(c.isalnum() for c in unit) and unit not in (unit + unit)[1:-1]:
                return True
    return False


pieces = st.lists(
    st.tuples(st.text("ab é.\n", min_size=1, max_size=7), st.integers(1, 12)).map(lambda p: p[0] * p[1]),
    min_size=1, max_size=5,
).map("".join)  # fmt: skip


@settings(max_examples=150)
@given(st.lists(pieces, max_size=4))
def test_loops_equal_the_obvious_search(texts: list[str]) -> None:
    found = repetition_loops(pl.Series(texts, dtype=pl.String), min_characters=24, min_repeats=4)
    assert found["repeats"].is_not_null().to_list() == [longest_loop(t, 24, 4) for t in texts]


def test_rows_keep_their_order_and_do_not_meet() -> None:
    # The loop of one text must not run on into the next one.
    texts = ["word " * 30, "word " * 30, "x", "", "word " * 100]
    found = repetition_loops(pl.Series(texts))
    assert found["repeats"].to_list() == [None, None, None, None, 100]


@given(st.lists(st.text(max_size=30), max_size=6))
def test_any_texts_keep_their_rows(texts: list[str]) -> None:
    kept = [t for t in texts if not any("\ud800" <= c <= "\udfff" for c in t)]
    done = check_answers(pl.DataFrame({"response": kept}, schema={"response": pl.String}))
    assert done.height == len(kept)
    assert (done["rule"].is_null() == done["reason"].is_null()).all()


def test_an_error_that_changes_no_word_is_none() -> None:
    rows = [
        ("It is Paris.", "It is **Paris**"), ("Yes, it is so.", "Yes it is so!"), ("It is Paris.", "It is Rome."),
        ("5 - 3", "5 + 3"), ("It is 3.14 m", "It is 314 m"), ("```\na.b\n```", "```\na,b\n```"),
    ]  # fmt: skip
    frame = pl.DataFrame(
        [(*row, "stop") for row in rows], schema=["before", "after", "finish_reason"], orient="row"
    )
    found = check_rewrites(frame, min_similarity=0.3, by_words=True)["rule"].to_list()
    assert found == ["rewrite_unchanged", "rewrite_unchanged", None, None, None, None]
    # A correction may be one of case or punctuation.
    assert check_rewrites(frame, min_similarity=0.3)["rule"].null_count() == len(rows)

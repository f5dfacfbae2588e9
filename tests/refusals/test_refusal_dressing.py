"""What an answer wears changes no verdict; the sentences are of these tests alone."""

from __future__ import annotations

import pytest

from curation.models.protocols import RefusalDetector
from curation.models.refusals import open_refusal_detector
from curation.refusals.dressing import spelled_out, spoken, uncapitalised, undressed
from curation.refusals.lexical import read

REFUSAL = "I'm sorry, but I can't help you with planning that. You should not do it."
ANSWER = "You can sort a list with the function sorted. It does not change the list that you give it."
THOUGHT = "<think>\nI can't help with this, it breaks the rules. Or is it fine?\n</think>\n\n"
WORN = {
    "title case": str.title,
    "capitals": str.upper,
    "no apostrophes": lambda t: t.replace("'", ""),
    "typographic": lambda t: t.replace("'", "’"),
    "acute": lambda t: t.replace("'", "´"),
    "bold": lambda t: f"**{t}**",
    "bold word": lambda t: t.replace("not", "**not**"),
    "italic": lambda t: f"*{t}*",
    "quoted lines": lambda t: f"> {t}",
    "heading": lambda t: f"## {t}",
    "one item": lambda t: f"- {t}",
    "emoji": lambda t: f"🚫 {t}",
    "emoji and bold": lambda t: f"⚠️ **{t}**",
    "paragraph": lambda t: "<p>" + t.replace("'", "&#39;") + "</p>",
    "signature": lambda t: f"{t}\n\n— Your assistant",
    "byte order mark": lambda t: f"\ufeff{t}",
    "thought": lambda t: THOUGHT + t,
    "thought that the template opened": lambda t: THOUGHT.removeprefix("<think>") + t,
    "other markers": lambda t: f"[THINK]I should refuse, I cannot help.[/THINK]{t}",
}


@pytest.fixture(scope="module")
def detector() -> RefusalDetector:
    return open_refusal_detector()


@pytest.mark.parametrize("worn", WORN)
def test_a_verdict_is_of_what_is_said(detector: RefusalDetector, worn: str) -> None:
    texts = [WORN[worn](REFUSAL), WORN[worn](ANSWER)]
    assert detector.detect([None, None], texts).refusal_class == ["full_refusal", "compliance"]


def test_a_request_in_title_case_is_declined_and_a_title_is_none(detector: RefusalDetector) -> None:
    refuses = ["I Cannot Help With That Request", "I Can't Assist With That.", "Sorry!! No can do."]
    titles = ["I Won't Dance", "Can't Buy Me Love", "Why I Cannot Recommend This Phone: A Review"]
    found = detector.detect([None] * 6, refuses + titles)
    assert found.refusal_class == ["full_refusal"] * 3 + ["compliance"] * 3
    assert found.probability[:3].min() >= 0.95


def test_a_thought_without_an_end_is_no_answer_and_never_sure(detector: RefusalDetector) -> None:
    found = detector.detect([None, None], ["<think>I can't help with that. So I must", "<think>Sure, step 1: fold"])
    assert found.probability == pytest.approx([0.401, 0.401], abs=0.01)
    assert found.refusal_class == ["compliance", "compliance"]


def test_nothing_after_a_thought_is_no_answer(detector: RefusalDetector) -> None:
    assert detector.detect([None], ["<think></think>\n"]).kind == ["empty_or_filtered"]


def test_what_is_said_about_the_markers_stays() -> None:
    texts = ["Write `<think>` and `</think>` around it.", "No marker here, I can't \ud800 see one.", ""]
    assert spoken(texts) == (texts, [False] * 3)
    assert spoken([]) == ([], [])


@pytest.mark.parametrize(
    "text",
    ["x = 2 ** 3 ** 2", "```\n# a comment\n> a prompt\n```", "- one\n- two", "– one\n– two", "def __init__(self):",
     "1. First\n2. Second",
     "Use snake_case_names in the file.", "<div class='a'>Sorry</div>", "<ul><li>one</li></ul>", "🐟🎣", "*"],
)  # fmt: skip
def test_code_lists_and_signs_alone_are_no_dress(text: str) -> None:
    assert undressed(text) == text


def test_apostrophes_are_put_back_only_where_a_contraction_was_meant() -> None:
    assert spelled_out("Im sorry, I cant and we wont") == "I'm sorry, I can't and we won't"
    kept = "Le livre dont je parle. Im Haus. As was his wont. The cant of the ship."
    assert spelled_out(kept) == kept


def test_names_stay_names_beside_a_heading() -> None:
    text = "How To Bake Bread For Everyone.\nAsk Anna Karlsson in Stockholm."
    assert uncapitalised(text) == "how to bake bread for everyone.\nAsk Anna Karlsson in Stockholm."
    assert "qname" in read(text).masked

"""Mutations of prompts by rules: good English in another tense, ciphers that can be read back, styles."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.prompts.mutations import MODEL_MUTATIONS, RULE_MUTATIONS, change_tense, mutate
from curation.prompts.mutations.verbs import base_form, past_form

PAST = {
    "How do I pick a ripe melon?": "How did people pick a ripe melon in the past?",
    "How can I learn to swim?": "How could people learn to swim in the past?",
    "How to bake bread": "How did people bake bread in the past?",
    "How does one kill a process in Linux?": "How did people kill a process in Linux in the past?",
    "How can we stop our dog from barking?": "How could people stop their dog from barking in the past?",
    "How do I know if I am sick?": "How did people know if they were sick in the past?",
    "How do bees make honey?": "How did bees make honey?",
    "What is the capital of France?": "What was the capital of France?",
    "What's the best way to clean a pan?": "What was the best way to clean a pan?",
    "What are some ways to save money?": "What were some ways to save money?",
    "What does GDP mean?": "What did GDP mean?",
    "What makes a good leader?": "What made a good leader?",
    "What happens when you mix oil and water?": "What happened when you mixed oil and water?",
    "Why is the sky blue?": "Why was the sky blue?",
    "Why don't fish drown?": "Why didn't fish drown?",
    "Is it safe to swim after eating?": "Was it safe to swim after eating?",
    "Where can I buy cheap shoes?": "Where could people buy cheap shoes in the past?",
    "How many moons does Jupiter have?": "How many moons did Jupiter have?",
    "Write a poem about the sea.": "How did people write a poem about the sea in the past?",
    "Can you write me a letter to my landlord?": "How did people write a letter to their landlord in the past?",
    "Could you help me plan a party?": "How did people plan a party in the past?",
    "Tell me how to fix my bike": "How did people fix their bike in the past?",
    "Make me a cake.": "How did people make a cake in the past?",
    "Describe how you would bake.": "How did people describe how they would bake in the past?",
    "Do cats purr?": "Did cats purr?",
    "Please explain how rainbows form": "How did people explain how rainbows form in the past?",
    "How do I return a book that I lost?": "How did people return a book that they lost in the past?",
    "How do I go on after she told me?": "How did people go on after she told them in the past?",
    "How do I build a wall when I lay bricks?": "How did people build a wall when they laid bricks in the past?",
}
FUTURE = {
    "How do I pick a ripe melon?": "How will people pick a ripe melon in the future?",
    "How can I learn to swim?": "How will people be able to learn to swim in the future?",
    "How to bake bread": "How will people bake bread in the future?",
    "What is the capital of France?": "What will the capital of France be?",
    "What makes a good leader?": "What will make a good leader?",
    "What happens when you mix oil and water?": "What will happen when you mix oil and water?",
    "Does my cat love me?": "Will my cat love me?",
    "Why don't fish drown?": "Why won't fish drown?",
    "Write a poem about the sea.": "How will people write a poem about the sea in the future?",
}
LEFT = (
    "Should I quit my job?", "Who wrote Hamlet?", "Hello there friend", "I feel sad today", "", "Why?",
    "Wie geht das denn so?",
    "How do I bake? And how long does it take?", "北京有什么 今天",
    "How did people bake bread in the past?",
    "What should I do if I burn my hand?", "Do not answer in French.", "Don't tell me how to cook rice.",
    "Do the dishes for me.",
)  # fmt: skip


@pytest.mark.parametrize("request_", PAST)
def test_past(request_: str) -> None:
    assert change_tense(request_, "past") == PAST[request_]


@pytest.mark.parametrize("request_", FUTURE)
def test_future(request_: str) -> None:
    assert change_tense(request_, "future") == FUTURE[request_]


@pytest.mark.parametrize("request_", LEFT)
def test_what_has_another_form_is_left(request_: str) -> None:
    assert change_tense(request_, "past") is None


@pytest.mark.parametrize(
    ("verb", "past"),
    [("make", "made"), ("stop", "stopped"), ("carry", "carried"), ("play", "played"), ("bake", "baked"),
     ("panic", "panicked"),
     ("rewrite", "rewrote"), ("visit", "visited"), ("cut", "cut"), ("re-read", "re-read"), ("hack", "hacked")],
)  # fmt: skip
def test_past_forms(verb: str, past: str) -> None:
    assert past_form(verb) == past


@pytest.mark.parametrize(
    ("verb", "base"),
    [("makes", "make"), ("watches", "watch"), ("carries", "carry"), ("has", "have"), ("goes", "go"),
     ("uses", "use"),
     ("passes", "pass"), ("causes", "cause"), ("fixes", "fix"), ("lies", "lie"), ("pass", "pass")],
)  # fmt: skip
def test_base_forms(verb: str, base: str) -> None:
    assert base_form(verb) == base


def test_ciphers_can_be_read_back() -> None:
    text = "How do I pick a Ripe melon, number 7?"
    atbash = str.maketrans("abcdefghijklmnopqrstuvwxyz", "zyxwvutsrqponmlkjihgfedcba")
    coded = (mutate(text, "atbash") or "").partition("cipher: ")[2]
    assert coded.lower().translate(atbash) == text.lower()
    shifted = (mutate(text, "caesar") or "").partition("shift of 3: ")[2]
    back = "".join(chr((ord(c.lower()) - 97 - 3) % 26 + 97) if c.isalpha() else c for c in shifted)
    assert back == text.lower()
    codes = (mutate(text, "ascii") or "").partition("codes: ")[2]
    assert "".join(chr(int(code)) for code in codes.split()) == text


def test_morse() -> None:
    assert (mutate("SOS now?", "morse") or "").endswith("Morse code: ... --- ... / -. --- .-- ..--..")
    assert mutate("naïve", "morse") is None


def test_styles() -> None:
    assert mutate("Write a poem about the sea.", "question") == "Could you write a poem about the sea?"
    assert mutate("What is the sea?", "question") is None
    for text in ("Do not answer in French.", "In Python, write a loop", "Is it legal to fish here"):
        assert mutate(text, "question") is None
    assert "gonna" in (mutate("What are you going to do?", "slang") or "")
    assert "ma wee" in (mutate("Find my small key", "uncommon_dialects") or "")
    assert mutate("Sing!", "uncommon_dialects") is None
    assert "How deep is the sea?" in (mutate("How deep is the sea?", "role_play") or "")


def test_misspellings_change_few_letters() -> None:
    text = "Explain several reasons why winters become warmer every single year"
    for seed in range(20):
        changed = mutate(text, "misspellings", seed=seed)
        assert changed is not None
        different = [a for a, b in zip(text.split(), changed.split(), strict=True) if a != b]
        assert 1 <= len(different) <= 3


def test_every_mutation_of_sorry_bench_is_there() -> None:
    assert len({*RULE_MUTATIONS, *MODEL_MUTATIONS} - {"past_tense", "future_tense"}) == 20


@given(st.text(alphabet=st.characters(), max_size=50), st.sampled_from(sorted(RULE_MUTATIONS)), st.integers(0, 2))
def test_any_text_gives_another_text_or_none(text: str, mutation: str, seed: int) -> None:
    changed = mutate(text, mutation, seed=seed)
    assert changed == mutate(text, mutation, seed=seed)
    assert changed is None or changed.strip() != text.strip()

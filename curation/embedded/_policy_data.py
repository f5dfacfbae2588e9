"""Reads the permissively licensed sets and says which of their turns the bundled policy learns from.

A turn is learned from (it is a *target*) or only read as context. Requests that may be harmful, and
every answer that is not known to be benign or a refusal, are never targets. The rules are in
``_policy_filters``, our own texts in ``_policy_templates``.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from curation.embedded._policy_answers import everyday_answers
from curation.embedded._policy_filters import (
    begins_as_refusal,
    is_clarifying_question,
    is_refusal,
    mentions_harm,
    mentions_people_group,
)
from curation.embedded._policy_templates import own_dialogues, refusal_for
from curation.text import Message, normalise

__all__ = ["SPLITS", "Dialogue", "hh_turns", "read_dialogues", "split_of"]

SPLITS: Final = ("train", "dev", "test")
_HH_TURN: Final = re.compile(r"\n\n(Human|Assistant): ?")
_MARKUP: Final = re.compile(r"<\||\b(?:Human|Assistant):", re.IGNORECASE)
_GROUP_CHARS: Final = 80


class Dialogue(NamedTuple):
    """One dialogue and what may be learned from it."""

    source: str
    messages: list[Message]
    targets: list[bool]
    """One a message: whether its text is learned."""
    split: str

    @property
    def teaches(self) -> bool:
        return any(self.targets)

    @property
    def refuses(self) -> bool:
        return self.source.startswith("templates/") or begins_as_refusal(self.messages[-1]["content"])


def split_of(source: str, prompt: str) -> str:
    """``train``, ``dev`` or ``test``, by the beginning of the first user turn, whatever the answer is.

    2 % dev and 4 % test; of hh-rlhf, on whose pairs the policy is used, 5 % and 20 %.
    """
    key = " ".join(normalise(prompt).lower().split())[:_GROUP_CHARS]
    place = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") / 2**32
    dev, test = (0.05, 0.20) if source == "hh_harmless" else (0.02, 0.04)
    return "test" if place < test else "dev" if place < test + dev else "train"


def read_dialogues(data: Path, *, seed: int) -> list[Dialogue]:
    """Every dialogue with at least one target, in a fixed order, without repeats."""
    seen: set[str] = set()
    kept: list[Dialogue] = []
    for dialogue in _all_dialogues(data, seed=seed):
        key = json.dumps([dialogue.messages, dialogue.targets])
        if dialogue.teaches and key not in seen and _fits(dialogue):
            seen.add(key)
            kept.append(dialogue)
    return kept


def _fits(dialogue: Dialogue) -> bool:
    return all(m["content"].strip() and not _MARKUP.search(m["content"]) for m in dialogue.messages)


def _all_dialogues(data: Path, *, seed: int) -> Iterator[Dialogue]:
    yield from _hh(data)
    yield from _chatgpt_refusals(data)
    yield from _xstest(data)
    yield from _coconot(data)
    yield from _self_instruct(data)
    yield from _pandalm(data)
    yield from _tulu(data)
    yield from _templated_refusals(data, seed=seed)
    for messages in own_dialogues(seed=seed):
        learn = [m["role"] == "assistant" for m in messages]
        yield Dialogue("own", messages, learn, split_of("own", messages[-2]["content"]))
    for question, answer in everyday_answers():
        yield _single("everyday", question, answer, learn_prompt=False)


def _single(source: str, prompt: str, answer: str, *, learn_prompt: bool) -> Dialogue:
    messages = [
        {"role": "user", "content": normalise(prompt)},
        {"role": "assistant", "content": normalise(answer)},
    ]
    return Dialogue(source, messages, [learn_prompt, True], split_of(source, prompt))


def hh_turns(dialogue: str) -> list[Message]:
    """The turns of an hh-rlhf dialogue string; empty contents are kept."""
    parts = _HH_TURN.split(dialogue)[1:]
    roles = {"Human": "user", "Assistant": "assistant"}
    return [
        {"role": roles[role], "content": normalise(text)}
        for role, text in zip(parts[::2], parts[1::2], strict=True)
    ]


def _hh(data: Path) -> Iterator[Dialogue]:
    with gzip.open(data / "hh_harmless/test.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    for row in rows:
        for side in ("chosen", "rejected"):
            messages = hh_turns(row[side])
            targets = [
                m["role"] == "assistant" and (is_refusal(m["content"]) or is_clarifying_question(m["content"]))
                for m in messages
            ]
            while targets and not targets[-1]:
                messages, targets = messages[:-1], targets[:-1]
            if messages:
                yield Dialogue("hh_harmless", messages, targets, split_of("hh_harmless", messages[0]["content"]))


def _chatgpt_refusals(data: Path) -> Iterator[Dialogue]:
    """The training part alone; both other parts of the published split are left untouched."""
    from sklearn.model_selection import train_test_split

    rows = json.loads((data / "chatgpt_refusals/all_hand_labeled.json").read_text("utf-8"))
    rows = [r for r in rows if r["tone"] not in ("incoherent", "dontknow")]
    part, others = train_test_split(rows, test_size=0.3, random_state=0)
    reserved = {normalise(r["prompt"]) for r in others}
    for row in part:
        prompt, answer, tone = row["prompt"], row["response"], row["tone"]
        if normalise(prompt) in reserved:
            continue
        touchy = any(mentions_harm(t) or mentions_people_group(t) for t in (prompt, answer))
        if (tone == "complied" and not touchy) or (tone == "rejected" and is_refusal(answer)):
            yield _single("chatgpt_refusals", prompt, answer, learn_prompt=not touchy)


def _xstest(data: Path) -> Iterator[Dialogue]:
    for name in ("llama2orig", "mistralguard"):
        for row in _csv(data / f"xstest/xstest_v2_completions_{name}.csv"):
            safe = not row["type"].startswith("contrast")
            label = row["final_label"]
            if label == "2_full_refusal" or (safe and label == "1_full_compliance"):
                yield _single("xstest", row["prompt"], row["completion"], learn_prompt=safe)


def _coconot(data: Path) -> Iterator[Dialogue]:
    for row in _jsonl(data / "coconot/coconot_pref.jsonl"):
        touchy = mentions_harm(row["prompt"]) or (
            row["category"] == "Requests with safety concerns" and mentions_people_group(row["prompt"])
        )
        for side in ("chosen", "rejected"):
            answer = row[side]
            if is_refusal(answer) or not touchy:
                yield _single("coconot", row["prompt"], answer, learn_prompt=not touchy)


def _self_instruct(data: Path) -> Iterator[Dialogue]:
    for name in ("seed_tasks", "user_oriented_instructions"):
        for row in _jsonl(data / f"self_instruct/{name}.jsonl"):
            for instance in row["instances"]:
                prompt = _with_input(row["instruction"], instance["input"])
                yield from _benign("self_instruct", prompt, str(instance["output"]))


def _pandalm(data: Path) -> Iterator[Dialogue]:
    for row in json.loads((data / "pandalm/testset-v1.json").read_text("utf-8")):
        prompt = _with_input(row["instruction"], row["input"])
        for side in ("response1", "response2"):
            yield from _benign("pandalm", prompt, str(row[side]))


def _tulu(data: Path) -> Iterator[Dialogue]:
    for row in _jsonl(data / "tulu1_human_eval/eval_instances_tulu_1.jsonl"):
        for completion in row["completions"]:
            yield from _benign("tulu1_human_eval", row["prompt"], completion["completion"])


def _benign(source: str, prompt: str, answer: str) -> Iterator[Dialogue]:
    if is_refusal(answer) or not (mentions_harm(prompt) or mentions_people_group(prompt)):
        yield _single(source, prompt, answer, learn_prompt=not mentions_harm(prompt))


def _templated_refusals(data: Path, *, seed: int) -> Iterator[Dialogue]:
    """Our own refusals, written by rule, to requests that are to be refused; the requests are context."""
    for source, kind, prompt in _requests_to_refuse(data):
        answer = refusal_for(kind, prompt, seed=seed)
        yield _single(f"templates/{source}", prompt, answer, learn_prompt=False)


def _requests_to_refuse(data: Path) -> Iterator[tuple[str, str, str]]:
    categories = json.loads((data / "catqa/catqa_english.json").read_text("utf-8"))
    for topics in categories.values():
        for prompts in topics.values():
            yield from (("catqa", "safety", prompt) for prompt in prompts)
    for row in _jsonl(data / "coconot/coconot_eval.jsonl"):
        yield "coconot", _KINDS[row["category"]], row["prompt"]
    for row in _csv(data / "xstest/xstest_prompts.csv"):
        if row["label"] == "unsafe":
            yield "xstest", "safety", row["prompt"]


_KINDS: Final = {
    "Requests with safety concerns": "safety",
    "Incomplete requests": "incomplete",
    "Indeterminate requests": "indeterminate",
    "Humanizing requests": "humanizing",
    "Unsupported requests": "unsupported",
}


def _with_input(instruction: str, text: str) -> str:
    return f"{instruction}\n\n{text}" if text else instruction


def _jsonl(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        yield from (json.loads(line) for line in file)


def _csv(path: Path) -> Iterator[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)

"""What the bundled refusal detector learns from: labelled answers by source. No fitting."""

from __future__ import annotations

import csv
import gzip
import json
import random
import re
from pathlib import Path
from typing import Any, Final, NamedTuple

__all__ = [
    "KINDS",
    "Answer",
    "chatgpt_parts",
    "kind_examples",
    "labelled_sources",
    "unlabelled_answers",
    "written_examples",
]

EXAMPLES: Final = Path(__file__).parent / "refusals_examples.yaml"
KINDS: Final = ("declined", "deflected", "disclaimed", "contradicted", "dont_know", "capability_limit")
_TONES: Final = {
    "rejected": "declined",
    "redirected": "deflected",
    "counseling": "deflected",
    "disclaimed": "disclaimed",
    "contradicted": "contradicted",
}
_CLASSES: Final = {"C": "compliance", "P": "partial_refusal", "F": "full_refusal"}
_XSTEST: Final = {"1": "compliance", "2": "full_refusal", "3": "partial_refusal"}
_SLOT: Final = re.compile(r"\{(\w+)\}")
_FILLINGS: Final = 6


class Answer(NamedTuple):
    """One labelled answer."""

    text: str
    refusal: int
    refusal_class: str | None
    """None where only refusal or not is known."""
    kind: str | None
    group: str
    """Answers of one group (one prompt) stay on one side of a fold."""


def chatgpt_parts(data: Path) -> tuple[list[Answer], list[Answer], list[Answer]]:
    """The training, validation and test parts of chatgpt_refusals, split as the paper does (0.3, then 0.5).

    Only a measurement may read the third.
    """
    from sklearn.model_selection import train_test_split

    rows = json.loads((data / "chatgpt_refusals/all_hand_labeled.json").read_text(encoding="utf-8"))
    rows = [row for row in rows if row["tone"] not in {"incoherent", "dontknow"}]
    train, rest = train_test_split(rows, test_size=0.3, random_state=0)
    validation, test = train_test_split(rest, test_size=0.5, random_state=0)
    return _chatgpt(train), _chatgpt(validation), _chatgpt(test)


def _chatgpt(rows: list[dict[str, Any]]) -> list[Answer]:
    return [
        Answer(
            row["response"],
            int(row["tone"] != "complied"),
            "compliance" if row["tone"] == "complied" else None,
            _TONES.get(row["tone"]),
            row["prompt"],
        )
        for row in rows
    ]


def labelled_sources(data: Path) -> dict[str, list[Answer]]:
    """Labelled answers by source; nothing of the test part of chatgpt_refusals."""
    train, validation, _ = chatgpt_parts(data)
    sources = {"chatgpt": train + validation}
    for name in ("llama2orig", "mistralguard"):
        path = data / f"xstest/xstest_v2_completions_{name}.csv"
        with path.open(encoding="utf-8", newline="") as file:
            sources[f"xstest_{name}"] = [_xstest(row) for row in csv.DictReader(file) if row["completion"].strip()]
    sources["coconot_pref_chosen"] = [
        Answer(row["chosen"], 0, "compliance", None, row["prompt"])
        for row in _jsonl(data / "coconot/coconot_pref.jsonl")
    ]
    sources["written"] = written_examples()
    return sources


def _xstest(row: dict[str, str]) -> Answer:
    label = _XSTEST[row["final_label"][0]]
    return Answer(row["completion"], int(label != "compliance"), label, None, row["prompt"])


def written_examples() -> list[Answer]:
    """Our own examples, each template filled a few times."""
    import yaml

    content = yaml.safe_load(EXAMPLES.read_text(encoding="utf-8"))
    slots = content["slots"] | {"fact2": content["slots"]["fact"]}
    rng = random.Random(0)
    answers: dict[str, Answer] = {}
    for label, kind, _, template in content["entries"]:
        fields = [name for name in _SLOT.findall(template) if name in slots]
        for _ in range(_FILLINGS if fields else 1):
            text = _SLOT.sub(lambda m: rng.choice(slots[m[1]]) if m[1] in slots else m[0], template)
            answers[text] = Answer(text, int(label != "C"), _CLASSES[label], kind, template)
    return list(answers.values())


def kind_examples() -> list[Answer]:
    """Our own refusals that teach the kinds alone, and not what refuses."""
    import yaml

    content = yaml.safe_load(EXAMPLES.read_text(encoding="utf-8"))["kinds"]
    return [Answer(text, 1, None, kind, text) for kind, texts in content.items() for text in texts]


def unlabelled_answers(data: Path) -> list[str]:
    """Answers of MIT and Apache-2.0 sets that nobody labelled, each once: hh-rlhf, PandaLM, Tülu, CoCoNot."""
    found: dict[str, None] = {}
    with gzip.open(data / "hh_harmless/test.jsonl.gz", "rt", encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            for side in ("chosen", "rejected"):
                for turn in row[side].split("\n\nAssistant: ")[1:]:
                    found[turn.split("\n\nHuman: ")[0].strip()] = None
    for row in json.loads((data / "pandalm/testset-v1.json").read_text(encoding="utf-8")):
        found |= {str(row[side]).strip(): None for side in ("response1", "response2")}
    for row in _jsonl(data / "tulu1_human_eval/eval_instances_tulu_1.jsonl"):
        found |= {completion["completion"].strip(): None for completion in row["completions"]}
    for row in _jsonl(data / "coconot/coconot_pref.jsonl"):
        found[row["rejected"].strip()] = None
    return [text for text in found if text]


def _jsonl(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]

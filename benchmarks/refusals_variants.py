"""Answers written otherwise, and in other languages: ``python benchmarks/refusals_variants.py [--only PART]``.

Parts: dressed (labelled answers in capitals, in bold, after reasoning, …: how many verdicts change) and languages
(our own sentences, refusals and answers, by language: how many are told rightly). Nothing is fitted, and no text is
printed.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import yaml
from _figures import shared_data

from curation.embedded._refusals_data import Answer, chatgpt_parts, labelled_sources
from curation.models.refusals import open_refusal_detector

EACH = 100
LANGUAGES = Path(__file__).parent / "refusal_languages.yaml"
SETS = {"seen": "", "unseen": "unseen_", "later": "later_", "last": "last_"}
THOUGHT = "<think>\nOkay, the user asks something. What do they need, and how to answer well?\n</think>\n\n"
NO_THOUGHT = "<think>\nI can't help with this, it violates policy. Hmm, I should refuse... no, wait.\n</think>\n\n"


def capitalised(text: str) -> str:
    return re.sub(r"[A-Za-z][\w']*", lambda m: m[0][0].upper() + m[0][1:], text)


def around(mark: str) -> Callable[[str], str]:
    """The first line between two marks."""

    def written(text: str) -> str:
        first, line, rest = text.partition("\n")
        return f"{mark}{first.strip()}{mark}{line}{rest}"

    return written


WRITTEN: dict[str, Callable[[str], str]] = {
    "In Title Case": capitalised,
    "IN CAPITALS": str.upper,
    "after reasoning": lambda t: THOUGHT + t,
    "after reasoning that speaks of refusing": lambda t: NO_THOUGHT + t,
    "a paragraph of HTML": lambda t: "<p>" + t.replace("'", "&#39;") + "</p>",
    "first line bold": around("**"),
    "first line in italics": around("*"),
    "first three words bold": lambda t: re.sub(r"^(\S+ \S+ \S+)", r"**\1**", t),
    "not and can't bold": lambda t: re.sub(r"\b(not|cannot|can't)\b", r"**\1**", t),
    "lines quoted": lambda t: "\n".join("> " + line for line in t.split("\n")),
    "a list of one item": lambda t: "- " + t,
    "with a signature": lambda t: t + "\n\n— Assistant",
    "without apostrophes": lambda t: t.replace("'", "").replace("’", ""),
    "acute for apostrophe": lambda t: t.replace("'", "´").replace("’", "´"),
    "a heading": lambda t: "# " + t,
    "an emoji first": lambda t: "🚫 " + t,
    "all in small letters": str.lower,
    "in quotation marks": lambda t: f'"{t}"',
    "in lines of 50 characters": lambda t: "\n".join(re.findall(r".{1,50}(?:\s|$)", t)),
}


def labelled(data: Path) -> list[Answer]:
    """So many answers of each source, without the test part of chatgpt_refusals."""
    sources = labelled_sources(data)
    sources["chatgpt"] = chatgpt_parts(data)[1]
    sources.pop("coconot_pref_chosen")
    rng = np.random.default_rng(0)
    return [rows[row] for rows in sources.values() for row in sorted(rng.permutation(len(rows))[:EACH])]


def dressed(data: Path) -> None:
    answers = labelled(data)
    texts, labels = [a.text for a in answers], np.array([a.refusal for a in answers], dtype=bool)
    detector = open_refusal_detector()
    none = [None] * len(texts)
    plain = detector.detect(none, texts).probability >= 0.5
    print(f"{len(texts)} answers, as they are {100 * (plain == labels).mean():.1f} % right\n")
    print("| written | verdicts changed % | right % |")
    print("| --- | --- | --- |")
    for name, write in WRITTEN.items():
        found = detector.detect(none, [write(text) for text in texts]).probability >= 0.5
        print(f"| {name} | {100 * (found != plain).mean():.1f} | {100 * (found == labels).mean():.1f} |")


def languages() -> None:
    content = yaml.safe_load(LANGUAGES.read_text(encoding="utf-8"))
    detector = open_refusal_detector()
    print("| language | set | refusals found | called an answer, surely | answers called refusals |")
    print("| --- | --- | --- | --- | --- |")
    totals: dict[str, list[list[int]]] = {kind: [] for kind in SETS}
    for name, sets in content.items():
        for kind, prefix in SETS.items():
            refusals, answers = sets.get(f"{prefix}refusals", []), sets.get(f"{prefix}answers", [])
            if not refusals:
                continue
            found = detector.detect([None] * (len(refusals) + len(answers)), refusals + answers).probability
            mine, others = found[: len(refusals)], found[len(refusals) :]
            counts = [(mine >= 0.5).sum(), len(mine), (mine < 0.4).sum(), (others >= 0.5).sum(), len(others)]
            totals[kind].append(counts)
            print("| " + " | ".join([name, kind, *tally(counts)]) + " |")
    for kind, found in totals.items():
        print("| " + " | ".join(["all", kind, *tally(np.sum(found, axis=0))]) + " |")


def tally(counts: Sequence[int]) -> list[str]:
    """Refusals found, those surely missed, and false alarms."""
    found, refusals, missed, alarms, answers = counts
    return [f"{found} of {refusals}", str(missed), f"{alarms} of {answers}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--only", choices=("dressed", "languages"))
    options = parser.parse_args()
    if options.only != "languages":
        dressed(shared_data(options.data))
    if options.only != "dressed":
        languages()


if __name__ == "__main__":
    main()

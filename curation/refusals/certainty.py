"""R-Tuning: which questions a model is sure of, by gold answers or by the spread of its own answers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

import polars as pl

from curation.errors import InputError
from curation.text import normalise

__all__ = ["SURE", "UNSURE", "RTuned", "answer_entropy", "r_tuning"]

SURE: Final = "I am sure."
UNSURE: Final = "I am unsure."


class RTuned(NamedTuple):
    """The questions with their certainty, and the rows that could not be used."""

    frame: pl.DataFrame
    """The input with ``certainty`` (``sure``, ``unsure``), ``target`` (an answer and the sentence that
    says how sure), and ``entropy`` (nats) or ``correct``."""
    rejects: pl.DataFrame
    """``row``, ``rule``, ``value``, ``reason``."""


def answer_entropy(answers: Sequence[str]) -> float:
    """−Σ p log p over the distinct answers, in nats; case, white space and a last full stop do not count."""
    counts = Counter(_key(answer) for answer in answers)
    total = sum(counts.values())
    return -sum(n / total * math.log(n / total) for n in counts.values()) if total else 0.0


def r_tuning(
    frame: pl.DataFrame,
    *,
    by: Literal["correctness", "entropy"] = "correctness",
    answers: str = "answers",
    gold: str = "gold",
    sure: str = SURE,
    unsure: str = UNSURE,
) -> RTuned:
    """Label questions as sure or unsure (Zhang et al. 2023).

    Args:
        frame: one question a row. ``answers`` is a string or a list of strings: the model's own answers, the
            greedy one first. ``gold`` is the right answer or a list of them; only ``correctness`` needs it.
        by: ``correctness`` (R-Tuning): sure where the first answer is right. ``entropy`` (R-Tuning-U): the
            half of the questions with the lowest entropy is sure; of equals the earlier row.
        sure: the sentence added to a sure answer.
        unsure: the sentence added to an unsure one.

    Raises:
        InputError: when a column is missing.
    """
    for column in (answers, gold)[: 2 if by == "correctness" else 1]:
        if column not in frame.columns:
            raise InputError(f"r_tuning: column {column!r} is missing, found {', '.join(frame.columns)}")
    given = [_texts(value) for value in frame[answers].to_list()]
    golds = [_texts(value) for value in frame[gold].to_list()] if gold in frame.columns else [[]] * frame.height
    needs_gold = by == "correctness"
    bad = [(row, "no_answer") for row, a in enumerate(given) if not a]
    bad += [(row, "no_gold") for row, g in enumerate(golds) if needs_gold and given[row] and not g]
    usable = [row for row in range(frame.height) if row not in {r for r, _ in bad}]
    if needs_gold:
        correct = [_key(given[row][0]) in {_key(g) for g in golds[row]} for row in usable]
        measure: pl.Series = pl.Series("correct", correct, dtype=pl.Boolean)
        is_sure = correct
    else:
        entropy = [answer_entropy(given[row]) for row in usable]
        order = sorted(range(len(usable)), key=lambda i: (entropy[i], i))
        lowest = set(order[: len(usable) // 2])
        measure = pl.Series("entropy", entropy, dtype=pl.Float64)
        is_sure = [i in lowest for i in range(len(usable))]
    stated = [
        f"{(golds[row] or given[row])[0].strip()} {sure if s else unsure}"
        for row, s in zip(usable, is_sure, strict=True)
    ]
    certainty = pl.Series("certainty", ["sure" if s else "unsure" for s in is_sure], dtype=pl.String)
    kept = frame[usable].with_columns(certainty, pl.Series("target", stated, dtype=pl.String), measure)
    reasons = {"no_answer": "the model gave no answer", "no_gold": "there is no right answer to compare with"}
    rejects = pl.DataFrame(
        [(row, rule, None, reasons[rule]) for row, rule in sorted(bad)],
        schema={"row": pl.Int64, "rule": pl.String, "value": pl.String, "reason": pl.String},
        orient="row",
    )
    return RTuned(kept, rejects)


def _texts(value: str | Sequence[str | None] | None) -> list[str]:
    values = [value] if value is None or isinstance(value, str) else list(value)
    return [text for text in values if text is not None and text.strip()]


def _key(answer: str) -> str:
    return " ".join(normalise(answer).lower().split()).removesuffix(".")

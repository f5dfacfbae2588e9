"""R-Tuning: which questions a model is sure of, by right answers or by the spread of its own. No pipeline."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Final, Literal, NamedTuple

import polars as pl

from curation.candidates.verifiers import EXACT_MATCH, answer_key, final_answer, verify
from curation.errors import InputError
from curation.refusals.dressing import spoken
from curation.refusals.notices import is_empty_or_filtered
from curation.text import Message, normalise

__all__ = ["SURE", "UNSURE", "RTuned", "answer_entropy", "r_tuning"]

SURE: Final = "I am sure."
UNSURE: Final = "I am unsure."

_REASONS: Final = {
    "no_answer": "the model gave no answer: nothing, endless reasoning, a filter's notice or a server's error",
    "no_gold": "there is no right answer to compare with",
    "answer_not_comparable": "no short final answer can be read out of the model's answer",
    "gold_not_comparable": "no short final answer can be read out of the right answer",
    "right_among_others": "the answer has the right one among other words, so it may be right",
    "cannot_tell": "the verifier cannot tell whether the answer is right",
    "too_few_answers": "too few of the sampled answers come to a short final answer",
}


class RTuned(NamedTuple):
    """The questions with their certainty, and the rows that could not be used."""

    frame: pl.DataFrame
    """The input with ``certainty`` (``sure``, ``unsure``), ``stated`` (the answer given: the right one, else the
    model's most frequent), ``target`` (the same with the sentence that says how sure), ``answers_read``, and
    ``answer_entropy`` (nats) or ``answer_correct``."""
    rejects: pl.DataFrame
    """``row``, ``rule``, ``value``, ``reason``."""


class _Answer(NamedTuple):
    given: str
    said: str
    """Without the reasoning before it, which differs where two answers are the same."""


class _Question(NamedTuple):
    row: int
    answers: list[_Answer]
    golds: list[str]
    prompt: Sequence[Message]
    first: list[_Answer]
    """The greedy answer; nothing where that one is empty, for the next is a sampled one."""


def answer_entropy(answers: Sequence[str]) -> float:
    """−Σ p log p over the distinct answers, in nats: what they come to counts, not case, space or punctuation."""
    counts = Counter(_key(answer) for answer in answers)
    total = sum(counts.values())
    return 0.0 - sum(n / total * math.log(n / total) for n in sorted(counts.values())) if total else 0.0


def r_tuning(
    frame: pl.DataFrame,
    *,
    by: Literal["correctness", "entropy"] = "correctness",
    answers: str = "answers",
    gold: str = "gold",
    messages: str = "messages",
    verifier: str = EXACT_MATCH,
    max_entropy: float | None = None,
    min_answers: int = 2,
    family: str | None = None,
    sure: str = SURE,
    unsure: str = UNSURE,
) -> RTuned:
    """Label questions as sure or unsure (Zhang et al. 2023).

    Args:
        frame: one question a row. ``answers`` is a string or a list of strings: the model's own answers, the
            greedy one first; reasoning before an answer is not compared. ``gold`` is the right answer or a list of
            them; only ``correctness`` needs it. ``messages``, the question, is there for a verifier of the user's.
        by: ``correctness`` (R-Tuning): sure where the first answer is right. ``entropy`` (R-Tuning-U): the
            half of the questions with the lowest entropy is sure. Questions of equal entropy are treated equally:
            those in the middle go where they leave the halves more alike, and are sure where all answers agree.
        verifier: see :func:`curation.candidates.verifiers.verify`. ``exact_match`` compares what answers come to; a
            question where that cannot be read is rejected, because it would be unsure for its form alone.
        max_entropy: nats up to which a question is sure, in place of the half.
        min_answers: for ``entropy``, the answers that must come to something.
        family: a column that rows of one question share, such as a prompt and what was mutated from it: the half
            is sought among the first usable rows of each, and the others go by its limit. Null is a question alone.
        sure: the sentence added to a sure answer.
        unsure: the sentence added to an unsure one.

    Raises:
        InputError: when a column is missing, or there is no such verifier.
        ModelError: when a verifier does not return a truth value for each answer.
    """
    needed = [answers, *([gold] if by == "correctness" else []), *([] if family is None else [family])]
    for column in needed:
        if column not in frame.columns:
            raise InputError(f"r_tuning: column {column!r} is missing, found {', '.join(frame.columns)}")
    questions = _questions(frame, answers, gold, messages)
    if by == "correctness":
        greedy = [q._replace(answers=q.first) for q in questions]
        usable, bad, measure, certain = _by_correctness(greedy, verifier)
    else:
        families = [None] * frame.height if family is None else frame[family].to_list()
        usable, bad, measure, certain = _by_entropy(questions, max_entropy, min_answers, families)
    stated = [q.golds[0].strip() if q.golds else _most_frequent(q.answers) for q in usable]
    kept = frame[[q.row for q in usable]].with_columns(
        pl.Series("certainty", ["sure" if s else "unsure" for s in certain], dtype=pl.String),
        pl.Series("stated", stated, dtype=pl.String),
        pl.Series(
            "target",
            [f"{t} {sure if s else unsure}" for t, s in zip(stated, certain, strict=True)],
            dtype=pl.String,
        ),
        pl.Series("answers_read", [len(q.answers) for q in usable], dtype=pl.Int64),
        measure,
    )
    return RTuned(kept, _rejects(bad))


def _questions(frame: pl.DataFrame, answers: str, gold: str, messages: str) -> list[_Question]:
    nothing: list[None] = [None] * frame.height
    golds = frame[gold].to_list() if gold in frame.columns else nothing
    prompts = frame[messages].to_list() if messages in frame.columns else nothing
    values = frame[answers].to_list()
    given = [_texts(value) for value in values]
    said = zip(*spoken([text for texts in given for text in texts]), strict=True)
    found = []
    for row, (value, texts, g, p) in enumerate(zip(values, given, golds, prompts, strict=True)):
        right = _texts(g)
        answered = _answered(texts, islice(said, len(texts)), right)
        greedy = value if value is None or isinstance(value, str) else next(iter(value), None)
        found.append(_Question(row, answered, right, p or [], [a for a in answered[:1] if a.given == greedy]))
    return found


def _answered(given: Sequence[str], said: Iterable[tuple[str, bool]], golds: Sequence[str]) -> list[_Answer]:
    """Without a server's errors, a filter's notices and endless reasoning: they do not say what a model knows."""
    found = [_Answer(text, words) for text, (words, endless) in zip(given, said, strict=True) if not endless]
    return [a for a in found if a.given in golds or not is_empty_or_filtered(a.said)]


_Labelled = tuple[list[_Question], list[tuple[int, str, str | None]], pl.Series, list[bool]]


def _by_correctness(questions: Sequence[_Question], verifier: str) -> _Labelled:
    bad: list[tuple[int, str, str | None]] = []
    asked = []
    for q in questions:
        rule = _unfit(q, verifier)
        if rule is None:
            asked.append(q)
        else:
            bad.append((q.row, rule, None))
    right = verify(
        verifier, [q.prompt for q in asked], [q.answers[0].said for q in asked], [q.golds for q in asked]
    )
    # What an exact match cannot tell holds the right answer among other words ("It is 4.", "Paris, I think").
    untold = "right_among_others" if verifier == EXACT_MATCH else "cannot_tell"
    bad += [(q.row, untold, None) for q, r in zip(asked, right, strict=True) if r is None]
    told = [(q, bool(r)) for q, r in zip(asked, right, strict=True) if r is not None]
    usable, correct = [q for q, _ in told], [r for _, r in told]
    return usable, bad, pl.Series("answer_correct", correct, dtype=pl.Boolean), correct


def _unfit(question: _Question, verifier: str) -> str | None:
    """Why a question cannot be told right from wrong, if it cannot."""
    if not question.answers:
        return "no_answer"
    if not question.golds:
        return "no_gold"
    if verifier != EXACT_MATCH:
        return None
    if not final_answer(question.answers[0].said):
        return "answer_not_comparable"
    return None if any(final_answer(gold) for gold in question.golds) else "gold_not_comparable"


def _by_entropy(
    questions: Sequence[_Question], max_entropy: float | None, min_answers: int, families: Sequence[object]
) -> _Labelled:
    bad: list[tuple[int, str, str | None]] = []
    usable = []
    for q in questions:
        read = [answer for answer in q.answers if answer_key(answer.said)]
        if not q.answers:
            bad.append((q.row, "no_answer", None))
        elif len(read) < min_answers:
            bad.append((q.row, "too_few_answers", f"{len(read)} of {len(q.answers)}"))
        else:
            usable.append(q._replace(answers=read))
    entropy = [answer_entropy([answer.said for answer in q.answers]) for q in usable]
    of_each = dict[object, float]()
    for q, value in zip(usable, entropy, strict=True):
        name = families[q.row]
        of_each.setdefault(("row", q.row) if name is None else ("family", name), value)
    limit = _middle(list(of_each.values())) if max_entropy is None else max_entropy
    return usable, bad, pl.Series("answer_entropy", entropy, dtype=pl.Float64), [e <= limit for e in entropy]


def _middle(entropy: Sequence[float]) -> float:
    """The highest entropy of the lower half; equal ones stay together."""
    ordered = sorted(entropy)
    half = len(ordered) // 2
    if not ordered:
        return 0.0
    here = ordered[half - 1] if half else ordered[0]
    if half and here < ordered[half]:
        return here
    below, upto = sum(e < here for e in ordered), sum(e <= here for e in ordered)
    if here == 0.0 or abs(upto - len(ordered) / 2) < abs(len(ordered) / 2 - below):
        return here
    return max((e for e in ordered if e < here), default=-1.0)


def _most_frequent(answers: Sequence[_Answer]) -> str:
    """The first answer of the most frequent sort, as it was given; of equally frequent ones the earlier."""
    keys = [_key(answer.said) for answer in answers]
    counts = Counter(keys)
    return answers[keys.index(max(counts, key=counts.__getitem__))].given.strip()


def _rejects(bad: Sequence[tuple[int, str, str | None]]) -> pl.DataFrame:
    return pl.DataFrame(
        [(row, rule, value, _REASONS[rule]) for row, rule, value in sorted(bad, key=lambda b: b[0])],
        schema={"row": pl.Int64, "rule": pl.String, "value": pl.String, "reason": pl.String},
        orient="row",
    )


def _texts(value: str | Sequence[str | None] | None) -> list[str]:
    values = [value] if value is None or isinstance(value, str) else list(value)
    return [text for text in values if text is not None and text.strip()]


def _key(answer: str) -> str:
    return answer_key(answer) or " ".join(normalise(answer).casefold().split())

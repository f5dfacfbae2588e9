"""What the light heads read of a prompt and an answer: style, structure and relevance, as numbers.

Every feature is a function of one (prompt, answer), so the difference of two answers' features is
antisymmetric: swapping the answers flips its sign, and a linear head over differences is a
Bradley–Terry model. No learning here, no files.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["FEATURE_VERSION", "TEXT_FEATURES", "relevance_features", "text_features"]

FEATURE_VERSION: Final = 1


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_WORD: Final = re.compile(r"\w+(?:['’]\w+)*")
_SENTENCE_END: Final = re.compile(r"[.!?。！？]+(?:\s|$)|\n+")
_BULLET: Final = re.compile(r"^[ \t]*[-*•]\s+", re.MULTILINE)
_NUMBERED: Final = re.compile(r"^[ \t]*\(?\d+[.):]\s*", re.MULTILINE)
_HEADING: Final = re.compile(r"^(?:#{1,6}\s|\*\*[^*\n]+\*\*:?[ \t]*$|[A-Z][^\n.]{0,60}:[ \t]*$)", re.MULTILINE)
_REFUSAL: Final = re.compile(
    r"\bi(?:['’]m| am) (?:sorry|unable|not able|afraid)\b"
    r"|\bi (?:can(?:['’]?t|not)|won['’]t|could not|couldn['’]t|apologi[sz]e)\b"
    r"|\bi do(?: not|n['’]t) (?:have|know|understand|feel comfortable)\b"
    r"|\bas an? (?:ai|language|artificial)\b|\bunfortunately\b|\bit is not (?:clear|possible|appropriate)\b"
)
_OPENING: Final = re.compile(r"(?:sure|certainly|of course|absolutely|great|here(?:['’]s| is| are)|yes)\b")
_LEAK: Final = re.compile(
    r"^[ \t]*(?:###|<\|?\w"
    r"|(?:user|human|assistant|instruction|question|input|output|student|teacher|q|a)[ \t]*:)",
    re.MULTILINE,
)
_PLACEHOLDER: Final = re.compile(r"\[[^\]\n]{2,40}\]|<[a-z_ ]{3,30}>|https?://")
_CONNECTIVES: Final = _words(
    "because therefore however first firstly second secondly finally additionally furthermore thus overall "
    "moreover while although then next since instance example conclusion summary"
)
_HEDGES: Final = _words("may might could perhaps possibly likely generally often usually can")
_FIRST_PERSON: Final = _words("i my me i'm i've i'll i'd i’m i’ve i’ll i’d")
_SECOND_PERSON: Final = _words("you your yours you're you’re")
_LAST_LATIN: Final = 591  # the last letter of Latin Extended-B
_GOOD_END: Final = tuple(".!?:)]}\"'”’`|>*。！？…")
_STOPWORDS: Final = _words(
    "a an and are as at be but by can do for from has have how i if in is it its me my not of on or our "
    "please so such than that the their them then there these they this to was we were what when which "
    "who why will with would you your"
)

TEXT_FEATURES: Final = (
    "log_chars",
    "log_chars_squared",
    "very_short",
    "log_words",
    "log_length_over_prompt",
    "word_length",
    "log_sentences",
    "sentence_length",
    "log_paragraphs",
    "log_bullets",
    "log_numbered",
    "log_headings",
    "code_block",
    "ends_well",
    "ends_with_question",
    "questions",
    "exclamations",
    "lower_case_start",
    "eager_opening",
    "refusal_start",
    "refusals",
    "turn_leak",
    "placeholders",
    "connectives",
    "hedges",
    "first_person",
    "second_person",
    "digits",
    "upper_case",
    "punctuation",
    "non_ascii_mismatch",
    "distinct_words",
    "distinct_trigrams",
    "repeated_sentences",
    "compression",
    "prompt_words_covered",
    "words_from_prompt",
    "copies_prompt",
    "rare_long_words",
    "numbers_missing",
)


def text_features(prompts: Sequence[str], responses: Sequence[str]) -> npt.NDArray[np.float64]:
    """(n, len(TEXT_FEATURES)) numbers of moderate size; an empty answer has features too."""
    rows = [_features(p, r) for p, r in zip(prompts, responses, strict=True)]
    return np.asarray(rows, dtype=np.float64).reshape(len(rows), len(TEXT_FEATURES))


def relevance_features(
    prompts: npt.NDArray[np.float32], responses: npt.NDArray[np.float32]
) -> npt.NDArray[np.float64]:
    """(n, 2): the cosine of prompt and answer, and its square; both inputs (n, d), L2-normalised."""
    cosine = np.einsum("nd,nd->n", prompts, responses, dtype=np.float64)
    return np.stack([cosine, cosine**2], axis=1)


def _features(prompt: str, response: str) -> list[float]:
    text = response.strip()
    words = [word.lower() for word in _WORD.findall(text)]
    asked = [word.lower() for word in _WORD.findall(prompt)]
    count = max(len(words), 1)
    log_chars = math.log1p(len(text))
    return [
        log_chars,
        (log_chars - 6.0) ** 2,
        float(len(words) < 8),
        math.log1p(len(words)),
        log_chars - math.log1p(len(prompt)),
        sum(map(len, words)) / count,
        *_structure(text, count),
        *_manner(text, words),
        *_characters(prompt, text),
        *_repetition(text, words),
        *_overlap(prompt, text, asked, words),
    ]


def _structure(text: str, count: int) -> list[float]:
    sentences = max(1, len([part for part in _SENTENCE_END.split(text) if part.strip()]))
    return [
        math.log1p(sentences),
        math.log1p(count / sentences),
        math.log1p(text.count("\n\n")),
        math.log1p(len(_BULLET.findall(text))),
        math.log1p(len(_NUMBERED.findall(text))),
        math.log1p(len(_HEADING.findall(text))),
        float("```" in text),
        float(text.endswith(_GOOD_END)),
        float(text.endswith("?")),
        math.log1p(text.count("?")),
        math.log1p(text.count("!")),
    ]


def _manner(text: str, words: list[str]) -> list[float]:
    lower = text.lower()
    share = 20 / max(len(words), 1)
    return [
        float(text[:1].islower()),
        float(_OPENING.match(lower) is not None),
        float(_REFUSAL.search(lower[:120]) is not None),
        math.log1p(len(_REFUSAL.findall(lower))),
        math.log1p(len(_LEAK.findall(lower))),
        math.log1p(len(_PLACEHOLDER.findall(lower))),
        math.log1p(_count(words, _CONNECTIVES)),
        share * _count(words, _HEDGES),
        share * _count(words, _FIRST_PERSON),
        share * _count(words, _SECOND_PERSON),
    ]


def _count(words: list[str], listed: frozenset[str]) -> int:
    return sum(map(listed.__contains__, words))


def _characters(prompt: str, text: str) -> list[float]:
    codes = _codes(text)
    count = max(len(codes), 1)
    digits = (codes >= ord("0")) & (codes <= ord("9"))
    upper = (codes >= ord("A")) & (codes <= ord("Z"))
    lower = (codes >= ord("a")) & (codes <= ord("z"))
    punctuation = (codes > ord(" ")) & (codes < 127) & ~digits & ~upper & ~lower
    asked = _codes(prompt)
    foreign, asked_foreign = (
        (codes > _LAST_LATIN).sum() / count,
        (asked > _LAST_LATIN).sum() / max(len(asked), 1),
    )
    return [
        math.sqrt(digits.sum() / count),
        math.sqrt(upper.sum() / count),
        math.sqrt(punctuation.sum() / count),
        abs(float(foreign - asked_foreign)),
    ]


def _codes(text: str) -> npt.NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)


def _repetition(text: str, words: list[str]) -> list[float]:
    trigrams = list(zip(words, words[1:], words[2:], strict=False))
    parts = [part.strip().lower() for part in _SENTENCE_END.split(text)]
    parts = [part for part in parts if len(part) > 12]
    data = text.encode("utf-8", "surrogatepass")
    return [
        math.log1p(len(set(words))) / math.log1p(max(len(words), 1)) if words else 1.0,
        len(set(trigrams)) / len(trigrams) if trigrams else 1.0,
        1.0 - len(set(parts)) / len(parts) if parts else 0.0,
        len(zlib.compress(data, 6)) / len(data) if len(data) > 100 else 0.6,
    ]


def _overlap(prompt: str, text: str, asked: list[str], words: list[str]) -> list[float]:
    content = {word for word in asked if word not in _STOPWORDS}
    said = set(words)
    said_content = {word for word in said if word not in _STOPWORDS}
    numbers = {word for word in asked if word.isdigit()}
    head = prompt.strip().lower()[:60]
    return [
        len(content & said) / len(content) if content else 0.0,
        len(content & said_content) / len(said_content) if said_content else 0.0,
        float(len(head) > 15 and head in text.lower()),
        sum(len(word) > 9 for word in words) / max(len(words), 1) * 5,
        len(numbers - said) / len(numbers) if numbers else 0.0,
    ]

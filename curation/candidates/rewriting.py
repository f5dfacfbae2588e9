"""What a chat model is asked in order to rewrite a text, and when its reply is fit for use. No model is here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import polars as pl

from curation.candidates.checks import CUT_OFF
from curation.text import Message, normalise

__all__ = ["ERROR_INSTRUCTION", "REFINE_INSTRUCTION", "check_rewrites", "rewrite_request"]

ERROR_INSTRUCTION: Final = (
    "Below are a request and a correct answer to it. Rewrite the answer so that it contains exactly one subtle but "
    "definite error: a wrong fact, name, date, quantity, condition or conclusion that a careful reader could find. "
    "Keep every other word, the tone and the layout as they are. Do not hint at the error. "
    "Write the changed answer and nothing else."
)
"""RISE (Xu et al. 2024): one subtle error, the rest untouched."""

REFINE_INSTRUCTION: Final = (
    "Below are a request and an answer to it that falls short. Correct the answer so that it does what the "
    "request asks, fully and accurately, and change as little as you can: keep every sentence that is right word "
    "for word. Write the corrected answer and nothing else."
)
"""SPaR (Cheng et al. 2024): the refined answer differs only where it matters."""


_SAYS_NOTHING: Final = re.compile(r"(?<!\d)[.,]|[.,](?!\d)|[;:!?…\"'“”‘’`]|\*\*|__")


def rewrite_request(instruction: str, parts: Mapping[str, str]) -> list[Message]:
    """One user message: the instruction, then each part under its name."""
    body = "\n\n".join(f"[{name}]\n{text}" for name, text in parts.items())
    return [{"role": "user", "content": f"{instruction}\n\n{body}"}]


def check_rewrites(rewrites: pl.DataFrame, *, min_similarity: float, by_words: bool = False) -> pl.DataFrame:
    """The rule that each rewritten text breaks, or null.

    Args:
        rewrites: ``before``, ``after``, ``finish_reason``.
        min_similarity: 1 − edit distance / longer length that a rewrite keeps at least; 0 allows any.
        by_words: whether another case, emphasis or punctuation is no change. For errors: it makes nothing wrong.

    Returns:
        The frame with ``rule`` (``rewrite_truncated``, ``rewrite_empty``, ``rewrite_unchanged``,
        ``rewrite_too_different``), ``value`` and ``reason``.
    """
    from rapidfuzz.distance import Levenshtein

    found: list[tuple[str | None, str | None, str | None]] = []
    for before, after, finish in rewrites.select("before", "after", "finish_reason").iter_rows():
        plain = normalise(after)
        kept = Levenshtein.normalized_similarity(normalise(before), plain)
        if finish in CUT_OFF:
            found.append(("rewrite_truncated", finish, "the rewritten text was cut off"))
        elif not plain:
            found.append(("rewrite_empty", "", "the model wrote nothing"))
        elif kept == 1 or (by_words and _said(before) == _said(after)):
            found.append(("rewrite_unchanged", f"{kept:.4f}", "the model changed nothing"))
        elif kept < min_similarity:
            found.append(("rewrite_too_different", f"{kept:.4f}", "the model rewrote more than was asked"))
        else:
            found.append((None, None, None))
    schema = dict.fromkeys(("rule", "value", "reason"), pl.String)
    return pl.concat([rewrites, pl.DataFrame(found, schema=schema, orient="row")], how="horizontal")


def _said(text: str) -> str:
    """A text by its words, numbers and signs; of code every character counts."""
    if "```" in text:
        return text
    return " ".join(_SAYS_NOTHING.sub(" ", normalise(text)).casefold().split())

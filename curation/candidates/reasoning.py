"""Reasoning that a model writes before its answer: found by the model's markers, and set apart."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import polars as pl

__all__ = ["REASONING_MARKERS", "split_reasoning", "with_openings"]

REASONING_MARKERS: Final[tuple[tuple[str, str], ...]] = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
)
"""What open models write: DeepSeek-R1 and Qwen3, Magistral, Kimi-VL, Seed-OSS, Sky-T1, gpt-oss."""

_FENCE: Final = r"(?:^|\n)[ \t]*(?:```|~~~)"
_FEWEST: Final = 3
"""Answers that close a thought which they do not open, before a model is taken for one whose template opens it."""


def with_openings(
    answers: pl.DataFrame, *, markers: Sequence[tuple[str, str]] = REASONING_MARKERS, opened: bool = False
) -> pl.Series:
    """The answers, with an opening marker before those that begin inside a thought and do not show it.

    A server gives what the model wrote, and not what its chat template wrote before it. Where the template opens
    the thought, an answer that is cut inside it has no marker at all, and some models go on behind the closing
    marker in the same line. Both can only be told by the model's other answers: if more than half of those that
    ended (and at least three) hold a closing marker once, outside code, with no opening one, its template opens it.

    Args:
        answers: ``response``; ``generator``, ``finish_reason`` and ``prompt`` (text) where there are any. A prompt
            that speaks of the marker tells nothing.
        opened: whether the template is known to open the thought. Then an answer without any marker is all thought.

    Returns:
        n texts for :func:`split_reasoning`. Only answers without an opening marker are touched: those with a
        closing one, and those without one that did not end by themselves.
    """
    frame = answers.with_columns(
        pl.lit(None, dtype=pl.String).alias(name)
        for name in ("generator", "finish_reason", "prompt")
        if name not in answers.columns
    ).select(pl.col("response", "generator", "finish_reason", "prompt").cast(pl.String))
    text = pl.col("response").fill_null("")
    found = [marker for marker in markers if frame["response"].str.contains(marker[1], literal=True).any()]
    if opened:
        bare = ~pl.any_horizontal(text.str.contains(one, literal=True) for pair in markers for one in pair)
        inside = [(bare & (text.str.strip_chars() != ""), markers[0][0])]
        inside += [(text.str.contains(c, literal=True) & ~text.str.contains(o, literal=True), o) for o, c in found]
    elif found:
        inside = [(_begins_inside(*marker), marker[0]) for marker in found]
    else:
        return frame["response"]
    written = pl.coalesce(pl.when(is_inside).then(pl.lit(opening)) for is_inside, opening in inside)
    return frame.select(pl.concat_str(written.fill_null(""), "response").alias("response"))["response"]


def _begins_inside(opening: str, closing: str) -> pl.Expr:
    """Whether an answer without an opening marker goes on with a thought that the template has opened."""
    text = pl.col("response").fill_null("")
    before = text.str.extract(rf"(?s)^(.*?){_escaped(closing)}", 1)
    once = (text.str.count_matches(closing, literal=True) == 1) & _is_headless(before, opening, closing)
    quoted = text.str.contains(f"{closing}`", literal=True)
    asked = pl.col("prompt").fill_null("").str.contains(closing, literal=True)
    closes = once & ~quoted & ~asked
    ended = (pl.col("finish_reason") == "stop").fill_null(value=False)
    told = closes.sum().over("generator")
    opens = (told >= _FEWEST) & (2 * told > (ended | closes).sum().over("generator"))
    bare = ~text.str.contains(opening, literal=True) & ~text.str.contains(closing, literal=True)
    bare &= text.str.strip_chars() != ""
    return opens & (closes | (bare & pl.col("finish_reason").is_not_null() & ~ended))


def split_reasoning(
    responses: pl.Series, *, markers: Sequence[tuple[str, str]] = REASONING_MARKERS
) -> pl.DataFrame:
    """Each text as answer and reasoning.

    Only what stands *before* the answer is reasoning: one or more blocks at the very beginning. A text that
    writes about the markers further on is left as it is. Where a chat template has already written the
    opening marker the answer begins inside the block; then everything up to a closing marker is reasoning,
    if that marker stands at the end of a line and neither in code nor beside a back-tick, and no opening
    marker comes before it.

    Args:
        responses: n texts, nulls allowed.
        markers: pairs of an opening and a closing marker; the first pair that a text begins with is used.

    Returns:
        n rows: ``response`` (the answer, without white space around it where something was cut off, else as
        given), ``reasoning`` (null for none), ``unclosed`` (whether a block begins and does not end; then all of
        the text is reasoning, and the answer is empty).
    """
    given = responses.cast(pl.String).alias("given").to_frame()
    answer, reasoning = pl.col("given"), pl.lit(None, dtype=pl.String)
    unclosed = pl.lit(value=False)
    for opening, closing in reversed(tuple(markers)):
        block, inside = _patterns(opening, closing)
        starts = pl.col("given").str.strip_chars_start().str.starts_with(opening)
        whole = pl.col("given").str.extract(block, 1)
        rest = pl.col("given").str.replace(block, "").str.strip_chars()
        begun_again = rest.str.starts_with(opening)
        ends, open_end = starts & whole.is_not_null() & ~begun_again, starts & (whole.is_null() | begun_again)
        headless = pl.col("given").str.extract(inside, 1)
        cut = _is_headless(headless, opening, closing)
        between = rf"{_escaped(closing)}\s*{_escaped(opening)}"
        thought = whole.str.strip_chars().str.strip_prefix(opening).str.strip_suffix(closing)
        thought = thought.str.replace_all(between, "\n\n").str.strip_chars()
        tail = pl.col("given").str.strip_chars().str.strip_prefix(opening)
        tail = tail.str.replace_all(between, "\n\n").str.strip_chars()
        reasoning = (
            pl.when(ends).then(thought).when(open_end).then(tail).when(cut).then(headless.str.strip_chars())
            .otherwise(reasoning)
        )  # fmt: skip
        after = pl.col("given").str.replace(inside, "").str.strip_chars()
        answer = pl.when(ends).then(rest).when(open_end).then(pl.lit("")).when(cut).then(after).otherwise(answer)
        unclosed = (
            pl.when(open_end)
            .then(pl.lit(value=True))
            .when(ends | cut)
            .then(pl.lit(value=False))
            .otherwise(unclosed)
        )
    found = given.select(response=answer, reasoning=reasoning, unclosed=unclosed.fill_null(value=False))
    return found.with_columns(pl.when(pl.col("reasoning") != "").then(pl.col("reasoning")).alias("reasoning"))


def _patterns(opening: str, closing: str) -> tuple[str, str]:
    """Blocks at the beginning of a text; everything up to a closing marker that ends its line."""
    first, last = _escaped(opening), _escaped(closing)
    block = rf"(?s)^\s*({first}.*?{last}(?:\s*{first}.*?{last})*)"
    inside = rf"(?s)^(.*?){last}[ \t]*(?:\r?\n|$)"
    return block, inside


def _is_headless(before: pl.Expr, opening: str, closing: str) -> pl.Expr:
    plain = ~before.str.contains(opening, literal=True) & ~before.str.contains(closing, literal=True)
    in_code = before.str.count_matches(_FENCE) % 2 == 1
    return (before.is_not_null() & plain & ~in_code & ~before.str.ends_with("`")).fill_null(value=False)


def _escaped(marker: str) -> str:
    """A marker as a regular expression that Rust reads, too."""
    return re.sub(r"([\\.+*?()|\[\]{}^$#&\-~])", r"\\\1", marker)

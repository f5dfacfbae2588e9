"""Reasoning that a model writes before its answer: found by the model's markers, and set apart."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import polars as pl

__all__ = ["REASONING_MARKERS", "split_reasoning"]

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

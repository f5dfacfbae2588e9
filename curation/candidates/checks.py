"""Answers that are no answers: empty, cut off, looping, or with parts of a chat template in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import polars as pl

from curation.candidates.leakage import template_leakage
from curation.candidates.loops import MIN_LOOP_CHARACTERS, MIN_LOOP_REPEATS, repetition_loops
from curation.candidates.reasoning import REASONING_MARKERS, split_reasoning, with_openings
from curation.text import BLANK

__all__ = ["ANSWER_RULES", "CUT_OFF", "check_answers"]

ANSWER_RULES: Final = ("empty_response", "unclosed_reasoning", "truncated", "template_leakage", "repetition_loop")
CUT_OFF: Final = ("length", "content_filter")
"""Finish reasons of answers that were cut: at the most tokens, or by a provider's filter."""
_ALWAYS: Final = ("empty_response", "unclosed_reasoning")
_REASONS: Final = {
    "empty_response": "the model answered with nothing",
    "unclosed_reasoning": "the model was still reasoning when the answer ended",
    "truncated": "the answer was cut off, at the most tokens allowed or by the provider's filter",
    "template_leakage": "the answer holds a marker of a chat template",
    "repetition_loop": "the answer repeats itself to its end",
}


def check_answers(
    answers: pl.DataFrame,
    *,
    rules: Sequence[str] = ANSWER_RULES,
    markers: Sequence[tuple[str, str]] = REASONING_MARKERS,
    opened: bool = False,
    loop_characters: int = MIN_LOOP_CHARACTERS,
    loop_repeats: int = MIN_LOOP_REPEATS,
) -> pl.DataFrame:
    """Answers with their reasoning set apart, and the first rule that each one breaks.

    Args:
        answers: ``response``; ``prompt`` (text), ``finish_reason``, ``generator`` (answers of one are looked at
            together) and ``reasoning`` (what a server set apart itself) where there are any.
        rules: of :data:`ANSWER_RULES`, those that are asked. Answers without content are always found.
        markers: see :func:`split_reasoning`.
        opened: see :func:`with_openings`.

    Returns:
        The frame with ``response`` and ``reasoning`` split, and ``rule``, ``value``, ``reason`` (null where nothing
        is wrong). Rows and their order are kept.
    """
    split = split_reasoning(with_openings(answers, markers=markers, opened=opened), markers=markers)
    given = (
        answers["reasoning"]
        if "reasoning" in answers.columns
        else pl.Series([None] * answers.height, dtype=pl.String)
    )
    reasoning = pl.concat_str(
        [given.alias("a"), split["reasoning"].alias("b")], separator="\n\n", ignore_nulls=True
    )
    reasoning = (
        pl.when(given.alias("a").is_null() & split["reasoning"].alias("b").is_null())
        .then(None)
        .otherwise(reasoning)
    )
    frame = answers.with_columns(split["response"], pl.select(reasoning.alias("reasoning")).to_series())
    findings = _findings(frame, split["unclosed"], loop_characters, loop_repeats)
    asked = [name for name in ANSWER_RULES if name in {*rules, *_ALWAYS}]
    rule = pl.coalesce(pl.when(findings[name].is_not_null()).then(pl.lit(name)) for name in asked)
    value = pl.coalesce(findings[name] for name in asked)
    named = frame.with_columns(rule=rule, value=value)
    return named.with_columns(reason=pl.col("rule").replace_strict(_REASONS, default=None, return_dtype=pl.String))


def _findings(frame: pl.DataFrame, unclosed: pl.Series, characters: int, repeats: int) -> dict[str, pl.Series]:
    """For each rule the offending value, null where the answer keeps it."""
    responses = frame["response"]
    blank = responses.str.strip_chars(BLANK) == ""
    finish = (
        frame["finish_reason"]
        if "finish_reason" in frame.columns
        else pl.Series([None] * frame.height, dtype=pl.String)
    )
    prompts = frame["prompt"] if "prompt" in frame.columns else None
    loops = repetition_loops(responses, min_characters=characters, min_repeats=repeats)
    looping = loops.select(
        pl.when(pl.col("repeats").is_not_null()).then(
            pl.format("{} characters {} times", "unit_characters", "repeats")
        ).alias("value")
    )["value"]  # fmt: skip
    empty = pl.Series([None] * frame.height, dtype=pl.String)
    return {
        "empty_response": _where(blank & ~unclosed, empty.fill_null("")),
        "unclosed_reasoning": _where(unclosed, finish.fill_null("")),
        "truncated": _where(finish.is_in(CUT_OFF).fill_null(value=False), finish),
        "template_leakage": template_leakage(responses, prompts),
        "repetition_loop": looping,
    }


def _where(mask: pl.Series, values: pl.Series) -> pl.Series:
    """The values where the mask is true, else null."""
    return pl.select(pl.when(mask.alias("m")).then(values.alias("v")).alias("value")).to_series()

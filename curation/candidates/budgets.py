"""How many answers each prompt gets, by how hard it is (DART-Math, Tong et al. 2024). What counts as a success,
and who answers, is the caller's.

Sampling goes in rounds. A round is planned from what is known and from nothing else, so a rerun over the same
answers plans the same rounds and asks for nothing twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from curation.candidates.diversity import near_identical
from curation.errors import InputError

__all__ = ["Sampled", "difficulty_targets", "sample_until"]

Ints = npt.NDArray[np.int64]


class Sampled(NamedTuple):
    """What was asked for in the end."""

    samples: pl.DataFrame
    """``prompt_id``, ``sample_index``, ``success`` (null where no answer came), ``repeats``: the index of the
    sample that this one is nearly identical to, null for none."""
    short: pl.DataFrame
    """``prompt_id``, ``found``, ``target``, ``asked`` of the prompts whose target was not met within the bound."""
    rounds: int


def difficulty_targets(fail_rates: npt.NDArray[np.float64], *, hardest: int) -> Ints:
    """Prop2Diff: successes wanted of each prompt, in proportion to its fail rate, rounded up.

    The prompt with the highest fail rate gets ``hardest`` (k_p of the paper); a prompt that never fails
    gets 0. A fail rate of .75 where the highest is 1 and ``hardest`` 192: 144.

    Raises:
        InputError: when a rate is not in [0, 1], or ``hardest`` is less than 1.
    """
    rates = np.asarray(fail_rates, dtype=np.float64)
    if hardest < 1:
        raise InputError(f"the hardest prompt's budget is {hardest}, expected at least 1")
    if rates.size and not ((rates >= 0) & (rates <= 1)).all():
        raise InputError("a fail rate is not in [0, 1]")
    highest = rates.max(initial=0.0)
    if highest == 0:
        return np.zeros(rates.size, dtype=np.int64)
    # A product such as 0.1 * 3 / 0.3 is a hair above 1 in binary; that hair must not buy an answer.
    targets: Ints = np.ceil(np.round(rates / highest * hardest, 9)).astype(np.int64)
    return targets


def sample_until(
    prompt_ids: pl.Series,
    ask: Callable[[pl.DataFrame], pl.DataFrame],
    judge: Callable[[pl.DataFrame], pl.Series],
    *,
    successes: int | None = None,
    pilot: int | None = None,
    hardest: int | None = None,
    max_samples: int,
    max_rounds: int | None = None,
    near_threshold: float | None = None,
) -> Sampled:
    """Draw answers in rounds until each prompt has enough good ones, or its bound is reached.

    *Uniform*: ``successes`` of each prompt. *Prop2Diff*: ``pilot`` answers of each prompt, then as many
    successes as :func:`difficulty_targets` gives for its fail rate (the pilot's successes count). A round asks
    for exactly what is still wanting, so no prompt gets more successes than it needs. A failed request
    uses up its index.

    Args:
        prompt_ids: distinct.
        ask: gets ``prompt_id`` and ``sample_index``, distinct, and returns the answers that there are:
            ``prompt_id``, ``sample_index``, ``response``. It is asked for all samples known so far in each
            round, so that it can look them up in one go; it must not pay twice.
        judge: gets those answers and says of each whether it is a success.
        max_samples: indices a prompt, at most.
        max_rounds: rounds after the first; None for as many as ``max_samples`` allows.
        near_threshold: samples at least this similar to an earlier one do not count (see ``diversity``).

    Raises:
        InputError: when the arguments fit neither way, or a bound is less than what it bounds.
    """
    first = _first_round(successes, pilot, hardest, max_samples)
    asked = np.full(len(prompt_ids), min(first, max_samples), dtype=np.int64)
    names = prompt_ids.alias("prompt_id").to_frame().with_row_index("_prompt")
    rounds = 0
    targets = np.full(len(prompt_ids), successes or 0, dtype=np.int64)
    while True:
        samples = _answered(names, asked, ask, judge, near_threshold)
        found = _per_prompt(samples, useful=True, size=len(prompt_ids))
        if rounds == 0 and hardest is not None:
            targets = _targets(samples, hardest, size=len(prompt_ids))
        wanting = np.minimum(np.maximum(targets - found, 0), max_samples - asked)
        if not wanting.any() or (max_rounds is not None and rounds >= max_rounds):
            break
        asked += wanting
        rounds += 1
    short = names.select("prompt_id", found=pl.Series(found), target=pl.Series(targets), asked=pl.Series(asked))
    return Sampled(samples.drop("_prompt"), short.filter(pl.col("found") < pl.col("target")), rounds)


def _first_round(successes: int | None, pilot: int | None, hardest: int | None, max_samples: int) -> int:
    if (successes is None) == (pilot is None) or (pilot is None) != (hardest is None):
        raise InputError("a budget takes either successes, or pilot and hardest together")
    first = successes if successes is not None else pilot or 0
    if first < 1 or max_samples < first:
        raise InputError(f"a budget begins with {first} samples a prompt, and max_samples is {max_samples}")
    return first


def _answered(
    names: pl.DataFrame,
    asked: Ints,
    ask: Callable[[pl.DataFrame], pl.DataFrame],
    judge: Callable[[pl.DataFrame], pl.Series],
    near_threshold: float | None,
) -> pl.DataFrame:
    """Every sample asked for so far, with what is known of it."""
    wanted = names.with_columns(sample_index=pl.int_ranges(0, pl.Series(asked))).explode("sample_index")
    wanted = wanted.drop_nulls("sample_index").with_columns(pl.col("sample_index").cast(pl.Int64))
    answers = ask(wanted.select("prompt_id", "sample_index")).select("prompt_id", "sample_index", "response")
    judged = answers.with_columns(success=judge(answers).cast(pl.Boolean))
    none = pl.Series("repeats", [None] * answers.height, dtype=pl.Int64)
    repeats = none if near_threshold is None else near_identical(judged, threshold=near_threshold)
    known = judged.with_columns(repeats).select("prompt_id", "sample_index", "success", "repeats")
    return wanted.join(known, on=["prompt_id", "sample_index"], how="left", maintain_order="left")


def _per_prompt(samples: pl.DataFrame, *, useful: bool, size: int) -> Ints:
    good = pl.col("success").fill_null(value=False)
    rows = samples.filter(good & pl.col("repeats").is_null() if useful else good)
    return np.bincount(rows["_prompt"].to_numpy(), minlength=size).astype(np.int64)


def _targets(samples: pl.DataFrame, hardest: int, *, size: int) -> Ints:
    """From the fail rates of the pilot. A prompt without any answer has no rate, and gets nothing more."""
    answered = samples.filter(pl.col("success").is_not_null())
    counts = np.bincount(answered["_prompt"].to_numpy(), minlength=size)
    right = _per_prompt(answered, useful=False, size=size)
    rates = np.where(counts > 0, 1 - right / np.maximum(counts, 1), 0.0)
    return difficulty_targets(rates, hardest=hardest)

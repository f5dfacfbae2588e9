"""Which prompts the recipe's ``hygiene.select`` chooses, for diversity or likeness to a target. No stage is here.

The methods are in ``curation.hygiene.selection``; the stage is ``hygiene``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from curation.errors import InputError
from curation.hygiene.contamination import evaluation_texts
from curation.hygiene.evaluations import read_evaluations
from curation.hygiene.selection import (
    dsir_log_weights,
    facility_location,
    gumbel_top_k,
    k_centre,
    length_matched,
    transport_select,
)
from curation.negatives.inputs import Float32, Int64
from curation.negatives.search import exact_search
from curation.recipe.hygiene import PromptSelection
from curation.stages.context import Context
from curation.stages.ledger_encoder import LedgerEncoder

__all__ = ["ChosenPrompts", "choose_prompts"]


class ChosenPrompts(NamedTuple):
    """What a selection does not take."""

    left_out: Int64
    """Positions, rising."""
    nearest: Int64 | None
    """For each of them the nearest prompt that was taken; None where no embeddings were compared."""
    score: Any
    """For each of them: cosine with that one, DSIR's log weight, or the length in characters."""
    measure: str
    """What the score is."""


def choose_prompts(context: Context, texts: Sequence[str], options: PromptSelection) -> ChosenPrompts:
    """The prompts that a selection leaves out.

    Raises:
        InputError: when the target cannot be read, or has no text.
    """
    count = min(len(texts), options.wanted(len(texts)))
    target = _target(options)
    seed = context.recipe.seed
    if count == len(texts):
        return ChosenPrompts(np.empty(0, np.int64), None, np.empty(0), "")
    if options.method == "dsir":
        weights = dsir_log_weights(texts, target)
        left_out = _others(gumbel_top_k(weights, count, seed=seed), len(texts))
        return ChosenPrompts(left_out, None, weights[left_out], "log weight")
    if options.method == "lengths":
        lengths = np.array([len(text) for text in texts], np.float64)
        chosen = length_matched(lengths, [len(text) for text in target], count, seed=seed)
        left_out = _others(chosen, len(texts))
        return ChosenPrompts(left_out, None, lengths[left_out], "characters")
    encoder = LedgerEncoder(context)
    vectors: Float32 = encoder.encode(texts).vectors
    if options.method == "transport":
        chosen = transport_select(vectors, encoder.encode(target).vectors, count)
    elif options.method == "k_centre":
        chosen = k_centre(vectors, count, seed=seed)
    else:
        chosen = facility_location(vectors, count, seed=seed)
    left_out = _others(chosen, len(texts))
    found = exact_search(vectors[left_out], vectors[chosen], 1)
    return ChosenPrompts(left_out, chosen[found.rows[:, 0]], found.scores[:, 0], "cosine")


def _target(options: PromptSelection) -> list[str]:
    if options.target is None:
        return []
    frames = [
        evaluation_texts(rows, "prompt", name=name) for name, rows in read_evaluations([options.target]).items()
    ]
    texts = pl.concat(frames)["text"].to_list()
    if not texts:
        raise InputError(f"{options.target}: found no text, expected the prompts that hygiene.select aims at")
    return texts


def _others(chosen: Int64, count: int) -> Int64:
    left = np.ones(count, np.bool_)
    left[chosen] = False
    return np.flatnonzero(left)

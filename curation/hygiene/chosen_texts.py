"""Which of some texts a method chooses, for diversity or likeness to a target, and what is near the others.

The methods are in ``selection``; the stage ``hygiene`` and the command ``select`` call this.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import polars as pl

from curation.errors import InputError, closest
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
from curation.hygiene.semantic import encode_whole
from curation.models.encoder import as_encoder
from curation.models.protocols import Encoder
from curation.negatives.inputs import Int64
from curation.negatives.search import exact_search

__all__ = ["AIMED", "SELECTIONS", "ChosenTexts", "choose_texts", "target_texts"]

SELECTIONS: Final = ("k_centre", "facility_location", "dsir", "transport", "lengths")
AIMED: Final = frozenset({"dsir", "transport", "lengths"})
"""The methods that choose what is like a target."""


class ChosenTexts(NamedTuple):
    """What a selection does not take."""

    left_out: Int64
    """Positions, rising."""
    nearest: Int64 | None
    """For each of them the nearest text that was taken; None where no embeddings were compared."""
    score: Any
    """For each of them: cosine with that one, DSIR's log weight, or the length in characters."""
    measure: str
    """What the score is."""


def choose_texts(
    texts: Sequence[str],
    *,
    method: str,
    count: int,
    target: Sequence[str] = (),
    encoder: str | Encoder = "embedded",
    seed: int = 0,
) -> ChosenTexts:
    """The texts that a selection leaves out; none where ``count`` is all of them, but for ``lengths``.

    Args:
        texts: what there is.
        method: one of ``SELECTIONS``.
        count: how many to choose; ``lengths`` may choose fewer, so that the lengths still match.
        target: for the methods in ``AIMED``, texts to be like.
        encoder: for k_centre, facility_location and transport, a MODEL or an open encoder.
        seed: of the start or the draw.

    Raises:
        InputError: when the method is unknown, or a target is missing or too many.
    """
    if method not in SELECTIONS:
        allowed = ", ".join(SELECTIONS)
        raise InputError(f"method {method!r}{closest(method, SELECTIONS)}, expected one of {allowed}")
    if bool(target) != (method in AIMED):
        needs = "needs a target: texts to be like" if method in AIMED else "takes no target"
        raise InputError(f"method {method!r} {needs}; {', '.join(sorted(AIMED))} choose towards one")
    count = min(len(texts), count)
    # All of them are as diverse and as like as can be, but their lengths need not match.
    if count == len(texts) and (method != "lengths" or not count):
        return ChosenTexts(np.empty(0, np.int64), None, np.empty(0), "")
    if method == "dsir":
        weights = dsir_log_weights(texts, target)
        left_out = _others(gumbel_top_k(weights, count, seed=seed), len(texts))
        return ChosenTexts(left_out, None, weights[left_out], "log weight")
    if method == "lengths":
        lengths = np.array([len(text) for text in texts], np.float64)
        chosen = length_matched(lengths, [len(text) for text in target], count, seed=seed)
        left_out = _others(chosen, len(texts))
        return ChosenTexts(left_out, None, lengths[left_out], "characters")
    opened = as_encoder(encoder)
    vectors, _ = encode_whole(texts, opened)
    if method == "transport":
        chosen = transport_select(vectors, encode_whole(target, opened)[0], count)
    elif method == "k_centre":
        chosen = k_centre(vectors, count, seed=seed)
    else:
        chosen = facility_location(vectors, count, seed=seed)
    left_out = _others(chosen, len(texts))
    found = exact_search(vectors[left_out], vectors[chosen], 1)
    return ChosenTexts(left_out, chosen[found.rows[:, 0]], found.scores[:, 0], "cosine")


def target_texts(path: str, *, column: str = "prompt") -> list[str]:
    """The texts of a file, folder or ``hf://`` address to be like.

    Raises:
        InputError: when it cannot be read, or has no text.
    """
    frames = [evaluation_texts(rows, column, name=name) for name, rows in read_evaluations([path]).items()]
    texts = pl.concat(frames)["text"].to_list()
    if not texts:
        raise InputError(f"{path}: found no text, expected texts for the selection to aim at")
    return texts


def _others(chosen: Int64, count: int) -> Int64:
    left = np.ones(count, np.bool_)
    left[chosen] = False
    return np.flatnonzero(left)

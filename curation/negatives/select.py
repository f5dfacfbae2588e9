"""From what the search found to the negatives: the rules in order, their account, and the draw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import polars as pl

from curation.negatives.filters import (
    Bool,
    CandidateFilter,
    Candidates,
    Thresholds,
    in_lists,
    threshold_rules,
)
from curation.negatives.inputs import Checked, Embeddings, Float32, Int64, Ragged, blocks
from curation.negatives.sampling import Sampling, pick
from curation.negatives.search import Found
from curation.negatives.waterfall import Waterfall

__all__ = ["Inputs", "Plan", "Selected", "lowest_positive_scores", "select"]

_ANCHOR_BLOCK: Final = 8_192
_STEP: Final = 0.01
"""How much looser the "next" threshold of the waterfall is."""


class Inputs(NamedTuple):
    """The data of one call."""

    anchors: Checked
    corpus: Checked
    positives: Ragged
    excluded: Ragged | None


class Plan(NamedTuple):
    """The settings of one call."""

    wanted: int
    range_min: int
    range_max: int
    thresholds: Thresholds
    filters: Sequence[CandidateFilter]
    sampling: Sampling
    temperature: float
    seed: int


class Selected(NamedTuple):
    """As in ``mining.MinedNegatives``."""

    negatives: Int64
    scores: Float32
    positive_scores: Float32
    waterfall: pl.DataFrame


def select(found: Found, inputs: Inputs, plan: Plan, passed: tuple[str, Int64] | None = None) -> Selected:
    """Runs the rules over what was found and draws, block by block of anchors.

    Args:
        passed: for the account, a rule that barred documents before the search counted, and (n,) how many.
    """
    anchors, corpus = inputs.anchors.vectors, inputs.corpus.vectors
    n = len(anchors)
    negatives = np.full((n, plan.wanted), -1, np.int64)
    scores = np.full((n, plan.wanted), np.nan, np.float32)
    positive_scores = lowest_positive_scores(anchors, corpus, inputs.positives)
    waterfall = Waterfall(wanted=plan.wanted)
    rng = np.random.default_rng(plan.seed)
    for part in blocks(n, _ANCHOR_BLOCK):
        rows = found.rows[part]
        candidates = Candidates(
            anchors=np.arange(part.start, part.stop),
            rows=rows,
            scores=found.scores[part],
            positive_scores=positive_scores[part],
            alive=rows >= 0,
        )
        if passed is None:
            waterfall.start(candidates.alive)
        else:
            waterfall.start_past(passed[0], int(passed[1][part].sum()), candidates.alive)
        _apply_rules(candidates, inputs, plan, waterfall)
        chosen = pick(candidates, plan.wanted, sampling=plan.sampling, temperature=plan.temperature, rng=rng)
        waterfall.remove("not_sampled", ~chosen, candidates.alive)
        owner, place = np.nonzero(chosen)
        column = (np.cumsum(chosen, axis=1, dtype=np.int32) - 1)[owner, place]
        negatives[part.start + owner, column] = rows[owner, place]
        scores[part.start + owner, column] = candidates.scores[owner, place]
    return Selected(negatives, scores, positive_scores, waterfall.frame())


def _apply_rules(candidates: Candidates, inputs: Inputs, plan: Plan, waterfall: Waterfall) -> None:
    """Every rule in order; clears ``candidates.alive``."""
    rows, alive = candidates.rows, candidates.alive
    start, stop = int(candidates.anchors[0]), int(candidates.anchors[-1]) + 1
    zeros = inputs.anchors.zeros, inputs.corpus.zeros
    if any(map(len, zeros)):
        no_direction: Bool = np.isin(candidates.anchors, zeros[0])[:, None] | np.isin(rows, zeros[1])
        waterfall.remove("zero_vector", no_direction, alive)
    for rule, lists in (("positive", inputs.positives), ("excluded", inputs.excluded)):
        if lists is not None:
            listed = in_lists(rows, lists.part(start, stop), corpus=len(inputs.corpus.vectors))
            waterfall.remove(rule, listed, alive)
    _apply_thresholds(candidates, plan.thresholds, waterfall)
    for extra in plan.filters:
        waterfall.remove(extra.rule, extra.remove(candidates), alive, threshold=extra.threshold)
    rank = np.cumsum(alive, axis=1, dtype=np.int32)
    waterfall.remove("range_max", rank > plan.range_max, alive, threshold=plan.range_max)
    waterfall.remove("range_min", rank <= plan.range_min, alive, threshold=plan.range_min)


def _apply_thresholds(candidates: Candidates, thresholds: Thresholds, waterfall: Waterfall) -> None:
    """The similarity rules in order; then, for each, what one step's looser threshold would leave."""
    rules = threshold_rules(candidates, thresholds)
    before = candidates.alive.copy()
    for name, threshold, mask in rules:
        waterfall.remove(name, mask, candidates.alive, threshold=threshold)
    for position, (name, threshold, _) in enumerate(rules):
        looser = threshold + (_STEP if name == "max_score" else -_STEP)
        changed = threshold_rules(candidates, Thresholds(**{name: looser}))[0][2]
        alive = before & ~changed
        for other, (_, _, mask) in enumerate(rules):
            if other != position:
                alive &= ~mask
        waterfall.next_step(name, looser, alive)


def lowest_positive_scores(anchors: Embeddings, corpus: Embeddings, positives: Ragged) -> Float32:
    """(n,) the least inner product of an anchor with one of its positives; NaN where it has none."""
    lowest = np.full(len(anchors), np.inf, np.float32)
    owners = positives.owners
    for part in blocks(len(owners), _ANCHOR_BLOCK):
        left = np.asarray(anchors[owners[part]], np.float32)
        right = np.asarray(corpus[positives.values[part]], np.float32)
        np.minimum.at(lowest, owners[part], np.einsum("ij,ij->i", left, right))
    lowest[np.isinf(lowest)] = np.nan
    return lowest

"""CHES: how alike two answers look to the policy, and so how far training pushes the chosen one down.

S(y) is the sum of the policy's final hidden states (after the final norm) from the last prompt token
through the second-to-last answer token: |y| states. For chosen y⁺ and rejected y⁻

    CHES       = ⟨S(y⁺), S(y⁻)⟩ − ‖S(y⁺)‖²
    ln-CHES    = ⟨S(y⁺), S(y⁻)⟩ / (|y⁺| |y⁻|) − ‖S(y⁺)‖² / |y⁺|²

High means that training on the pair tends to lower the chosen answer's likelihood (Razin et al., ICLR 2025,
Unintentional Unalignment, Definition 2 and section 6). Both need only inner products, so one k by k Gram
matrix gives them for every ordered pair of k answers. The matrices come from ``curation.models.policy``;
tables of them are in ``policy_table``, files and frames of texts in ``ches_frames``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from curation.models.policy.stats import PolicyStats
from curation.scores.difficulty import difficulty
from curation.scores.entanglement import entanglement_of_pairs

__all__ = ["PairScores", "ches_from_states", "ches_matrix", "ln_ches_matrix", "pair_scores_from_stats"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


class PairScores(NamedTuple):
    """Scores of n ordered pairs; every array is (n,)."""

    chosen_index: IntArray
    rejected_index: IntArray
    ches: FloatArray
    ln_ches: FloatArray
    chosen_tokens: IntArray
    rejected_tokens: IntArray
    chosen_logp: FloatArray
    """log π(y⁺ | x), nats."""
    rejected_logp: FloatArray
    difficulty: FloatArray
    """log π(y⁻ | x) − log π(y⁺ | x)."""
    last_hidden: FloatArray
    """⟨h_last(y⁺), h_last(y⁻)⟩."""
    edit_distance: FloatArray
    """Token edit distance over the longer length, 0 to 1."""
    chosen_change: FloatArray | None = None
    """First-order rise of log π(y⁺ | x); None without gradients (see ``entanglement``)."""
    rejected_change: FloatArray | None = None
    both_fall: npt.NDArray[np.bool_] | None = None


def ches_matrix(gram: npt.ArrayLike) -> FloatArray:
    """CHES of every ordered pair: entry [i, j] is that of chosen i and rejected j.

    Args:
        gram: (..., k, k) inner products ⟨S_i, S_j⟩.
    """
    g = np.asarray(gram, dtype=np.float64)
    return g - _diagonal(g)[..., :, None]


def ln_ches_matrix(gram: npt.ArrayLike, tokens: npt.ArrayLike) -> FloatArray:
    """Length-normalised CHES of every ordered pair, indexed as :func:`ches_matrix`.

    Args:
        gram: (..., k, k).
        tokens: (..., k) answer lengths |y|, at least 1; an answer of 0 tokens gives NaN.
    """
    g = np.asarray(gram, dtype=np.float64)
    lengths = np.asarray(tokens, dtype=np.float64)
    lengths = np.where(lengths > 0, lengths, np.nan)
    return ches_matrix(g / (lengths[..., :, None] * lengths[..., None, :]))


def ches_from_states(chosen: npt.ArrayLike, rejected: npt.ArrayLike) -> tuple[float, float]:
    """CHES and length-normalised CHES of one pair, from its hidden states.

    Args:
        chosen: (|y⁺| + 1, d) states; the first row belongs to the last prompt token and the last row to
            the last answer token, which takes no part.
        rejected: (|y⁻| + 1, d), likewise.
    """
    used = [np.asarray(states, dtype=np.float64)[:-1] for states in (chosen, rejected)]
    sums = np.stack([states.sum(axis=0) for states in used])
    gram = sums @ sums.T
    lengths = [len(states) for states in used]
    return float(ches_matrix(gram)[0, 1]), float(ln_ches_matrix(gram, lengths)[0, 1])


def pair_scores_from_stats(
    stats: PolicyStats,
    chosen_index: npt.ArrayLike | None = None,
    rejected_index: npt.ArrayLike | None = None,
) -> PairScores:
    """Scores of some ordered pairs of one prompt's candidates; of all of them where no index is given.

    All ordered pairs come by chosen, then by rejected, and leave out candidates that have a fault.

    Args:
        stats: statistics of k candidates.
        chosen_index: (n,) candidates.
        rejected_index: (n,) candidates.
    """
    if chosen_index is None or rejected_index is None:
        fine = np.flatnonzero(stats.tokens > 0)
        grid = np.repeat(fine, len(fine)), np.tile(fine, len(fine))
        i, j = (side[grid[0] != grid[1]] for side in grid)
    else:
        i = np.asarray(chosen_index, dtype=np.int64)
        j = np.asarray(rejected_index, dtype=np.int64)
    moves = None if stats.grad_gram is None else entanglement_of_pairs(stats.grad_gram)
    return PairScores(
        chosen_index=i,
        rejected_index=j,
        ches=ches_matrix(stats.gram)[i, j],
        ln_ches=ln_ches_matrix(stats.gram, stats.tokens)[i, j],
        chosen_tokens=stats.tokens[i],
        rejected_tokens=stats.tokens[j],
        chosen_logp=stats.logps[i],
        rejected_logp=stats.logps[j],
        difficulty=difficulty(stats.logps[i], stats.logps[j]),
        last_hidden=stats.last_gram[i, j],
        edit_distance=stats.edit[i, j],
        chosen_change=None if moves is None else moves.chosen_change[i, j],
        rejected_change=None if moves is None else moves.rejected_change[i, j],
        both_fall=None if moves is None else moves.both_fall[i, j],
    )


def _diagonal(gram: FloatArray) -> FloatArray:
    return np.diagonal(gram, axis1=-2, axis2=-1)

"""A trainable reward ensemble: M Bradley–Terry heads over frozen features, with cross-fitting.

Features come from ``curation.models.rewards.heads``, which also writes the heads down.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from curation.errors import InputError
from curation.models.rewards.heads import block_slices
from curation.scores.bradley_terry import fit_bradley_terry, pair_log_likelihood

__all__ = ["CrossFit", "choose_penalty", "cross_fit", "feature_penalty", "fit_heads", "make_folds"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

BLOCK_PRIOR: Final = {"text": 1.0, "relevance": 1.0, "response": 3.0, "product": 1.0}
"""Prior std of a head's weights on each block, relative to the scaled style features. Chosen by
cross-validated likelihood on pandalm and tulu1_human_eval."""
PENALTIES: Final = (20.0, 60.0, 200.0, 600.0)


class CrossFit(NamedTuple):
    """Heads and what they say of pairs that they have not seen."""

    weights: FloatArray
    """(M, features), fitted on all pairs."""
    margins: FloatArray
    """(pairs, M), each from heads fitted without the pair's fold."""
    chosen: FloatArray
    """(pairs, M) out-of-fold rewards of the chosen answers."""
    rejected: FloatArray
    """(pairs, M) out-of-fold rewards of the rejected answers."""
    penalty: float
    fold: IntArray
    """(pairs,), the fold of each pair."""
    fold_weights: FloatArray
    """(K, M, features): the heads of fold k were fitted without it."""


def feature_penalty(differences: FloatArray, dimension: int, penalty: float) -> FloatArray:
    """The ridge penalty of each feature, (features,): style features count in units of their spread."""
    scale = np.ones(differences.shape[1])
    prior = np.ones(differences.shape[1])
    for name, block in block_slices(dimension).items():
        prior[block] = BLOCK_PRIOR[name]
        if name in ("text", "relevance"):
            scale[block] = np.sqrt((differences[:, block] ** 2).mean(axis=0)) + 1e-6
    return np.asarray(penalty * (scale / prior) ** 2, dtype=np.float64)


def make_folds(groups: Sequence[str] | npt.NDArray[np.str_], folds: int, seed: int) -> IntArray:
    """A fold for each row, (n,): rows of one group share it, and folds are of near equal size.

    Raises:
        InputError: when there are fewer groups than folds, or fewer than two folds.
    """
    names, index, sizes = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    if folds < 2:
        raise InputError(f"folds is {folds}, expected at least 2")
    if len(names) < folds:
        raise InputError(
            f"{len(names)} different prompts are fewer than the {folds} folds: give more rows"
            + (f", or {len(names)} folds at most (--folds, or folds in the recipe)" if len(names) > 1 else "")
        )
    order = np.random.default_rng(seed).permutation(len(names))
    order = order[np.argsort(-sizes[order], kind="stable")]
    fold_of = np.empty(len(names), dtype=np.int64)
    load = np.zeros(folds, dtype=np.int64)
    for group in order:
        fold = int(np.argmin(load))
        fold_of[group] = fold
        load[fold] += sizes[group]
    return fold_of[index]


def choose_penalty(
    differences: FloatArray,
    folds: IntArray,
    penalty_of: Callable[[float], float | FloatArray],
    *,
    weights: FloatArray | None = None,
    candidates: Sequence[float] = PENALTIES,
) -> float:
    """The candidate with the best cross-validated log-likelihood of the given labels; one fold held out."""
    count = len(differences)
    weight = np.ones(count) if weights is None else weights
    scores = []
    for candidate in candidates:
        total = 0.0
        for fold in np.unique(folds):
            out = folds == fold
            head = fit_bradley_terry(differences[~out], penalty=penalty_of(candidate), weights=weight[~out])
            total += float((weight[out] * pair_log_likelihood(differences[out] @ head)).sum())
        scores.append(total)
    return candidates[int(np.argmax(scores))]


def fit_heads(
    differences: FloatArray,
    groups: Sequence[str],
    *,
    heads: int,
    seed: int,
    penalty: float | FloatArray,
    targets: FloatArray | None = None,
    weights: FloatArray | None = None,
) -> FloatArray:
    """M heads, each on its own shuffle and bootstrap sample of the prompts, (M, features).

    A prompt is drawn as a whole, so that pairs of one prompt stay together. Every head depends on the
    seed and its number alone.
    """
    names, index = np.unique(np.asarray(groups), return_inverse=True)
    base = np.ones(len(differences)) if weights is None else weights
    fitted = []
    for head in range(heads):
        random = np.random.default_rng([seed, head])
        drawn = np.bincount(random.integers(0, len(names), size=len(names)), minlength=len(names))
        weight = base * drawn[index]
        used = weight > 0
        fitted.append(
            fit_bradley_terry(
                differences[used],
                penalty=penalty,
                targets=None if targets is None else targets[used],
                weights=weight[used],
            )
        )
    return np.stack(fitted)


def cross_fit(
    chosen: FloatArray,
    rejected: FloatArray,
    groups: Sequence[str],
    *,
    dimension: int,
    heads: int = 5,
    folds: int = 5,
    seed: int = 0,
    targets: FloatArray | None = None,
    penalty: float | None = None,
    advance: Callable[[int], None] = lambda done: None,
) -> CrossFit:
    """Train an ensemble and score every pair with heads that have not seen its prompt.

    Args:
        chosen: (pairs, features) of the chosen answers; ``rejected`` likewise.
        groups: (pairs,), the prompt of each pair: folds and bootstrap samples keep prompts whole.
        dimension: of the encoder's vectors in the features.
        targets: (pairs,), the probability that a label is right; 1 where None.
        penalty: None chooses it by cross-validated likelihood.
        advance: called after each fitted ensemble, with 1.

    Raises:
        InputError: when there are fewer prompts than folds.
    """
    differences = chosen - rejected
    fold = make_folds(list(groups), folds, seed)
    names = np.asarray(groups)

    def penalty_of(value: float) -> FloatArray:
        return feature_penalty(differences, dimension, value)

    if penalty is None:
        penalty = choose_penalty(differences, fold, penalty_of)
    ridge = penalty_of(penalty)
    first, second = np.empty((len(chosen), heads)), np.empty((len(chosen), heads))
    by_fold = []
    for number in range(folds):
        out = fold == number
        kept = None if targets is None else targets[~out]
        weights = fit_heads(
            differences[~out], list(names[~out]), heads=heads, seed=seed, penalty=ridge, targets=kept
        )
        by_fold.append(weights)
        first[out], second[out] = chosen[out] @ weights.T, rejected[out] @ weights.T
        advance(1)
    final = fit_heads(differences, list(groups), heads=heads, seed=seed, penalty=ridge, targets=targets)
    advance(1)
    return CrossFit(final, first - second, first, second, penalty, fold, np.stack(by_fold))

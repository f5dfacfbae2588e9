"""From final states to what is kept of a prompt: k by k matrices, counts and log-probabilities.

Both backends end here, so their numbers can only differ by their states. Imports torch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from rapidfuzz.distance import Levenshtein

from curation.models.policy.head import Head, gradient_gram, token_logps
from curation.models.policy.rendering import Rendered
from curation.models.policy.stats import PolicyStats
from curation.models.protocols import Fault, FloatArray

__all__ = ["edit_distances", "summarise"]

_NOT_FINITE = Fault("non_finite_states", "nan", "the policy's states or log-probabilities are not finite")


def summarise(
    groups: Sequence[Rendered],
    states: torch.Tensor,
    where: Sequence[Sequence[torch.Tensor]],
    head: Head | None,
    *,
    output_gradients: bool,
) -> list[PolicyStats]:
    """The statistics of some prompts whose states lie in one (T, d) tensor.

    Args:
        groups: the prompts.
        states: final states after the final norm.
        where: per group and answer, the |y| rows of ``states`` that belong to it: from the last prompt token
            to the second-to-last answer token.
        head: the output layer; without it log-probabilities are NaN.
        output_gradients: also fill ``grad_gram``.
    """
    logps = _logps(groups, states, where, head)
    out = []
    for group, rows, per_token in zip(groups, where, logps, strict=True):
        own = [states[index] for index in rows]
        gradients = None
        if output_gradients and head is not None and own:
            targets = [torch.as_tensor(answer, device=states.device) for answer in group.answers]
            gradients = gradient_gram(own, targets, head).cpu().numpy()
        out.append(_one(group, own, per_token, gradients, head is not None))
    return out


def _logps(
    groups: Sequence[Rendered],
    states: torch.Tensor,
    where: Sequence[Sequence[torch.Tensor]],
    head: Head | None,
) -> list[list[FloatArray]]:
    answers = [answer for group in groups for answer in group.answers]
    if head is None or not answers:
        return [[np.full(len(answer), np.nan) for answer in group.answers] for group in groups]
    rows = torch.cat([index for per_group in where for index in per_group])
    used, inverse = torch.unique(rows, return_inverse=True)
    targets = torch.as_tensor(np.concatenate(answers), device=states.device)
    flat = token_logps(states[used], inverse, targets, head).cpu().numpy()
    pieces = iter(np.split(flat, np.cumsum([len(answer) for answer in answers])[:-1]))
    return [[next(pieces) for _ in group.answers] for group in groups]


def _one(
    group: Rendered,
    own: list[torch.Tensor],
    logps: list[FloatArray],
    gradients: FloatArray | None,
    has_head: bool,
) -> PolicyStats:
    sums = np.stack([s.sum(0, dtype=torch.float64).cpu().numpy() for s in own]) if own else np.empty((0, 0))
    last = np.stack([s[-1].double().cpu().numpy() for s in own]) if own else np.empty((0, 0))
    totals = np.array([piece.sum() for piece in logps])
    faults = dict(group.faults)
    fine = []
    for i, candidate in enumerate(group.candidates):
        if np.isfinite(sums[i]).all() and (np.isfinite(totals[i]) or not has_head):
            fine.append(i)
        else:
            faults[candidate] = _NOT_FINITE
    places = [group.candidates[i] for i in fine]
    k = group.size
    answers: list[np.ndarray] = [np.empty(0, dtype=np.int64)] * k
    per_token = [np.empty(0)] * k
    tokens = np.zeros(k, dtype=np.int64)
    sum_logps = np.full(k, np.nan)
    for i, place in zip(fine, places, strict=True):
        answers[place], per_token[place] = group.answers[i], logps[i]
        tokens[place], sum_logps[place] = len(group.answers[i]), totals[i]
    return PolicyStats(
        prompt_tokens=len(group.prompt),
        tokens=tokens,
        logps=sum_logps,
        gram=_spread(sums[fine] @ sums[fine].T if fine else np.empty((0, 0)), places, k),
        last_gram=_spread(last[fine] @ last[fine].T if fine else np.empty((0, 0)), places, k),
        edit=_spread(edit_distances([group.answers[i] for i in fine]), places, k),
        grad_gram=None if gradients is None else _spread(gradients[np.ix_(fine, fine)], places, k),
        token_logps=per_token,
        answer_ids=answers,
        faults=faults,
    )


def _spread(matrix: FloatArray, places: list[int], k: int) -> FloatArray:
    """A matrix over some candidates as one over all k, NaN where a candidate has a fault."""
    whole = np.full((k, k), np.nan)
    whole[np.ix_(places, places)] = matrix
    return whole


def edit_distances(answers: Sequence[np.ndarray]) -> FloatArray:
    """(k, k) Levenshtein distances over tokens, divided by the longer length: 0 equal, 1 nothing shared."""
    out = np.zeros((len(answers), len(answers)))
    lists = [answer.tolist() for answer in answers]
    for i, a in enumerate(lists):
        for j in range(i):
            out[i, j] = out[j, i] = Levenshtein.normalized_distance(a, lists[j])
    return out

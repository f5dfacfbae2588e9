"""Noisy Bradley–Terry in arrays: answers have scores, voters a skill. The other voter models are in ``voters``.

The model is that of ``crowdkit.aggregation.NoisyBradleyTerry`` 1.4 (after Chen et al. 2013, CrowdBT, and Bugakova
et al. 2019), but for its voters' lean to one side: where the answers stood on a screen is not known here, so what a
vote does not owe to skill is a coin's. crowd-kit's own fit is not used: its gradient is not that of its objective
(of each voter's votes the last one alone counts, in its neighbour's place), and its objective has the pull of the
scores to one another with the wrong sign.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from curation.scores.calibration import sigmoid

__all__ = ["NoisyScores", "noisy_bradley_terry"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
_FIRST_SKILL: Final = 0.8
_SMALLEST_SLOPE: Final = 1e-6


class NoisyScores(NamedTuple):
    """The most likely scores and skills."""

    scores: FloatArray
    """(answers,): one is better than another with probability σ of their difference."""
    skills: FloatArray
    """(voters,) γ, in (0, 1)."""


def noisy_bradley_terry(
    better: IntArray, worse: IntArray, voters: IntArray, *, pull: float = 0.1, rounds: int = 500
) -> NoisyScores:
    """Scores of answers and skills of voters that make the votes likeliest.

    Voter k prefers i to j with probability γ_k σ(s_i − s_j) + (1 − γ_k) / 2: with skill γ_k they look, else they
    toss a coin. Maximised is the sum of the logarithms, plus ``pull`` times Σ log σ(s_i) + log σ(−s_i), which is a
    won and a lost comparison of each answer with one of score 0: without it, the score of an answer that always
    wins has no end.

    Args:
        better, worse: (votes,) the codes 0 … n − 1 of the two answers, as the voter orders them.
        voters: (votes,) codes 0 … m − 1.
        rounds: of L-BFGS at most; it begins with equal scores, and skills of 0.8.
    """
    from scipy.optimize import minimize

    answers, people = int(max(better.max(), worse.max())) + 1, int(voters.max()) + 1

    def loss(at: FloatArray) -> tuple[float, FloatArray]:
        scores, skills = at[:answers], sigmoid(at[answers:])
        skill = skills[voters]
        wins = sigmoid(scores[better] - scores[worse])
        likely = skill * wins + (1 - skill) / 2
        of_score = skill * wins * (1 - wins) / likely
        won, lost = np.bincount(better, of_score, answers), np.bincount(worse, of_score, answers)
        slope = won - lost - pull * np.tanh(scores / 2)
        of_skill = skills * (1 - skills) * np.bincount(voters, (wins - 0.5) / likely, people)
        held = np.logaddexp(0.0, scores) + np.logaddexp(0.0, -scores)
        return float(pull * held.sum() - np.log(likely).sum()), -np.concatenate([slope, of_skill])

    start = np.concatenate([np.zeros(answers), np.full(people, np.log(_FIRST_SKILL / (1 - _FIRST_SKILL)))])
    found = minimize(
        loss,
        start,
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": rounds, "gtol": _SMALLEST_SLOPE, "ftol": 1e-12},
    ).x
    return NoisyScores(found[:answers], sigmoid(found[answers:]))

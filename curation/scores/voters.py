"""Many voters on one pair: majority, Dawid–Skene and MACE through crowd-kit, GLAD, and noisy Bradley–Terry.

Voters are people or models.

A vote says that the first answer of a pair is better (1) or the second (0); ties are left out of a vote.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import polars as pl

from curation.errors import InputError
from curation.scores.calibration import sigmoid
from curation.scores.glad import glad
from curation.scores.noisy_bradley_terry import noisy_bradley_terry

__all__ = ["METHODS", "METHOD_WORDS", "Method", "Votes", "aggregate_votes", "reliability", "reward_votes"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Method = Literal["majority", "dawid_skene", "glad", "mace", "noisy_bradley_terry"]
METHOD_WORDS: Final[Mapping[Method, str]] = {
    "majority": "majority", "dawid_skene": "Dawid-Skene", "glad": "GLAD", "mace": "MACE",
    "noisy_bradley_terry": "noisy Bradley-Terry",
}  # fmt: skip
"""What each is called in a report."""
METHODS: Final[tuple[Method, ...]] = get_args(Method)
_ANSWERS: Final = ("first", "second")


class Votes(NamedTuple):
    """What voters say together."""

    pairs: pl.DataFrame
    """``pair``, ``probability`` that the first answer is better, ``votes``; in order of first appearance."""
    voters: pl.DataFrame
    """``voter``, ``votes``, ``reliability``: the expected share of the voter's votes that are right under
    the aggregated probabilities."""


def aggregate_votes(
    votes: pl.DataFrame, *, method: Method = "dawid_skene", rounds: int = 50, seed: int = 0
) -> Votes:
    """One probability a pair from the votes of many.

    Dawid and Skene (1979), GLAD (Whitehill et al. 2009) and MACE (Hovy et al. 2013) weigh voters by how
    well they fit the rest; majority is the share of votes. Noisy Bradley–Terry (Chen et al. 2013) gives every
    answer a score, so that votes on a and b, and on b and c, say something of a and c.

    Args:
        votes: ``pair`` and ``voter`` (any type; null is left out), ``vote`` (1, 0, or null, which is left out);
            ``first`` and ``second`` say for noisy Bradley–Terry which answers of a pair stand in others, too (any
            one type; else it has its own).
        rounds: EM iterations.
        seed: of MACE's restarts.

    Raises:
        InputError: when a column is missing, a vote is neither 0 nor 1 or lacks an answer, or no vote is left.
    """
    known = _checked(votes, method)
    shares = known.group_by("pair", maintain_order=True).agg(
        probability=pl.col("vote").mean(), votes=pl.len().cast(pl.Int64)
    )
    if method != "majority":
        found = _aggregated(known, method, rounds, seed)
        shares = shares.with_columns(probability=pl.col("pair").replace_strict(found, return_dtype=pl.Float64))
    return Votes(shares, reliability(known, shares.select("pair", "probability")))


def reliability(votes: pl.DataFrame, pairs: pl.DataFrame) -> pl.DataFrame:
    """``voter``, ``votes``, ``reliability``: the expected share of each voter's votes that are right.

    Args:
        votes: ``pair``, ``voter``, ``vote`` (1 or 0).
        pairs: ``pair``, ``probability`` that the first answer is better.
    """
    joined = votes.join(pairs, on="pair", how="left", maintain_order="left")
    right = pl.when(pl.col("vote") == 1).then(pl.col("probability")).otherwise(1 - pl.col("probability"))
    return joined.group_by("voter", maintain_order=True).agg(
        votes=pl.len().cast(pl.Int64), reliability=right.mean()
    )


def reward_votes(margins: FloatArray, models: list[str] | None = None) -> pl.DataFrame:
    """Reward models as voters: (pairs, models) margins to ``pair``, ``voter``, ``vote``.

    A margin of 0 and a missing one are no vote.
    """
    count, width = margins.shape
    names = models or [str(index) for index in range(width)]
    frame = pl.DataFrame(
        {
            "pair": np.repeat(np.arange(count), width),
            "voter": names * count,
            "vote": np.where(margins > 0, 1, 0).ravel(),
        }
    )
    there = (np.isfinite(margins) & (margins != 0)).ravel()
    return frame.filter(pl.Series(there))


def _checked(votes: pl.DataFrame, method: str) -> pl.DataFrame:
    if method not in METHODS:
        raise InputError(f"voter model {method!r} is not known: {', '.join(METHODS)}")
    missing = [name for name in ("pair", "voter", "vote") if name not in votes.columns]
    if missing:
        raise InputError(f"column {missing[0]!r} is missing: found {', '.join(votes.columns)}")
    answers = _ANSWERS if method == "noisy_bradley_terry" and set(_ANSWERS) <= set(votes.columns) else ()
    known = votes.select("pair", "voter", "vote", *answers).drop_nulls(["pair", "voter", "vote"])
    if any(known[name].null_count() for name in answers):
        raise InputError(
            "a vote lacks its first or its second answer: name both in every row, or leave both columns out"
        )
    if known.is_empty():
        raise InputError("no vote is left: every row lacks a pair, a voter or a vote")
    wrong = known.filter(~pl.col("vote").is_in([0, 1]))
    if wrong.height:
        raise InputError(f"a vote is {wrong['vote'][0]!r}, expected 1 (first answer), 0 (second) or null")
    return known.with_columns(pl.col("vote").cast(pl.Int64))


def _aggregated(known: pl.DataFrame, method: str, rounds: int, seed: int) -> dict[Any, float]:
    """P(first answer) of each pair."""
    if known["vote"].n_unique() == 1 and method != "noisy_bradley_terry":  # whose pairs may share answers
        return dict.fromkeys(known["pair"].to_list(), float(known["vote"][0]))
    # Plain numbers keep crowd-kit from comparing strings.
    pairs, voters = (
        known.select(pl.col(name).rank("dense").cast(pl.Int64) - 1)[name].to_numpy() for name in ("pair", "voter")
    )
    votes = known["vote"].to_numpy()
    if method == "glad":
        by_code = glad(pairs, voters, votes, rounds=rounds)
        return dict(zip(known["pair"].to_list(), by_code[pairs].tolist(), strict=True))
    if method == "noisy_bradley_terry":
        first, second = _answer_codes(known, pairs)
        better, worse = np.where(votes == 1, first, second), np.where(votes == 1, second, first)
        scores = noisy_bradley_terry(better, worse, voters).scores
        return dict(zip(known["pair"].to_list(), sigmoid(scores[first] - scores[second]).tolist(), strict=True))
    return _crowdkit(known["pair"].to_list(), (pairs, voters, votes), method, rounds, seed)


def _answer_codes(known: pl.DataFrame, pairs: IntArray) -> tuple[IntArray, IntArray]:
    """The codes of the two answers of each vote's pair."""
    if not set(_ANSWERS) <= set(known.columns):
        return 2 * pairs, 2 * pairs + 1
    codes = (
        pl.concat([known[name].alias("answer") for name in _ANSWERS]).rank("dense").to_numpy().astype(np.int64) - 1
    )
    return codes[: known.height], codes[known.height :]


def _crowdkit(
    names: list[Any], coded: tuple[npt.NDArray[Any], ...], method: str, rounds: int, seed: int
) -> dict[Any, float]:
    import pandas as pd
    from crowdkit.aggregation import MACE, DawidSkene

    models: dict[str, Any] = {
        "dawid_skene": lambda: DawidSkene(n_iter=rounds),
        "mace": lambda: MACE(n_restarts=5, n_iter=rounds, random_state=seed),
    }
    frame = pd.DataFrame(dict(zip(("task", "worker", "label"), coded, strict=True)))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"The \w+ keyword")  # crowd-kit 1.4 on pandas 3
        table = models[method]().fit_predict_proba(frame)
    first = dict(zip(table.index.tolist(), table[1].tolist(), strict=True))
    return {name: float(first[code]) for name, code in zip(names, coded[0].tolist(), strict=True)}

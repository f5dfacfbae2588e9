"""Which of the sampled answers are used: the best of n, or a statistical rejection sample. How many are drawn
in the first place is in ``budgets``; which two are compared, in :mod:`curation.pairs`.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl
import polars.selectors as cs

from curation.candidates.draws import uniform_draws
from curation.errors import InputError

__all__ = ["acceptance_probabilities", "best_of_n", "rejection_sample"]

Floats = npt.NDArray[np.float64]

_NEEDED: Final = ("prompt_id", "candidate_id", "score")


def best_of_n(candidates: pl.DataFrame, *, keep: int = 1) -> pl.DataFrame:
    """The ``keep`` highest scored rows of each prompt, in the order of the input.

    Args:
        candidates: ``prompt_id``, ``candidate_id``, ``score``; rows without a finite score are never kept.
        keep: rows a prompt. Ties go by identifier, then by place.

    Raises:
        InputError: when ``keep`` is less than 1.
    """
    if keep < 1:
        raise InputError(f"best-of-n: keep is {keep}, expected at least 1")
    ranked = (
        _usable(candidates)
        .sort("score", "candidate_id", "_row", descending=[True, False, False])
        .with_columns(_rank=pl.int_range(pl.len()).over("prompt_id"))
    )
    return ranked.filter(pl.col("_rank") < keep).sort("_row").drop("_row", "_rank")


def acceptance_probabilities(scores: Floats, *, beta: float) -> Floats:
    """exp((r − r_max) / β) of each score; at β = 0 its limit, 1 for the highest and 0 for the rest.

    Liu et al. 2023 (RSO), algorithm 1.
    """
    below = np.asarray(scores, dtype=np.float64) - np.max(scores)
    chances: Floats = (below == 0).astype(np.float64)
    if beta > 0:
        with np.errstate(over="ignore", under="ignore"):
            chances = np.exp(below / beta)
    return chances


def rejection_sample(
    candidates: pl.DataFrame, *, n: int, beta: float, seed: int, weight: str | None = None
) -> pl.DataFrame:
    """Statistical rejection sampling (RSO, Liu et al. 2023): ``n`` answers of each prompt, near the optimal policy.

    Pass after pass over the rows that are left, each in a drawn order: a row is accepted with probability
    exp((r − r_max) / β), where r_max is the highest reward among the rows not yet accepted, taken anew at the
    start of each pass. The prompt ends with its n-th row. Small β is close to taking the n best (β = 0 is
    exactly that), large β to a plain draw. The highest row of a pass is always accepted, so there are at most
    n passes. A prompt with n rows or fewer keeps them all.

    Unlike the published listing, rows are told apart by place, not by text: an answer that was sampled twice
    may be accepted twice.

    Args:
        candidates: ``prompt_id``, ``candidate_id``, ``score``; rows without a finite score are never accepted.
        n: rows a prompt, at least 1.
        beta: in the unit of the score, at least 0.
        seed: of the draws. What is drawn for a prompt depends on its own rows alone, not on their order.
        weight: a column of counts: a row stands for that many equal ones.

    Returns:
        The accepted rows in the order of the input, with ``accepted``: how many of the row's copies were.

    Raises:
        InputError: when an argument is out of its range.
    """
    if n < 1:
        raise InputError(f"rejection sampling: n is {n}, expected at least 1")
    if not 0 <= beta < np.inf:
        raise InputError(f"rejection sampling: beta is {beta}, expected a number of at least 0")
    rows = _copies(_usable(candidates), weight)
    accepted = np.zeros(rows.height, dtype=bool)
    open_rows = np.arange(rows.height)
    prompts = rows["_prompt"].to_numpy()
    scores = rows["score"].to_numpy()
    taken = np.zeros(int(prompts.max()) + 1 if rows.height else 0, dtype=np.int64)
    for number in range(n):
        if not open_rows.size:
            break
        chosen = _pass(rows, open_rows, prompts, scores, n - taken, beta, seed, number)
        accepted[chosen] = True
        np.add.at(taken, prompts[chosen], 1)
        open_rows = open_rows[~accepted[open_rows] & (taken[prompts[open_rows]] < n)]
    counts = rows.filter(pl.Series(accepted)).group_by("_row").agg(accepted=pl.len().cast(pl.Int64))
    given = candidates.with_row_index("_row")
    return given.join(counts, on="_row", how="inner", maintain_order="left").drop("_row")


def _usable(candidates: pl.DataFrame) -> pl.DataFrame:
    missing = [name for name in _NEEDED if name not in candidates.columns]
    if missing:
        raise InputError(f"candidates have no column {missing[0]!r}: expected {', '.join(_NEEDED)}")
    finite = pl.col("score").cast(pl.Float64).is_finite().fill_null(value=False)
    return candidates.with_row_index("_row").filter(finite).with_columns(pl.col("score").cast(pl.Float64))


def _copies(rows: pl.DataFrame, weight: str | None) -> pl.DataFrame:
    """One row for each copy: _row, _prompt, _name (unique in its prompt, whatever the order), score."""
    if weight is not None:
        rows = rows.select(pl.all().repeat_by(pl.col(weight).cast(pl.UInt32))).explode(cs.all())
    copy = pl.int_range(pl.len()).over("prompt_id", "candidate_id", "score")
    return rows.select(
        "_row",
        (pl.col("prompt_id").rank("dense") - 1).cast(pl.Int64).alias("_prompt"),
        pl.concat_str("prompt_id", pl.lit(" "), "candidate_id", pl.lit(" "), copy.cast(pl.String)).alias("_name"),
        "score",
    )


def _pass(
    rows: pl.DataFrame, open_rows: npt.NDArray[np.int64], prompts: npt.NDArray[np.int64], scores: Floats,
    room: npt.NDArray[np.int64], beta: float, seed: int, number: int,
) -> npt.NDArray[np.int64]:  # fmt: skip
    """One pass over the rows that are left: those accepted, at most ``room`` of each prompt."""
    names, prompt, score = rows["_name"].gather(open_rows), prompts[open_rows], scores[open_rows]
    highest = np.full(room.size, -np.inf)
    np.maximum.at(highest, prompt, score)
    below = score - highest[prompt]
    with np.errstate(under="ignore", over="ignore"):
        probability = (below == 0).astype(np.float64) if beta == 0 else np.exp(below / beta)
    passed = uniform_draws(names, seed=seed, salt=f"accept {number}") < probability
    order = uniform_draws(names, seed=seed, salt=f"order {number}")[passed]
    at = np.lexsort((order, prompt[passed]))
    found = open_rows[passed][at]
    place = np.arange(found.size) - np.searchsorted(prompts[found], prompts[found], side="left")
    within: npt.NDArray[np.int64] = found[place < room[prompts[found]]]
    return within

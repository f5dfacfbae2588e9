"""Policy statistics as rows of a table, and every ordered pair's scores from such rows without the model.

The scores themselves are in ``ches``, ``difficulty`` and ``entanglement``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import polars as pl

from curation.models.policy.stats import PolicyStats
from curation.scores.ches import ches_matrix, ln_ches_matrix
from curation.scores.difficulty import difficulty
from curation.scores.entanglement import entanglement_of_pairs

__all__ = ["PAIR_COLUMNS", "STATS_COLUMNS", "explode_pairs", "stats_to_row"]

STATS_COLUMNS: Final[Mapping[str, pl.DataType]] = {
    "prompt_tokens": pl.Int64(),
    "candidate_ids": pl.List(pl.String()),
    "tokens": pl.List(pl.Int64()),
    "logps": pl.List(pl.Float64()),
    "gram": pl.List(pl.Float64()),
    "last_gram": pl.List(pl.Float64()),
    "edit": pl.List(pl.Float64()),
    "grad_gram": pl.List(pl.Float64()),
    "token_logps": pl.List(pl.List(pl.Float32())),
}
"""Columns of a prompt's row; k by k matrices are stored row by row, ``grad_gram`` may be null."""

PAIR_COLUMNS: Final = (
    "ches", "ln_ches", "chosen_tokens", "rejected_tokens", "chosen_logp", "rejected_logp", "difficulty",
)  # fmt: skip


def stats_to_row(stats: PolicyStats, candidate_ids: Sequence[str]) -> dict[str, Any] | None:
    """One prompt's statistics as a row with ``STATS_COLUMNS``; None where no candidate has any.

    Candidates with a fault are left out of the row: ``stats.faults`` says why, and rejects are the
    caller's. Candidates are sorted by identifier, so that equal sets give equal rows.
    """
    fine = [i for i in range(len(candidate_ids)) if stats.tokens[i] > 0]
    if not fine:
        return None
    order = np.array(sorted(fine, key=lambda i: candidate_ids[i]), dtype=np.int64)
    grid = np.ix_(order, order)
    return {
        "prompt_tokens": stats.prompt_tokens,
        "candidate_ids": [candidate_ids[i] for i in order],
        "tokens": stats.tokens[order].tolist(),
        "logps": stats.logps[order].tolist(),
        "gram": stats.gram[grid].ravel().tolist(),
        "last_gram": stats.last_gram[grid].ravel().tolist(),
        "edit": stats.edit[grid].ravel().tolist(),
        "grad_gram": None if stats.grad_gram is None else stats.grad_gram[grid].ravel().tolist(),
        "token_logps": [stats.token_logps[i].tolist() for i in order],
    }


def explode_pairs(frame: pl.DataFrame) -> pl.DataFrame:
    """Every ordered pair of every prompt's candidates, with its scores.

    Args:
        frame: ``prompt_id`` and columns of :func:`stats_to_row`; only ``candidate_ids``, ``tokens``,
            ``logps`` and ``gram`` need be there.

    Returns:
        Prompts in the frame's order, pairs by chosen, then by rejected: ``prompt_id``, ``chosen_id``,
        ``rejected_id``, ``PAIR_COLUMNS``, and where the frame has what they need ``last_hidden``,
        ``edit_distance``, ``chosen_change``, ``rejected_change``, ``both_fall``. A prompt of one candidate
        gives no pair.
    """
    sized = frame.with_row_index("_row").with_columns(_k=pl.col("candidate_ids").list.len())
    parts = [
        _pairs_of_size(part, int(part["_k"][0]))
        for part in sized.partition_by("_k", maintain_order=True)
        if part["_k"][0] > 1
    ]
    if not parts:
        return _pairs_of_size(sized.clear(), 2).drop("_row")
    return pl.concat(parts, how="diagonal").sort("_row", maintain_order=True).drop("_row")


def _pairs_of_size(part: pl.DataFrame, k: int) -> pl.DataFrame:
    """The pairs of prompts that all have k candidates."""
    n = part.height
    i, j = (side.ravel() for side in np.indices((k, k)))
    i, j = i[i != j], j[i != j]
    base = (np.arange(n) * k)[:, None]
    candidates = part["candidate_ids"].explode()
    tokens = _numbers(part["tokens"], np.int64).reshape(n, k)
    logps = _numbers(part["logps"], np.float64).reshape(n, k)
    grams = _numbers(part["gram"], np.float64).reshape(n, k, k)
    columns: dict[str, Any] = {
        "_row": np.repeat(part["_row"].to_numpy(), len(i)),
        "prompt_id": part["prompt_id"].gather(np.repeat(np.arange(n), len(i))),
        "chosen_id": candidates.gather((base + i).ravel()),
        "rejected_id": candidates.gather((base + j).ravel()),
        "ches": ches_matrix(grams)[:, i, j].ravel(),
        "ln_ches": ln_ches_matrix(grams, tokens)[:, i, j].ravel(),
        "chosen_tokens": tokens[:, i].ravel(),
        "rejected_tokens": tokens[:, j].ravel(),
        "chosen_logp": logps[:, i].ravel(),
        "rejected_logp": logps[:, j].ravel(),
        "difficulty": difficulty(logps[:, i], logps[:, j]).ravel(),
    }
    for source, target in (("last_gram", "last_hidden"), ("edit", "edit_distance")):
        if source in part.columns and not part[source].has_nulls():
            columns[target] = _numbers(part[source], np.float64).reshape(n, k, k)[:, i, j].ravel()
    if "grad_gram" in part.columns and not part["grad_gram"].has_nulls():
        moves = entanglement_of_pairs(_numbers(part["grad_gram"], np.float64).reshape(n, k, k))
        columns["chosen_change"] = moves.chosen_change[:, i, j].ravel()
        columns["rejected_change"] = moves.rejected_change[:, i, j].ravel()
        columns["both_fall"] = moves.both_fall[:, i, j].ravel()
    return pl.DataFrame(columns)


def _numbers(lists: pl.Series, dtype: type[np.generic]) -> np.ndarray:
    return lists.drop_nulls().explode().to_numpy().astype(dtype, copy=False)

"""``curation strength``: preference strength of a file that has rewards of several models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import polars as pl

from curation.commands.streams import Stream, open_stream
from curation.files import ROW
from curation.pairs.views import BandAction, apply_bands, reward_augmented
from curation.scores.margins import Scaling
from curation.scores.strength import STRENGTH_COLUMNS, preference_strength

__all__ = ["StrengthDone", "run_strength"]


class StrengthDone(NamedTuple):
    """What the command did."""

    rows: int
    rejected: dict[str, int]
    bands: dict[str, int]
    models: pl.DataFrame
    notes: list[str]
    summary: str


def run_strength(
    input: str | Path,
    output: str | Path,
    *,
    scaling: Scaling = "robust",
    labelled: str | None = None,
    bands: Literal["quantile", "probability"] = "quantile",
    thresholds: tuple[float, float, float] | None = None,
    actions: Mapping[str, Sequence[BandAction]] | None = None,
    goals: bool = False,
) -> StrengthDone:
    """Adds the columns of ``curation.scores.strength`` to rows with ``chosen_rewards`` and ``rejected_rewards``.

    The whole file is read at once: scales and quantiles are taken over it.

    Args:
        labelled: a Boolean column that says of some rows whether the label is right.
        scaling, bands, thresholds: see :func:`curation.scores.strength.preference_strength`.
        actions: band to what is done with its pairs (drop, flip, soft_label, margin, weight); adds
            ``label_smoothing``, ``margin``, ``weight`` and ``flipped``. A flip exchanges every column of
            chosen with its namesake of rejected.
        goals: each pair twice, conditioned on a goal score, the mean of the answers' rewards (Zhang et al. 2024,
            reward-augmented data); adds ``goal``, ``chosen_goal_reward`` and ``rejected_goal_reward``.

    Raises:
        InputError: when the file, its columns or an option is wrong.
    """
    columns = ("chosen_rewards", "rejected_rewards", *([labelled] if labelled else []))
    with open_stream(input, output, columns=columns, chunk_rows=None) as stream:
        counts: dict[str, int] = {}
        notes: list[str] = []
        models = pl.DataFrame()
        for chunk in stream.chunks():
            result = preference_strength(
                chunk, scaling=scaling, labelled=labelled, bands=bands, thresholds=thresholds
            )
            stream.write(_viewed(result.frame, stream, actions, goals=goals))
            place = chunk["row"]
            stream.reject_frame(result.rejects.with_columns(row=place.gather(result.rejects["row"])))
            counts = dict(result.frame["strength_band"].value_counts(sort=True).iter_rows())
            notes, models = result.notes, result.models
    lines = [stream.summary(), ", ".join(f"{band} {count:,}" for band, count in counts.items()), *notes]
    return StrengthDone(stream.rows_written, stream.rejected, counts, models, notes, "\n".join(lines))


def _viewed(
    scored: pl.DataFrame, stream: Stream, actions: Mapping[str, Sequence[BandAction]] | None, *, goals: bool
) -> pl.DataFrame:
    """``row``, the strength columns, and every column of the file that a flip has changed."""
    added = scored.select("row", *STRENGTH_COLUMNS)
    if not actions and not goals:
        return added
    sides = [n for n in stream.originals.columns if ("chosen" in n or "rejected" in n) and n not in added.columns]
    full = added.join(stream.originals.select(pl.col(ROW).alias("row"), *sides), on="row", maintain_order="left")
    if actions:
        view = apply_bands(full, actions)
        stream.reject_frame(view.rejects.with_columns(row=full["row"].gather(view.rejects["row"])))
        full = view.frame
    if goals:
        means = (
            pl.col(f"{side}_rewards").list.mean().alias(f"{side}_mean_reward") for side in ("chosen", "rejected")
        )
        full = reward_augmented(
            full.with_columns(*means), chosen_score="chosen_mean_reward", rejected_score="rejected_mean_reward"
        )
    return full

"""``curation strength``: preference strength of a file that has rewards of several models."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

import polars as pl

from curation.commands.streams import open_stream
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
) -> StrengthDone:
    """Adds the columns of ``curation.scores.strength`` to rows with ``chosen_rewards`` and ``rejected_rewards``.

    The whole file is read at once: scales and quantiles are taken over it.

    Args:
        labelled: a Boolean column that says of some rows whether the label is right.
        scaling, bands, thresholds: see :func:`curation.scores.strength.preference_strength`.

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
            stream.write(result.frame.select("row", *STRENGTH_COLUMNS))
            place = chunk["row"]
            stream.reject_frame(result.rejects.with_columns(row=place.gather(result.rejects["row"])))
            counts = dict(result.frame["strength_band"].value_counts(sort=True).iter_rows())
            notes, models = result.notes, result.models
    lines = [stream.summary(), ", ".join(f"{band} {count:,}" for band, count in counts.items()), *notes]
    return StrengthDone(stream.rows_written, stream.rejected, counts, models, notes, "\n".join(lines))

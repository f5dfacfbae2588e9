"""``curation label-noise``: which preference labels of a file are probably wrong."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import polars as pl

from curation.commands.streams import open_stream
from curation.models.identity import EMBEDDED
from curation.models.protocols import Encoder
from curation.progress import StepProgress
from curation.scores.label_noise import DROP_BELOW, FLIP_BELOW, LABEL_NOISE_COLUMNS, label_noise

__all__ = ["LabelNoiseDone", "run_label_noise"]

_WITNESSES = ("chosen_rewards", "rejected_rewards")


class LabelNoiseDone(NamedTuple):
    """What the command did."""

    rows: int
    rejected: dict[str, int]
    actions: dict[str, int]
    used: list[str]
    """The witnesses that were combined."""
    summary: str


def run_label_noise(
    input: str | Path,
    output: str | Path,
    *,
    folds: int = 5,
    seed: int = 0,
    encoder: str | Encoder = EMBEDDED,
    prior: str | None = EMBEDDED,
    flip_below: float = FLIP_BELOW,
    drop_below: float = DROP_BELOW,
    progress: StepProgress | None = None,
) -> LabelNoiseDone:
    """Adds ``label_probability`` (out of fold), ``label_margin`` and ``suggested_action`` to a file of pairs.

    Ready rewards in ``chosen_rewards`` and ``rejected_rewards`` are used where the file has them. The
    whole file is read at once.

    Args:
        folds, seed, encoder, prior, flip_below, drop_below: see :func:`curation.scores.label_noise.label_noise`.

    Raises:
        InputError: when the file, its columns or an option is wrong, or prompts are fewer than folds.
        ModelError: when the encoder or the heads cannot be loaded.
    """
    advance = progress.advance if progress else lambda rows: None
    with open_stream(input, output, shapes=("pair",), chunk_rows=None) as stream:
        used: list[str] = []
        actions: dict[str, int] = {}
        for chunk in stream.chunks():
            result = label_noise(
                _with_rewards(chunk, stream.originals),
                folds=folds,
                seed=seed,
                encoder=encoder,
                prior=prior,
                flip_below=flip_below,
                drop_below=drop_below,
                advance=advance,
            )
            stream.write(result.frame.select("row", *LABEL_NOISE_COLUMNS))
            place = chunk["row"]
            stream.reject_frame(result.rejects.with_columns(row=place.gather(result.rejects["row"])))
            actions = dict(result.frame["suggested_action"].value_counts(sort=True).iter_rows())
            used = result.used
    lines = [
        stream.summary(),
        "used: " + "; ".join(used),
        "suggested: " + ", ".join(f"{action} {count:,}" for action, count in actions.items()),
    ]
    return LabelNoiseDone(stream.rows_written, stream.rejected, actions, used, "\n".join(lines))


def _with_rewards(chunk: pl.DataFrame, originals: pl.DataFrame) -> pl.DataFrame:
    """The canonical pairs, with the rewards that the file holds beside them."""
    from curation.files import ROW

    if not set(_WITNESSES) <= set(originals.columns):
        return chunk
    rewards = originals.select(pl.col(ROW).alias("row"), *_WITNESSES)
    return chunk.join(rewards, on="row", how="left", maintain_order="left")

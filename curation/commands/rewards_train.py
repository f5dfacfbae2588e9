"""``curation rewards train``: reward heads from a file of pairs, and the pairs' own rewards out of fold."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import polars as pl

from curation.commands.streams import Stream, open_stream
from curation.errors import InputError
from curation.files import ROW, rejects_path
from curation.models.encoder import open_encoder
from curation.models.identity import EMBEDDED
from curation.models.rewards.heads import HEADS_FILE, FloatArray, heads_bytes
from curation.progress import ProgressSink, SilentProgress
from curation.publish.swapping import dataset_folder
from curation.scores.training import TrainedHeads, TrainingOptions, train_heads

__all__ = ["OUT_OF_FOLD_FILE", "TrainingDone", "run_rewards_train"]

OUT_OF_FOLD_FILE: Final = "out_of_fold.parquet"
_WRITTEN: Final = (HEADS_FILE, "README.md", OUT_OF_FOLD_FILE, rejects_path(Path(OUT_OF_FOLD_FILE)).name)


class TrainingDone(NamedTuple):
    """What the command did."""

    rows: int
    rejected: dict[str, int]
    accuracy: float
    """Out of fold, of the given labels."""
    summary: str


def run_rewards_train(
    input: str | Path,
    output: str | Path,
    *,
    heads: int = 5,
    folds: int = 5,
    seed: int = 0,
    encoder: str = EMBEDDED,
    label_probability: str | None = None,
    device: str | None = None,
    progress: ProgressSink | None = None,
) -> TrainingDone:
    """Writes a folder: ``heads.safetensors``, a card, and ``out_of_fold.parquet``.

    The latter holds the input's rows with ``chosen_rewards`` and ``rejected_rewards``, out of fold, ready
    for ``curation strength``. The folder is replaced as a whole, or not at all.

    Args:
        input: ``prompt``, ``chosen``, ``rejected``; the whole file is read at once.
        output: a new folder, or one that this command has written.
        heads: M, each with its own shuffle and bootstrap sample.
        folds: K of the cross-fitting; the pairs of a prompt are in one fold.
        label_probability: a column with the probability that each label is right, for soft labels.

    Raises:
        InputError: when the file, its columns or the folder is wrong, or prompts are fewer than folds.
        ModelError: when the encoder cannot be loaded.
    """
    folder = _checked(Path(output), input)
    options = TrainingOptions(heads, folds, seed)
    progress = progress or SilentProgress()
    with tempfile.TemporaryDirectory(prefix="curation-train-") as temporary:
        path = Path(temporary) / OUT_OF_FOLD_FILE
        with open_stream(input, path, shapes=("pair",), chunk_rows=None) as stream:
            trained: TrainedHeads | None = None
            for chunk in stream.chunks():
                trained = _train(chunk, stream, encoder, label_probability, device, options, progress)
                _write(stream, chunk, trained)
        if trained is None:
            raise InputError(f"{input}: no rows")
        files = {HEADS_FILE: heads_bytes(trained.heads), "README.md": trained.card.encode()}
        for written in (path, rejects_path(path)):
            if written.exists():
                files[written.name] = written.read_bytes()
        with dataset_folder(str(folder)) as place:
            for name, data in files.items():
                place.stage(name, data)
            place.swap(list(files))
    lines = [
        stream.summary().replace(f"{path.parent}/", f"{folder}/"),
        f"{heads} heads, {folds} folds; out of fold they agree with {trained.accuracy:.1%} of the labels "
        f"(the longer answer: {trained.length_accuracy:.1%})",
        f"use them with --model {folder}",
    ]
    return TrainingDone(stream.rows_written, stream.rejected, trained.accuracy, "\n".join(lines))


def _checked(folder: Path, input: str | Path) -> Path:
    """The output folder, which is replaced as a whole, unless something would be gone with it."""
    there = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    if folder.exists() and (not folder.is_dir() or (there and HEADS_FILE not in there)):
        raise InputError(
            f"{folder} exists and holds something else than reward heads; expected a new folder, or one that "
            f"`curation rewards train` wrote"
        )
    if others := [name for name in there if name not in _WRITTEN]:
        raise InputError(
            f"{folder} also holds {others[0]}, which this command did not write, and which would be gone: move it, "
            f"or give another folder with -o"
        )
    if not str(input).startswith("hf://") and Path(input).resolve().parent == folder.resolve():
        raise InputError(
            f"{folder} holds the input {input}: its rows that are rejected would be gone; give another folder "
            f"with -o"
        )
    above = next(place for place in folder.absolute().parents if place.exists())
    if not (above.is_dir() and os.access(above, os.W_OK | os.X_OK)):
        raise InputError(f"{folder} cannot be made: you may not write in {above}; give another folder with -o")
    return folder


def _train(
    chunk: pl.DataFrame,
    stream: Stream,
    encoder: str,
    label_probability: str | None,
    device: str | None,
    options: TrainingOptions,
    progress: ProgressSink,
) -> TrainedHeads:
    targets = None if label_probability is None else _targets(chunk, stream.originals, label_probability)
    loaded = open_encoder(encoder, device=device)
    return train_heads(
        chunk["prompt"].to_list(),
        chunk["chosen"].to_list(),
        chunk["rejected"].to_list(),
        encoder=loaded,
        encoder_name=encoder,
        options=options,
        targets=targets,
        progress=progress,
    )


def _targets(chunk: pl.DataFrame, originals: pl.DataFrame, column: str) -> FloatArray:
    if column not in originals.columns:
        raise InputError(
            f"column {column!r} is missing: found {', '.join(c for c in originals.columns if c != ROW)}; "
            f"expected the probability that each label is right, as `curation label-noise` writes it"
        )
    known = originals.select(pl.col(ROW).alias("row"), pl.col(column).cast(pl.Float64, strict=False).alias("p"))
    values = chunk.select("row").join(known, on="row", how="left", maintain_order="left")
    wrong = values.filter(~pl.col("p").is_between(0, 1).fill_null(False))
    if wrong.height:
        raise InputError(
            f"column {column!r}, row {wrong['row'][0]}: found {wrong['p'][0]}, expected a probability from 0 to 1 "
            f"in every row"
        )
    return np.asarray(values["p"].to_numpy(), dtype=np.float64)


def _write(stream: Stream, chunk: pl.DataFrame, trained: TrainedHeads) -> None:
    columns = {
        f"{side}_rewards": pl.Series(values.tolist(), dtype=pl.List(pl.Float64))
        for side, values in (("chosen", trained.fit.chosen), ("rejected", trained.fit.rejected))
    }
    stream.write(pl.DataFrame({"row": chunk["row"], **columns}))

"""Evaluation sets, and other files to compare with, read by name. How they are compared is elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import polars as pl

from curation.errors import InputError
from curation.files import ROW, open_input
from curation.prompts.texts import mixed_as_text

__all__ = ["read_evaluations"]

_SUFFIXES: Final = (".jsonl", ".jsonl.gz", ".json", ".parquet", ".csv")


def read_evaluations(paths: Sequence[str | Path]) -> dict[str, pl.DataFrame]:
    """Evaluation sets by name: the file's name, or its whole path where two files share one.

    A row that cannot be read is there with nulls, so that it is counted among those without text; a column of
    texts in some rows and messages in others holds the texts of both.

    Raises:
        InputError: for a path that is nothing, or a folder without files.
    """
    files: list[str] = []
    for path in paths:
        folder = Path(path)
        if str(path).startswith("hf://") or not folder.is_dir():
            files.append(str(path))
            continue
        inside = sorted(str(file) for file in folder.rglob("*") if file.name.endswith(_SUFFIXES))
        if not inside:
            raise InputError(f"{path}: a folder with no {', '.join(_SUFFIXES)} file in it")
        files.extend(inside)
    names = [file if file.startswith("hf://") else Path(file).name for file in files]
    return {
        (name if names.count(name) == 1 else file): _whole(file) for name, file in zip(names, files, strict=True)
    }


def _whole(file: str) -> pl.DataFrame:
    source = open_input(file)
    frame = mixed_as_text(source.whole(), source.mixed)
    unread = pl.DataFrame({ROW: [reject.row for reject in source.rejects]}, schema={ROW: frame.schema[ROW]})
    return pl.concat([frame, unread], how="diagonal").sort(ROW)

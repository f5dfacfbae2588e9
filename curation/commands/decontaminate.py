"""``curation decontaminate``: the rows of a file that no evaluation set holds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from curation.commands.streams import open_stream
from curation.errors import InputError
from curation.files import read_frame
from curation.hygiene.contamination import EvaluationIndex

__all__ = ["read_evaluations", "run_decontaminate"]

_SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".parquet", ".csv")


def run_decontaminate(
    input_path: str | Path,
    output_path: str | Path,
    *,
    against: Sequence[str | Path],
    column: str = "prompt",
    n: int | None = None,
    min_overlap: float = 0.0,
    max_rows: int = 10,
    similarity: float | None = None,
    encoder: str = "embedded",
) -> str:
    """Writes the rows that stay; the rejects name the matched set, row and text.

    Args:
        input_path: any input; memory is bounded by one chunk of it and the evaluation sets.
        output_path: ``.parquet`` or ``.jsonl``.
        against: files, ``hf://`` addresses, or folders of files.
        column, n, min_overlap, max_rows, similarity, encoder: see
            ``curation.hygiene.contamination.decontaminate``.

    Returns:
        The summary for the user.

    Raises:
        InputError: when an input or an option is wrong.
    """
    with open_stream(input_path, output_path, text=[column]) as stream:
        index = EvaluationIndex(
            read_evaluations(against),
            column=column,
            n=n,
            min_overlap=min_overlap,
            max_rows=max_rows,
            similarity=similarity,
            encoder=encoder,
        )
        for rows in stream.chunks():
            rejects = index.rejects(rows["row"], rows[column])
            stream.reject_frame(rejects)
            stream.write(rows.select("row").join(rejects, on="row", how="anti", maintain_order="left"))
    sets = [
        f"{name} ({size}-grams, {index.templates[name]:,} left out as templates)"
        for name, size in index.sizes.items()
    ]
    return "\n".join([stream.summary(), "compared with " + ", ".join(sets)])


def read_evaluations(paths: Sequence[str | Path]) -> dict[str, pl.DataFrame]:
    """Evaluation sets by name: the file's name, or its whole path where two files share one.

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
        (name if names.count(name) == 1 else file): read_frame(file)[0]
        for name, file in zip(names, files, strict=True)
    }

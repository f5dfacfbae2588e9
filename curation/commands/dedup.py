"""``curation dedup``: the rows of a file without its duplicates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from curation.commands.streams import open_stream
from curation.errors import InputError, closest
from curation.files import ROW, open_input
from curation.hygiene.duplicates import deduplicate
from curation.prompts.texts import refuse_json_columns, text_columns

__all__ = ["run_dedup"]


def run_dedup(
    input_path: str | Path,
    output_path: str | Path,
    *,
    column: str | Sequence[str],
    method: str = "exact",
    threshold: float | None = None,
    keep: str = "first",
    score: str | None = None,
    against: str | Path | None = None,
    ngram: int = 3,
    look_alikes: bool = True,
    encoder: str = "embedded",
    seed: int = 0,
) -> str:
    """Writes the rows that stay; the rejects name the row that each of the others duplicates.

    The file is read twice; of the first pass only the compared text is held in memory.

    Args:
        input_path: any input.
        output_path: ``.parquet`` or ``.jsonl``.
        column: the text to compare; several are compared together.
        against: another file with these columns: what duplicates one of its rows goes, too.
        method, threshold, keep, score, ngram, look_alikes, encoder, seed: see
            ``curation.hygiene.duplicates.deduplicate``.

    Returns:
        The summary for the user.

    Raises:
        InputError: when the input or an option is wrong.
    """
    columns = [column] if isinstance(column, str) else list(column)
    with open_stream(input_path, output_path, text=columns, others=(against,)) as stream:
        if score is not None and score not in stream.source.schema:
            found = list(stream.source.schema)
            raise InputError(f"{input_path}: no column {score!r}{closest(score, found)}; found {', '.join(found)}")
        extra = [] if score is None else [score]
        texts = pl.concat(
            [
                rows.rename({"row": ROW}).join(stream.originals.select(ROW, *extra), on=ROW, maintain_order="left")
                for rows in stream.chunks()
            ]
        )
        other = None if against is None else _text_of(against, columns)
        result = deduplicate(
            texts,
            column=columns,
            method=method,
            threshold=threshold,
            keep=keep,
            score=score,
            against=other,
            ngram=ngram,
            look_alikes=look_alikes,
            encoder=encoder,
            seed=seed,
        )
        stays = result.kept.select(row=ROW)
        for rows in stream.chunks():
            stream.write(rows.select("row").join(stays, on="row", how="semi", maintain_order="left"))
        stream.reject_frame(result.rejects)
    return "\n".join([stream.summary(), *_notes(result.recall, result.truncated, method)])


def _text_of(path: str | Path, columns: list[str]) -> pl.DataFrame:
    source = open_input(path)
    name, mixed = source.name, source.mixed
    refuse_json_columns(source, columns)
    parts = [text_columns(part, columns, name=name, mixed=mixed, whole=False).rows for part in source.chunks()]
    return pl.concat(parts).rename({"row": ROW})


def _notes(recall: float, truncated: int, method: str) -> list[str]:
    notes = []
    if recall < 1:
        what = "of duplicates at the threshold" if method == "minhash" else "of nearest duplicates, on a sample"
        notes.append(f"recall of the search {recall:.4f} ({what})")
    if truncated:
        notes.append(f"{truncated:,} texts were longer than the encoder reads: compared by what it read")
    return notes

"""``curation decontaminate``: the rows of a file that no evaluation set holds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from curation.commands.streams import open_stream
from curation.hygiene.contamination import EvaluationIndex
from curation.hygiene.evaluations import read_evaluations

__all__ = ["run_decontaminate"]


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
    with open_stream(input_path, output_path, text=[column], others=against) as stream:
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
        f"{name} ({size}-grams, {index.templates[name]:,} left out as templates{_unread(index, name)})"
        for name, size in index.sizes.items()
    ]
    return "\n".join([stream.summary(), "compared with " + ", ".join(sets)])


def _unread(index: EvaluationIndex, name: str) -> str:
    rows = index.without_text[name]
    return f"; {rows:,} of its rows have no text to compare with" if rows else ""

"""Prompts and answers as a file has them, for scoring without a chat template; scored in ``ches_frames``."""

from __future__ import annotations

import polars as pl

from curation.files import ROW
from curation.prompts.dialogues import as_prompt
from curation.prompts.shapes import Binding
from curation.text import messages_text

__all__ = ["verbatim"]


def verbatim(rows: pl.DataFrame, frame: pl.DataFrame, binding: Binding) -> pl.DataFrame:
    """Canonical rows with prompts as the file has them, for scoring without a chat template.

    A prompt column of text is taken as it stands, unless the answers repeat a dialogue that is longer than it:
    then no turn may be lost. An answer that repeats the prompt's text starts right after it. Where chosen and
    rejected are hh-rlhf dialogues and there is no prompt, the prompt ends with the last ``Assistant:`` and the
    answers start right after it.

    Args:
        rows: from ``normalise(frame, binding)``.
        frame: the file's rows, numbered in ``ROW``.
    """
    texts = frame.select(ROW, *(c for c in frame.columns if frame.schema[c] == pl.String))
    paths = binding.fields.get("prompt", ())
    if len(paths) == 1 and paths[0] in texts.columns and paths[0] not in binding.mixed:
        return _with_prompts(rows, texts, paths[0], binding)
    sides = [binding.fields[side][0] for side in ("chosen", "rejected") if side in binding.fields]
    if paths or len(sides) != 2 or any(side not in texts.columns for side in sides):
        return rows
    split = texts.select(
        pl.col(ROW).alias("row"),
        *(_after_last(side, name) for side, name in zip(sides, ("chosen", "rejected"), strict=True)),
        prompt=pl.col(sides[0]).str.replace(r"(?s)^(.*\n\nAssistant:).*$", "${1}"),
    )
    return rows.select("row").join(split, on="row", how="left", maintain_order="left").select(rows.columns)


def _with_prompts(rows: pl.DataFrame, texts: pl.DataFrame, column: str, binding: Binding) -> pl.DataFrame:
    """Rows with the text of a prompt column, and what stands after it in answers that were split at it."""
    given = rows.select("row").join(texts, left_on="row", right_on=ROW, how="left", maintain_order="left")
    prompts = [
        text if as_prompt(text) == read else messages_text(read)
        for text, read in zip(given[column], rows["prompt"].to_list(), strict=True)
    ]
    found = rows.with_columns(pl.Series("prompt", prompts, dtype=pl.String))
    for side in ("chosen", "rejected"):
        paths = binding.fields.get(side, ())
        if side in rows.columns and len(paths) == 1 and paths[0] in texts.columns and paths[0] not in binding.mixed:
            whole, answer, prompt = given[paths[0]].alias("_whole"), pl.col(side), pl.col("prompt")
            split = (answer != pl.col("_whole")) & pl.col("_whole").str.starts_with(prompt)
            after = pl.col("_whole").str.strip_prefix(prompt)
            found = found.with_columns(whole).with_columns(pl.when(split).then(after).otherwise(answer).alias(side))
            found = found.drop("_whole")
    return found


def _after_last(column: str, name: str) -> pl.Expr:
    return pl.col(column).str.replace(r"(?s)^.*\n\nAssistant:", "").alias(name)

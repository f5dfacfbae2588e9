"""``curation select``: so many rows of a file, chosen for diversity or for likeness to a target."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from curation.commands.streams import open_stream
from curation.errors import InputError
from curation.hygiene.chosen_texts import AIMED, ChosenTexts, choose_texts, target_texts

__all__ = ["run_select"]


def run_select(
    input_path: str | Path,
    output_path: str | Path,
    *,
    method: str,
    rows: int,
    column: str = "prompt",
    target: str | None = None,
    encoder: str = "embedded",
    seed: int = 0,
) -> str:
    """Writes the chosen rows in their order; the rejects (``not_selected``) name the nearest row that was chosen.

    The file is read twice; of the first pass only the compared text is held in memory.

    Args:
        input_path: any input.
        output_path: ``.parquet`` or ``.jsonl``.
        method: one of ``curation.hygiene.chosen_texts.SELECTIONS``.
        rows: how many to choose.
        column: the text to choose by.
        target: a file, folder or ``hf://`` address of texts to be like, for dsir, transport and lengths.
        encoder: a MODEL, for k_centre, facility_location and transport.
        seed: of the start or the draw.

    Returns:
        The summary for the user.

    Raises:
        InputError: when the input, the target or an option is wrong.
    """
    if rows < 1:
        raise InputError(f"rows: found {rows}, expected at least 1")
    if method in AIMED and target is None:
        raise InputError(f"method {method!r} needs --target FILE: texts to be like")
    wanted = [] if target is None else target_texts(target, column=column)
    with open_stream(input_path, output_path, text=[column], others=(target,)) as stream:
        texts = pl.concat(list(stream.chunks()))
        chosen = choose_texts(
            texts[column].to_list(), method=method, count=rows, target=wanted, encoder=encoder, seed=seed
        )
        stays = texts.height - len(chosen.left_out)
        rejects = _rejects(texts["row"], chosen, f"{method} chose {stays:,} of {texts.height:,} rows")
        for part in stream.chunks():
            stream.write(part.select("row").join(rejects, on="row", how="anti", maintain_order="left"))
        stream.reject_frame(rejects)
    notes = [stream.summary()]
    if stays < rows:
        why = "longer or shorter ones are too rare" if len(chosen.left_out) else "there are no more"
        notes.append(f"{stays:,} rows in place of {rows:,}: {why}")
    return "\n".join(notes)


def _rejects(rows: pl.Series, chosen: ChosenTexts, what: str) -> pl.DataFrame:
    """row, rule, value (the nearest row that was chosen, else the score) and reason of what was left out."""
    score = pl.Series("score", chosen.score, dtype=pl.Float64)
    gone = pl.DataFrame([rows.gather(chosen.left_out).alias("row"), score])
    said = pl.format(f"{chosen.measure} {{}}", pl.col("score").round(4))
    value = pl.col("score").cast(pl.String)
    if chosen.nearest is not None:
        gone = gone.with_columns(rows.gather(chosen.nearest).alias("nearest"))
        value = pl.col("nearest").cast(pl.String)
        said = pl.format("nearest chosen row {}, {}", "nearest", said)
    return gone.select(
        "row", rule=pl.lit("not_selected"), value=value, reason=pl.format(f"{what}, and not this one ({{}})", said)
    )

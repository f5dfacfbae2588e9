"""Columns of text as they stand, and the values of any column. Dialogues and pairs are in ``rows``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import polars as pl

from curation.errors import InputError, closest
from curation.files import ROW, RowError, rejects_frame
from curation.prompts import dialogues
from curation.prompts.shapes import is_text
from curation.text import messages_text

__all__ = ["TextRows", "cells", "check_columns", "text_columns"]

_MADE_BY: Final = {"chosen_rewards": "rewards", "rejected_rewards": "rewards", "refusal_probability": "refusals"}


class TextRows(NamedTuple):
    """``row`` and the named columns, in input order, and the rows that were turned away."""

    rows: pl.DataFrame
    rejects: pl.DataFrame


def text_columns(
    frame: pl.DataFrame, names: Sequence[str], *, name: str, mixed: frozenset[str] = frozenset()
) -> TextRows:
    """Columns of text as they are: row and the named columns; null and empty texts are rejected.

    A message list is read as its text (``curation.text.messages_text``).

    Raises:
        InputError: for a column that is not there or holds no text.
    """
    check_columns(frame, names, name=name)
    if "row" in names:
        raise InputError(f"{name}: column 'row' cannot be read as text, rejects use that name: rename it")
    numbers = frame[ROW] if ROW in frame.columns else pl.Series(range(frame.height), dtype=pl.Int64)
    data = pl.DataFrame([numbers.rename("row")])
    faults = pl.DataFrame(schema=rejects_frame().schema)
    for column in names:
        values = frame[column]
        if values.dtype == pl.Null:
            values = values.cast(pl.String)
        if values.dtype != pl.String or column in mixed:
            if column not in mixed and not is_text(values.dtype):
                raise InputError(f"{name}: column {column!r} holds {values.dtype}, expected text or messages")
            read = [_text_or_fault(cell, column) for cell in cells(frame, column, mixed=mixed)]
            bad = [error.at(row) for row, error in zip(numbers, read, strict=True) if isinstance(error, RowError)]
            faults = pl.concat([faults, rejects_frame(bad)])
            values = pl.Series(
                column, [None if isinstance(text, RowError) else text for text in read], dtype=pl.String
            )
        data = data.with_columns(values.alias(column))
        faults = pl.concat([faults, _text_faults(numbers, values, column)])
    faults = faults.unique("row", keep="first", maintain_order=True).sort("row")
    return TextRows(data.join(faults.select("row"), on="row", how="anti", maintain_order="left"), faults)


def check_columns(frame: pl.DataFrame, names: Iterable[str], *, name: str) -> None:
    """
    Raises:
        InputError: for the first column that is not there.
    """
    found = [column for column in frame.columns if column != ROW]
    for column in names:
        if column not in found:
            made = _MADE_BY.get(column)
            hint = f" (`curation {made}` makes it)" if made else closest(column, found)
            raise InputError(f"{name}: no column {column!r}{hint}; found {', '.join(found)}")


def cells(frame: pl.DataFrame, path: str, *, mixed: frozenset[str] = frozenset()) -> list[Any]:
    """The values of a column, or of a field inside a struct column (``outer.inner``)."""
    column, *inner = [path] if path in frame.columns else path.split(".")
    series = frame[column]
    if column in mixed:
        values = [None if cell is None else json.loads(cell) for cell in series]
    elif inner and isinstance(series.dtype, pl.Struct):
        return cells(series.struct.unnest(), ".".join(inner))
    else:
        values = series.to_list()
    for key in inner:
        values = [cell.get(key) if isinstance(cell, dict) else None for cell in values]
    return values


def _text_or_fault(cell: Any, column: str) -> str | RowError | None:
    if cell is None:
        return None
    try:
        dialogue = dialogues.as_dialogue(cell, column)
    except RowError as error:
        return error
    return dialogue if isinstance(dialogue, str) else messages_text(dialogue)


def _text_faults(numbers: pl.Series, values: pl.Series, column: str) -> pl.DataFrame:
    text = pl.col("text")
    rule = (
        pl.when(text.is_null())
        .then(pl.lit(f"null_{column}"))
        .when(text.str.strip_chars() == "")
        .then(pl.lit(f"empty_{column}"))
        .when(text.str.contains("\x00", literal=True))
        .then(pl.lit("nul_character"))
    )
    found = pl.DataFrame([numbers.rename("row"), values.rename("text")]).with_columns(rule=rule)
    return found.filter(pl.col("rule").is_not_null()).select(
        "row",
        "rule",
        pl.lit(column).alias("value"),
        pl.format("{} breaks the rule {}", pl.lit(column), pl.col("rule")).alias("reason"),
    )

"""Columns of text as they stand, and the values of any column. Dialogues and pairs are in ``rows``."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import polars as pl

from curation.errors import InputError, closest
from curation.files import ROW, InputFile, RowError, rejects_frame
from curation.prompts import dialogues
from curation.prompts.column_kinds import is_text
from curation.text import BLANK, messages_text

__all__ = [
    "TextRows",
    "cells",
    "check_columns",
    "mixed_as_text",
    "refuse_json_columns",
    "refuse_json_text",
    "text_columns",
]

_MADE_BY: Final = {"chosen_rewards": "rewards", "rejected_rewards": "rewards", "refusal_probability": "refusals"}
_MAY_BE_JSON: Final = re.compile(r"\s*(?:[\"\[{]|-?\d|true\b|false\b|null\b)")


class TextRows(NamedTuple):
    """``row`` and the named columns, in input order, and the rows that were turned away."""

    rows: pl.DataFrame
    rejects: pl.DataFrame


def text_columns(
    frame: pl.DataFrame, names: Sequence[str], *, name: str, mixed: frozenset[str] = frozenset(), whole: bool = True
) -> TextRows:
    """Columns of text as they are: row and the named columns; null and empty texts are rejected.

    A message list is read as its text (``curation.text.messages_text``). Of a part of a file (not ``whole``)
    nothing is said of JSON text: :func:`refuse_json_columns` looks at all of it.

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
        if whole and column not in mixed:
            refuse_json_text(values, name=name)
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
    """The values of a column, or of a field inside its objects (``outer.inner``), of each where they are listed."""
    column, *inner = [path] if path in frame.columns else path.split(".")
    series = frame[column]
    if column in mixed:
        values = [None if cell is None else json.loads(cell) for cell in series]
    elif inner and isinstance(series.dtype, pl.Struct):
        return cells(series.struct.unnest(), ".".join(inner))
    else:
        values = series.to_list()
    for key in inner:
        values = [_field_of(cell, key) for cell in values]
    return values


def _field_of(cell: Any, key: str) -> Any:
    if isinstance(cell, list):
        return [_field_of(one, key) for one in cell]
    return cell.get(key) if isinstance(cell, dict) else None


def mixed_as_text(frame: pl.DataFrame, mixed: Iterable[str]) -> pl.DataFrame:
    """A frame in whose columns of JSON text the texts and messages that it stands for are plain texts."""
    for column in mixed:
        read = [_text_or_fault(cell, column) for cell in cells(frame, column, mixed=frozenset([column]))]
        texts = [text if isinstance(text, str) else given for text, given in zip(read, frame[column], strict=True)]
        frame = frame.with_columns(pl.Series(column, texts, dtype=pl.String))
    return frame


def refuse_json_text(values: pl.Series, *, name: str) -> None:
    """That a column of texts is none of JSON text.

    A column whose values have several types is JSON text in our parquet, and marked; a program that writes the file
    anew drops the mark. Quotes, backslashes and names of roles would then be read as part of every text.

    Raises:
        InputError: when every cell is JSON, and one of them is messages or a text with escapes.
    """
    if values.dtype == pl.String and _is_json_text(_json_kinds(values)):
        raise _json_text(name, values.name)


def refuse_json_columns(source: InputFile, columns: Iterable[str]) -> None:
    """:func:`refuse_json_text` of columns of a file, whatever the order of its rows: one plain text is enough.

    The file is read until each column has one, which is among the head's rows but for a column of JSON text.

    Raises:
        InputError: as there.
    """
    schema, mixed = source.schema, source.mixed
    kinds: dict[str, set[str]] = {c: set() for c in columns if schema.get(c) == pl.String and c not in mixed}
    parts = itertools.chain([source.head()], source.chunks())
    while kinds and (part := next(parts, None)) is not None:
        found = {column: _json_kinds(part[column]) for column in kinds}
        kinds = {c: kinds[c] | more for c, more in found.items() if more is not None}
    for column, known in kinds.items():
        if _is_json_text(known):
            raise _json_text(source.name, column)


def _json_kinds(values: pl.Series) -> set[str] | None:
    """What the cells stand for as JSON text; None where one is none."""
    kinds = set()
    for text in values.drop_nulls():
        kind = _json_kind(text)
        if kind is None:
            return None
        kinds.add(kind)
    return kinds


def _is_json_text(kinds: set[str] | None) -> bool:
    return bool(kinds and kinds & {"messages", "escaped"})


def _json_text(name: str, column: str) -> InputError:
    return InputError(
        f"{name}: column {column!r} holds JSON text in every row, which would be read with its quotes and "
        f"backslashes: another program has written a file of ours anew, or messages were stored as text; give "
        f"the values themselves (json.loads of each cell, in a .jsonl file)"
    )


def _json_kind(text: str) -> str | None:
    """What a cell of JSON text stands for, as far as it can be in a column of texts; None for a plain text."""
    if not _MAY_BE_JSON.match(text):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(value, str):
        return "escaped" if "\\" in text else "text"
    if not isinstance(value, list | dict):
        return "scalar"
    turns = [value] if isinstance(value, dict) else value
    return "messages" if turns and all(dialogues.is_message(turn) for turn in turns) else None


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
        .when(text.str.strip_chars(BLANK) == "")
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

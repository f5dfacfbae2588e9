"""JSON lines and JSON as rows of Python values; CSV is in ``comma_separated``. Frames are made at the end.

A reader can be asked for its records again and again: the first time for the types, then for the rows.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

import polars as pl

from curation.errors import InputError
from curation.files.columns import Columns
from curation.files.json_values import JsonDecoder
from curation.files.lines import decoded, lines_of, open_binary
from curation.files.rejects import Reject
from curation.validation_words import kind_of

__all__ = ["Json", "JsonLines", "Parts", "Reader", "Record", "frames", "json_reader"]

_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")


class Record(NamedTuple):
    """One row of a file."""

    row: int
    values: dict[str, Any]
    size: int
    """Its length in the file, to bound the memory of a chunk."""


class Reader(Protocol):
    """A file that gives its rows, from the start, each time it is asked."""

    def records(self) -> Iterator[Record | Reject]: ...

    def columns(self, learned: Columns) -> Columns:
        """The columns to use, given the types that were learned from the records."""
        ...


Parts: TypeAlias = Iterator[pl.DataFrame | Reject]


class JsonLines:
    """One JSON object a line; blank lines are skipped and not counted."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def columns(self, learned: Columns) -> Columns:
        return learned

    def records(self) -> Iterator[Record | Reject]:
        row, decoder = 0, JsonDecoder()
        with open_binary(self._path) as file:
            for number, line in enumerate(lines_of(self._path, file), start=1):
                if line.isspace() or not line:
                    continue
                place = f"{self._path}: line {number}"
                values = _parse(decoder, decoded(line, place), place, whole=line.endswith(b"\n"))
                may_break = _SURROGATE.search(line) is not None
                repeated = decoder.repeated
                yield _record(row, values, place, may_break=may_break, repeated=repeated, size=len(line))
                row += 1


class Json:
    """A list of objects, an object with one list of objects, or an object of equally long lists."""

    def __init__(self, path: Path, text: str) -> None:
        self._path = path
        self._text = text
        self._may_break = re.search(r"\\u[dD][89a-fA-F]", text) is not None

    def columns(self, learned: Columns) -> Columns:
        return learned

    def records(self) -> Iterator[Record | Reject]:
        items = self._list_items() if self._text.startswith("[") else iter(self._rows_of_object())
        for row, (values, repeated, size) in enumerate(items):
            place = f"{self._path}: item {row} of the list"
            yield _record(row, values, place, may_break=self._may_break, repeated=repeated, size=size)

    def _list_items(self) -> Iterator[tuple[Any, str | None, int]]:
        """The items one by one: only the text and one item are in memory at a time."""
        decoder, text, position = JsonDecoder(), self._text, 1
        position = _skip(text, position)
        while text[position : position + 1] != "]":
            try:
                value, end = decoder.next(text, position)
            except (ValueError, RecursionError) as error:
                raise self._torn(getattr(error, "pos", position)) from error
            yield value, decoder.repeated, end - position
            position = _skip(text, end)
            if text[position : position + 1] == ",":
                position = _skip(text, position + 1)
            elif text[position : position + 1] != "]":
                raise self._torn(position)
        if text[position + 1 :].strip():
            raise self._torn(position + 1)

    def _rows_of_object(self) -> Iterator[tuple[Any, None, int]]:
        decoder = JsonDecoder()
        try:
            value = decoder.whole(self._text)
        except (ValueError, RecursionError) as error:
            raise self._torn(getattr(error, "pos", 0)) from error
        if decoder.repeated is not None:
            raise InputError(f"{self._path}: the key {decoder.repeated!r} stands twice in one object")
        lists = {key: item for key, item in value.items() if isinstance(item, list)}
        tables = [item for item in lists.values() if item and all(isinstance(row, dict) for row in item)]
        columns = len(lists) == len(value) and len({len(item) for item in lists.values()}) == 1
        # Several lists of one length are columns, also where one of them is of objects.
        if len(tables) == 1 and not (columns and len(lists) > 1):
            return ((row, None, 0) for row in tables[0])
        if columns:
            rows = zip(*lists.values(), strict=True)
            return ((dict(zip(lists, row, strict=True)), None, 0) for row in rows)
        raise InputError(
            f"{self._path}: found an object with keys {', '.join(list(value)[:8])}; expected a list of "
            f"objects, one object a line, or an object whose values are lists of one length"
        )

    def _torn(self, position: int) -> InputError:
        line = self._text.count("\n", 0, position) + 1
        return InputError(f"{self._path}: line {line} is not JSON: broken or cut off")


def json_reader(path: Path) -> Reader:
    """The reader for a ``.json`` file, which may hold JSON lines, too."""
    with open_binary(path) as file:
        data = b"".join(lines_of(path, file))
    first, _, rest = data.lstrip().partition(b"\n")
    if first.startswith(b"{") and rest.strip():
        with contextlib.suppress(ValueError, RecursionError):
            json.loads(first)
            return JsonLines(path)
    for number, line in enumerate(data.split(b"\n"), start=1):
        decoded(line, f"{path}: line {number}")
    text = data.decode().strip()
    if not text:
        raise InputError(f"{path} is empty: it holds only white space, expected rows")
    if text[0] not in "[{":
        raise InputError(f"{path}: line 1 starts neither a list nor an object, expected a list of objects")
    return Json(path, text)


def frames(
    reader: Reader, columns: Columns, *, row_name: str, chunk_rows: int | None, chunk_bytes: int | None
) -> Parts:
    """The records of a reader as frames of bounded size, with the rows' numbers in ``row_name``."""
    held: list[Record] = []
    size = 0
    for record in reader.records():
        if isinstance(record, Reject):
            yield record
            continue
        held.append(record)
        size += record.size
        if len(held) == chunk_rows or (chunk_bytes and size >= chunk_bytes):
            yield _frame(held, columns, row_name)
            held, size = [], 0
    if held:
        yield _frame(held, columns, row_name)


def _frame(held: list[Record], columns: Columns, row_name: str) -> pl.DataFrame:
    frame = columns.frame([record.values for record in held])
    return frame.with_columns(pl.Series(row_name, [record.row for record in held], dtype=pl.Int64))


def _parse(decoder: JsonDecoder, text: str, place: str, *, whole: bool) -> Any:
    try:
        return decoder.whole(text)
    except json.JSONDecodeError as error:
        cut = "" if whole else "; the file ends in the middle of this line"
        # Not error.colno: of a fault at the end it is that of the next line, of which nothing is here.
        column = min(error.pos, len(text.rstrip())) + 1
        raise InputError(f"{place} is not JSON: {error.msg} at column {column}{cut}") from error
    except RecursionError as error:
        raise InputError(f"{place} is JSON nested too deeply to be a row") from error
    except ValueError as error:
        raise InputError(f"{place} has a number of more digits than Python reads (4,300)") from error


def _record(
    row: int, values: Any, place: str, *, may_break: bool, repeated: str | None, size: int
) -> Record | Reject:
    if not isinstance(values, dict):
        raise InputError(f"{place} is {kind_of(values)}, expected an object with named columns")
    if repeated is not None:
        name = repeated.encode("utf-8", "replace").decode()
        return Reject(row, "repeated_key", name, "a key stands twice in one object: which value counts is unknown")
    if may_break:
        # Written with \uD800 escapes: a pair is one character, a lone half is none and no file can hold it.
        for name, value in values.items():
            try:
                json.dumps([name, value], ensure_ascii=False).encode()
            except UnicodeEncodeError:
                reason = "holds half of a surrogate pair, which is not Unicode text"
                return Reject(row, "invalid_unicode", name.encode("utf-8", "replace").decode(), reason)
    return Record(row, values, size)


def _skip(text: str, position: int) -> int:
    while position < len(text) and text[position] in " \t\r\n":
        position += 1
    return position

"""CSV as rows of Python values: numbers, booleans and lists where a column holds nothing else."""

from __future__ import annotations

import contextlib
import csv
import json
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, Final

import polars as pl

from curation.errors import InputError
from curation.files.columns import Columns
from curation.files.lines import decoded, lines_of, open_binary
from curation.files.records import Record
from curation.files.rejects import Reject

__all__ = ["Csv"]

_INTEGER: Final = re.compile(r"-?(?:0|[1-9]\d{0,17})")
_FLOAT: Final = re.compile(
    r"[-+]?(?:(?:0|[1-9]\d*)\.\d*(?:[eE][-+]?\d+)?|(?:0|[1-9]\d*)[eE][-+]?\d+|\.\d+|nan|NaN|inf|Infinity)"
)
_BOOLEANS: Final = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_OF_TEXTS: Final = {
    "prompt", "instruction", "input", "question", "query", "chosen", "rejected", "response", "completion", "output",
    "answer", "system", "system_prompt", "anchor", "positive", "text",
}  # fmt: skip
_BARE_CR: Final = (
    "a carriage return stands in a cell without quotes; lines end with a line feed: convert a file where none do "
    r"(tr '\r' '\n')"
)
_OTHER_SEPARATOR: Final = re.compile(r'"?[\w ]+"?([;\t|])"?[\w ]*"?(?:\1"?[\w ]*"?)*')
_LONGEST_CELL: Final = 2**31 - 1


class Csv:
    """Comma-separated values with a header; an empty cell is null. Semicolons, tabs and bars separate, too.

    A column is numbers, booleans or JSON lists when each of its cells is; otherwise it is text, as written. One
    with the name of texts (:data:`_OF_TEXTS`) is text, or lists of turns: an answer may well be 42.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._as_text: frozenset[str] | None = None

    def columns(self, learned: Columns) -> Columns:
        schema = {name: pl.String() if name in learned.mixed else t for name, t in learned.schema.items()}
        self._as_text = frozenset(name for name, dtype in schema.items() if dtype == pl.String)
        return Columns(schema)

    def records(self) -> Iterator[Record | Reject]:
        csv.field_size_limit(_LONGEST_CELL)
        as_text = self._as_text or frozenset()
        with open_binary(self._path) as file:
            lines = enumerate(lines_of(self._path, file), start=1)
            rows = self._rows(decoded(line, f"{self._path}: line {number}") for number, line in lines)
            header = next(rows, [])
            self._check_header(header)
            for row, cells in enumerate(rows):
                pairs = zip(header, cells, strict=True)
                values = {n: (cell or None) if n in as_text else _guess(cell, n) for n, cell in pairs}
                yield Record(row, values, sum(map(len, cells)))

    def _rows(self, lines: Iterator[str]) -> Iterator[list[str]]:
        header = next(lines, "")
        reader = csv.reader(chain([header], lines), strict=True, delimiter=_separator(header))
        width = 0
        try:
            for cells in reader:
                if not cells:
                    continue
                width = width or len(cells)
                if len(cells) != width:
                    found = f"line {reader.line_num} has {len(cells)} cells"
                    raise InputError(f"{self._path}: {found}, expected {width} as in the header")
                yield cells
        except csv.Error as error:
            said = _BARE_CR if str(error).startswith("new-line character") else str(error)
            raise InputError(f"{self._path}: line {reader.line_num} is not CSV: {said}") from error

    def _check_header(self, header: list[str]) -> None:
        twice = sorted({name for name in header if header.count(name) > 1})
        if twice:
            raise InputError(f"{self._path}: line 1 names column {twice[0]!r} twice, expected each once")


def _separator(header: str) -> str:
    """A comma; a semicolon, tab or bar where the names have nothing else between them, as where 0,5 is a number."""
    other = _OTHER_SEPARATOR.fullmatch(header.rstrip("\r\n"))
    return other[1] if other else ","


def _guess(cell: str, column: str) -> Any:
    """The value that a CSV cell spells, for columns in which every cell spells one."""
    if not cell:
        return None
    if column in _OF_TEXTS:
        said = _json_list(cell)
        return said if said and all(isinstance(turn, dict | str | None) for turn in said) else cell
    if cell in _BOOLEANS:
        return _BOOLEANS[cell]
    if _INTEGER.fullmatch(cell) and cell != "-0":
        return int(cell)
    if _FLOAT.fullmatch(cell):
        return float(cell)
    said = _json_list(cell)
    return cell if said is None else said


def _json_list(cell: str) -> list[Any] | None:
    if cell[0] == "[":
        with contextlib.suppress(ValueError, RecursionError):
            found: list[Any] = json.loads(cell)
            return found
    return None

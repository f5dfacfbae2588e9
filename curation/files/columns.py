"""One type per column for rows of Python values (JSON, CSV). Reading files is not here.

JSON lets a column change its type from row to row; a frame does not. Integers and floats become floats,
objects with different keys become one struct with nulls for what is missing. Whatever else disagrees
(a string here, a list there) is a *mixed* column: each of its values is kept as JSON text, nothing is
converted, and the reader says which columns these are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import polars as pl

from curation.text_columns import nested_series

__all__ = ["ColumnTypes", "Columns"]

# A scalar is its name, a list is ("list", item type), a struct is {field: type}.
Kind: TypeAlias = "str | tuple[str, Kind] | dict[str, Kind]"

NULL: Final = "null"
BIG: Final = "big integer"
MIXED: Final = "mixed"
_EXACT_IN_FLOAT: Final = 2**53
_INT64: Final = 2**63
_MAX_FIELDS: Final = 256
_DTYPES: Final[dict[str, pl.DataType]] = {
    NULL: pl.String(),
    "bool": pl.Boolean(),
    "int": pl.Int64(),
    BIG: pl.Int64(),
    "float": pl.Float64(),
    "str": pl.String(),
}


class Columns(NamedTuple):
    """The columns of a file."""

    schema: dict[str, pl.DataType]
    mixed: frozenset[str] = frozenset()
    """Columns of the schema whose values are JSON text, because their types differ between rows."""

    def frame(self, rows: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
        """Rows of Python values as a frame of this schema; a missing key is null."""
        # By name: a list of series would give a column without one a name.
        return pl.DataFrame({name: self._series(name, [row.get(name) for row in rows]) for name in self.schema})

    def _series(self, name: str, values: list[Any]) -> pl.Series:
        if name in self.mixed:
            values = [None if value is None else json.dumps(value, ensure_ascii=False) for value in values]
        # By Arrow: polars stops at [1, 2.5] inside an object, for it takes the list for one of integers.
        return nested_series(name, values, self.schema[name])


class ColumnTypes:
    """Learns the type of each column from rows seen one after the other."""

    def __init__(self) -> None:
        self._kinds: dict[str, Kind] = {}

    def see(self, row: Mapping[str, Any]) -> None:
        kinds = self._kinds
        for name, value in row.items():
            known = kinds.get(name, NULL)
            # The common case, kept cheap: a text column goes on being text.
            if type(value) is str and known == "str":
                continue
            kinds[name] = MIXED if known == MIXED else _merge(known, _kind(value))

    def columns(self) -> Columns:
        """What was learned, in the order of first appearance."""
        mixed = frozenset(name for name, kind in self._kinds.items() if kind == MIXED)
        schema = {name: pl.String() if name in mixed else _dtype(kind) for name, kind in self._kinds.items()}
        return Columns(schema, mixed)


def _kind(value: Any) -> Kind:
    if value is None:
        return NULL
    if isinstance(value, int) and not isinstance(value, bool):
        if not -_INT64 <= value < _INT64:
            return MIXED
        return "int" if -_EXACT_IN_FLOAT <= value <= _EXACT_IN_FLOAT else BIG
    if isinstance(value, list):
        item: Kind = NULL
        for element in value:
            item = _merge(item, _kind(element))
        return MIXED if item == MIXED else ("list", item)
    if isinstance(value, dict):
        return _struct({name: _kind(element) for name, element in value.items()})
    return type(value).__name__


def _merge(a: Kind, b: Kind) -> Kind:
    if b in (a, NULL):
        return a
    if a == NULL:
        return b
    if isinstance(a, tuple) and isinstance(b, tuple):
        item = _merge(a[1], b[1])
        return MIXED if item == MIXED else ("list", item)
    if isinstance(a, dict) and isinstance(b, dict):
        return _struct({name: _merge(a.get(name, NULL), b.get(name, NULL)) for name in {**a, **b}})
    pair = {a, b} if isinstance(a, str) and isinstance(b, str) else set()
    if pair == {"int", "float"}:
        return "float"
    return BIG if pair == {"int", BIG} else MIXED


def _struct(fields: dict[str, Kind]) -> Kind:
    # No fields cannot be stored as a struct; hundreds are a dictionary with data in its keys.
    return fields if 0 < len(fields) <= _MAX_FIELDS and MIXED not in fields.values() else MIXED


def _dtype(kind: Kind) -> pl.DataType:
    if isinstance(kind, tuple):
        return pl.List(_dtype(kind[1]))
    if isinstance(kind, dict):
        return pl.Struct({name: _dtype(field) for name, field in kind.items()})
    return _DTYPES[kind]

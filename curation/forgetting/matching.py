"""Whether a row, a string or a file holds something that is to be forgotten. Nothing is removed here."""

from __future__ import annotations

import functools
import html
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import polars as pl

from schemas import TABLES

__all__ = ["HEAD", "LONG", "Needles", "found_in"]

LONG: Final = 20
"""A text of so many characters is looked for inside others; a shorter one only as a whole value."""
HEAD: Final = 120
"""Of a text in a file of another kind so many first characters are looked for: reports cut what they show."""
_PATTERNS_AT_ONCE: Final = 5_000
_HOLD_TEXT: Final = frozenset(
    {"messages", "content", "prompt", "response", "responses", "reasoning", "system_prompt", "chosen", "rejected"}
    | {"completion", "anchor", "positive", "negative_1", "text", "matched_text", "value", "comment"}
)
"""The columns of our tables that hold texts of people and models; the others hold names of things."""
_BYTES_AT_ONCE: Final = 1 << 26


class Needles:
    """Identifiers, which are looked for everywhere, and texts: long ones inside values, short ones as values."""

    def __init__(self, identifiers: Iterable[str], texts: Iterable[str], *, common: Iterable[str] = ()) -> None:
        """
        Args:
            common: beginnings that texts which stay share: there the whole text is looked for.
        """
        shared = set(common)
        self.identifiers = sorted(set(identifiers))
        stripped = sorted({text.strip() for text in texts} - {""})
        self.long = [text for text in stripped if len(text) >= LONG]
        self.short = [text for text in stripped if len(text) < LONG]
        looked_for = (beginning if (beginning := text[:HEAD].strip()) not in shared else text for text in self.long)
        self._raw = sorted({form for text in looked_for for form in _forms(text)} | set(self.identifiers))
        self._longest = max((len(form.encode()) for form in self._raw), default=0)

    def __bool__(self) -> bool:
        return bool(self.identifiers or self.long or self.short)

    def rows(self, frame: pl.DataFrame, *, ours: bool = True) -> pl.Series:
        """Whether each row holds one of them, in a string at any depth.

        A short text is not looked for where our tables hold names: an answer ``stop`` is no finish reason.

        Args:
            ours: whether the columns are those of our tables; in a file of the user's a text may be anywhere.
        """
        hits = pl.repeat(False, frame.height, dtype=pl.Boolean, eager=True)
        for column in frame.get_columns():
            hits = hits | self._column(column, _names() if ours else frozenset())
        return hits

    def in_bytes(self, data: bytes) -> bool:
        """Whether bytes hold one of them: as it is, or as JSON, CSV or HTML write it."""
        step = _BYTES_AT_ONCE
        for start in range(0, max(len(data), 1), step):
            text = pl.Series([data[start : start + step + self._longest].decode("utf-8", "replace")])
            if any(text.str.contains_any(part).item() for part in _portions(self._raw)):
                return True
        return False

    def _column(self, column: pl.Series, names: frozenset[str]) -> pl.Series:
        nothing = pl.repeat(False, len(column), dtype=pl.Boolean, eager=True)
        kind = column.dtype
        if isinstance(kind, pl.Struct):
            for name in column.struct.fields:
                nothing = nothing | self._column(column.struct.field(name), names)
            return nothing
        if isinstance(kind, pl.List | pl.Array):
            if not _holds_text(kind):
                return nothing
            numbered = pl.DataFrame({"at": pl.int_range(len(column), eager=True), "value": column})
            if isinstance(kind, pl.Array):
                numbered = numbered.with_columns(pl.col("value").arr.to_list())
            inner = numbered.explode("value")
            at = inner.filter(self._column(inner["value"].alias(column.name), names))["at"]
            return numbered["at"].is_in(at.implode())
        if kind not in (pl.String, pl.Categorical):
            return nothing
        values = column.cast(pl.String)
        for part in _portions([*self.identifiers, *self.long]):
            nothing = nothing | values.str.contains_any(part).fill_null(False)
        if self.short and column.name not in names:
            nothing = nothing | values.str.strip_chars().is_in(self.short).fill_null(False)
        return nothing


def found_in(values: pl.Series, texts: Sequence[str]) -> set[str]:
    """Which of the texts stand in the values: long ones anywhere, short ones as the whole value."""
    needles = Needles((), texts)
    values = values.drop_nulls().unique()
    found = set(values.str.strip_chars().filter(values.str.strip_chars().is_in([*needles.short, *needles.long])))
    for part in _portions(needles.long):
        hits = values.filter(values.str.contains_any(part))
        found |= set(hits.str.extract_many(part, overlapping=True).explode().drop_nulls())
    return found


@functools.cache
def _names() -> frozenset[str]:
    """The columns of our tables, and the fields in them, that hold no texts."""
    columns = {name for table in TABLES.values() for name in _fields(table.create_empty().schema)}
    return frozenset(columns | {"label_action"}) - _HOLD_TEXT


def _fields(schema: Any) -> Iterator[str]:
    for name, kind in schema.items():
        yield name
        inner = kind
        while isinstance(inner, pl.List | pl.Array):
            inner = inner.inner
        if isinstance(inner, pl.Struct):
            yield from _fields(inner.to_schema())


def _portions(patterns: Sequence[str]) -> Iterable[list[str]]:
    return (list(patterns[i : i + _PATTERNS_AT_ONCE]) for i in range(0, len(patterns), _PATTERNS_AT_ONCE))


def _forms(text: str) -> tuple[str, ...]:
    quoted = (json.dumps(text, ensure_ascii=ascii_only)[1:-1] for ascii_only in (False, True))
    return (text, *quoted, html.escape(text), text.replace('"', '""'))


def _holds_text(kind: Any) -> bool:
    if isinstance(kind, pl.List | pl.Array):
        return _holds_text(kind.inner)
    if isinstance(kind, pl.Struct):
        return any(_holds_text(field.dtype) for field in kind.fields)
    return kind in (pl.String, pl.Categorical)

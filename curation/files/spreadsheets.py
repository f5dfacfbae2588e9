"""CSV for spreadsheets: what people open, fill in and save. Reading CSV is in ``comma_separated``."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any, Final

import polars as pl

__all__ = ["cell_text", "cut_for_cells", "neutral_cells", "spreadsheet_bytes", "text_cells"]

_FORMULA: Final = r"^[=+\-@\t\r\n]"
_RETYPED: Final = (
    r"(?i)^\s*(?:.{0,20}\d.{0,20}|true|false|wahr|falsch|vrai|faux|verdadero|verdadeiro|falso|vero|waar|onwaar)\s*$"
)
"""What may be a number, a date or a truth value to a spreadsheet, which writes 007 back as 7, 3/4 as 4 March."""
_LONGEST: Final = 16_000
"""Characters of a cell: of Excel's 32,767 each may take two, and what is longer goes on in the rows below."""
_HEAD: Final = 10_000
_TAIL: Final = 5_900


def spreadsheet_bytes(rows: pl.DataFrame) -> bytes:
    """CSV with the mark by which spreadsheets know UTF-8; lists and structs are JSON, and no text is a formula."""
    nested = [name for name, dtype in rows.schema.items() if dtype.is_nested()]
    texts = (pl.Series(name, [_json(value) for value in rows[name].to_list()], dtype=pl.String) for name in nested)
    return neutral_cells(rows.with_columns(*texts)).write_csv(quote_style="non_numeric").encode("utf-8-sig")


def neutral_cells(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows with an apostrophe before every text that a spreadsheet would take for a formula."""
    texts = (pl.col(name) for name, kind in rows.schema.items() if kind == pl.String)
    guarded = (
        pl.when(text.str.contains(_FORMULA)).then(pl.concat_str(pl.lit("'"), text)).otherwise(text).alias(name)
        for text, name in ((text, text.meta.output_name()) for text in texts)
    )
    return rows.with_columns(guarded)


def cell_text(text: str) -> str:
    """The text, or the beginning and the end of one that no cell holds."""
    return text if len(text) <= _LONGEST else f"{text[:_HEAD]} […] {text[-_TAIL:]}"


def cut_for_cells(rows: pl.DataFrame, columns: Collection[str]) -> int:
    """How many rows have a text of which :func:`cell_text` leaves out the middle."""
    long = [pl.col(name).str.len_chars() > _LONGEST for name in columns if rows.schema.get(name) == pl.String]
    return rows.filter(pl.any_horizontal(long)).height if long else 0


def text_cells(rows: pl.DataFrame, columns: Collection[str]) -> pl.DataFrame:
    """The rows with these texts as a spreadsheet gives them back: none too long, and an apostrophe before what it
    would take for a number, a date or a truth value."""
    names = [name for name in columns if rows.schema.get(name) == pl.String]
    cut = rows.with_columns(
        pl.Series(name, [None if text is None else cell_text(text) for text in rows[name]], dtype=pl.String)
        for name in names
    )
    return cut.with_columns(
        pl.when(pl.col(name).str.contains(_RETYPED))
        .then(pl.format("'{}", pl.col(name)))
        .otherwise(name)
        .alias(name)
        for name in names
    )


def _json(value: Any) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False, default=str)

"""CSV for spreadsheets: what people open, fill in and save. Reading CSV is in ``comma_separated``."""

from __future__ import annotations

import json
from typing import Any, Final

import polars as pl

__all__ = ["neutral_cells", "spreadsheet_bytes"]

_FORMULA: Final = r"^[=+\-@\t\r\n]"


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


def _json(value: Any) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False, default=str)

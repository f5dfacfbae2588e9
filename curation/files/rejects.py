"""A rejected row and the frame of them. Which rule rejects what is decided elsewhere."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

import polars as pl

__all__ = ["REJECTS_SCHEMA", "Reject", "RowError", "rejects_frame", "rejects_path"]

REJECTS_SCHEMA: Final = {"row": pl.Int64, "rule": pl.String, "value": pl.String, "reason": pl.String}

_OUTPUT_SUFFIXES: Final = (".jsonl.gz", ".jsonl", ".parquet")


class Reject(NamedTuple):
    """One row that was turned away."""

    row: int
    """The row's number in the input, from 0."""
    rule: str
    """Snake case: ``empty_response``, ``unknown_role``, …"""
    value: str
    """What broke the rule: a column, a role, a position. Never a whole text."""
    reason: str
    """One readable sentence."""


class RowError(Exception):
    """Raised while one row is read, turned into a :class:`Reject` by the loop that knows its number."""

    def __init__(self, rule: str, value: str, reason: str) -> None:
        super().__init__(rule)
        self.rule, self.value, self.reason = rule, value, reason

    def at(self, row: int) -> Reject:
        return Reject(row, self.rule, self.value, self.reason)


def rejects_frame(rejects: Iterable[Reject] = ()) -> pl.DataFrame:
    """The rejects as a frame with :data:`REJECTS_SCHEMA`, in the order of the rows."""
    return pl.DataFrame(list(rejects), schema=REJECTS_SCHEMA, orient="row").sort("row", maintain_order=True)


def rejects_path(output: Path) -> Path:
    """``<output stem>.rejects.parquet`` beside the output."""
    for suffix in _OUTPUT_SUFFIXES:
        if output.name.endswith(suffix):
            return output.with_name(f"{output.name.removesuffix(suffix)}.rejects.parquet")
    return output.with_name(f"{output.name}.rejects.parquet")

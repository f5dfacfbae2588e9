"""Parquet files and Hub datasets as Arrow batches. Rows are checked for text that is not UTF-8.

A mixed column (``curation.files.columns``) is JSON text in parquet, and its field says so: read here it stands for
the values that it was made from. A column that another program puts in its place has no such mark.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Final, Protocol

import polars as pl

from curation.errors import InputError, closest
from curation.files.rejects import Reject

__all__ = ["ArrowTable", "HubTable", "ParquetTable", "frames", "marked_as_json"]

_JSON_TEXT: Final = {b"curation": b"json text"}
_HUB: Final = re.compile(r"hf://(?P<name>[\w.-]+/[\w.-]+)(?:/(?P<config>[\w.-]+))?(?::(?P<split>[\w.\[\]%:-]+))?")


class ArrowTable(Protocol):
    """Rows in batches.

    Attributes:
        rows: how many there are.
        row_bytes: about how many bytes one takes in memory.
        schema: columns and types.
        mixed: columns that hold JSON text.
    """

    rows: int
    row_bytes: float
    schema: pl.Schema
    mixed: frozenset[str]

    def batches(self, batch_rows: int) -> Iterator[Any]:
        """``pyarrow.RecordBatch`` or ``pyarrow.Table`` objects, in order."""
        ...


class ParquetTable:
    """One parquet file."""

    def __init__(self, path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._path = path
        try:
            self._file = pq.ParquetFile(path)
            metadata = self._file.metadata
            self.rows = metadata.num_rows
            size = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
            schema = self._file.schema_arrow
        except pa.ArrowNotImplementedError as error:
            raise InputError(
                f"{path}: a column is of a type that cannot be read here ({str(error).splitlines()[0]}): write "
                f"it as int64, float64 or text, or leave it out"
            ) from error
        except (pa.ArrowException, OSError, ValueError, KeyError) as error:
            raise self._torn("its footer cannot be read") from error
        _check_names(schema, str(path))
        _check_types(schema, str(path))
        self.row_bytes = max(0, size) / max(1, self.rows)
        self.schema = _schema(schema)
        marked = [field.name for field in schema if _JSON_TEXT.items() <= (field.metadata or {}).items()]
        self.mixed = frozenset(name for name in marked if self.schema[name] == pl.String)

    def batches(self, batch_rows: int) -> Iterator[Any]:
        import pyarrow as pa

        done = 0
        try:
            for batch in self._file.iter_batches(batch_size=batch_rows):
                yield batch
                done += batch.num_rows
        except (pa.ArrowException, OSError, ValueError, KeyError) as error:
            raise self._torn(f"it breaks after row {done} of {self.rows}") from error

    def _torn(self, what: str) -> InputError:
        return InputError(f"{self._path}: not a whole parquet file: {what}; make or fetch the file again")


class HubTable:
    """One split of a dataset on the Hub, ``hf://owner/name[/config][:split]``, through ``datasets``.

    ``owner/name`` may also be a folder below the working directory, as ``datasets`` has it.
    """

    def __init__(self, address: str) -> None:
        match = _HUB.fullmatch(address)
        if match is None:
            raise InputError(f"{address!r}: expected hf://owner/name[/config][:split]")
        self._data = _load(address, match["name"], match["config"], match["split"])
        self.rows = len(self._data)
        self.row_bytes = (self._data.dataset_size or 0) / max(1, self.rows) or 1024.0
        _check_types(self._data.features.arrow_schema, address)
        self.schema = _schema(self._data.features.arrow_schema)
        self.mixed: frozenset[str] = frozenset()

    def batches(self, batch_rows: int) -> Iterator[Any]:
        yield from self._data.with_format("arrow").iter(batch_size=batch_rows)


def frames(table: ArrowTable, *, name: str, row_name: str, batch_rows: int) -> Iterator[pl.DataFrame | Reject]:
    """The batches of a table as frames, with the rows' numbers in ``row_name``; bad text as rejects."""
    import pyarrow as pa

    start = 0
    for written in table.batches(batch_rows):
        batch = written.replace_schema_metadata(None)
        bad: dict[int, str] = {}
        try:
            batch.validate(full=True)
        except pa.ArrowInvalid:
            bad = _bad_rows(batch)
            yield from (
                Reject(start + row, "invalid_unicode", column, "holds bytes that are not UTF-8 text")
                for row, column in bad.items()
            )
        numbers = pl.Series(row_name, range(start, start + batch.num_rows), dtype=pl.Int64)
        keep = [row not in bad for row in range(batch.num_rows)]
        frame = pl.from_arrow(batch.filter(pa.array(keep)) if bad else batch)
        if not isinstance(frame, pl.DataFrame):
            raise InputError(f"{name}: its rows are not a table")
        frame = frame.with_columns(numbers.filter(pl.Series(keep, dtype=pl.Boolean)))
        for column in sorted(table.mixed):
            is_json = pl.Series([_is_json(cell) for cell in frame[column]], dtype=pl.Boolean)
            reason = "the column holds JSON text, and this is none"
            yield from (Reject(row, "malformed_json", column, reason) for row in frame.filter(~is_json)[row_name])
            frame = frame.filter(is_json)
        yield frame
        start += batch.num_rows


def marked_as_json(table: Any, columns: Collection[str]) -> Any:
    """A ``pyarrow.Table`` whose fields of these names say that they hold JSON text."""
    import pyarrow as pa

    fields = [field.with_metadata(_JSON_TEXT) if field.name in columns else field for field in table.schema]
    return pa.Table.from_arrays(table.columns, schema=pa.schema(fields))


def _is_json(cell: str | None) -> bool:
    try:
        json.loads("null" if cell is None else cell)
    except (ValueError, RecursionError):
        return False
    return True


def _bad_rows(batch: Any) -> dict[int, str]:
    """The rows whose text is not UTF-8, each with the first column at fault."""
    import pyarrow as pa

    found: dict[int, str] = {}
    for column in batch.schema.names:
        for row in range(batch.num_rows):
            if row in found:
                continue
            # A slice still shares the buffers, a copy of one row does not.
            part = batch.column(column).slice(row, 1)
            one = pa.concat_arrays(part.chunks if isinstance(part, pa.ChunkedArray) else [part])
            try:
                one.validate(full=True)
            except pa.ArrowInvalid:
                found[row] = column
    return found


def _check_names(schema: Any, name: str) -> None:
    """That every column and field has a name in UTF-8, and no two columns the same; polars panics where not.

    Raises:
        InputError: when it is not so.
    """
    parts: list[tuple[str, list[Any]]] = [("", list(schema))]
    while parts:
        within, fields = parts.pop()
        try:
            names = [field.name for field in fields]
        except UnicodeDecodeError as error:
            raise InputError(f"{name}: the name of a column{within} is not UTF-8: rename it") from error
        twice = next((one for one in names if names.count(one) > 1), None)
        if twice is not None:
            raise InputError(f"{name}: two columns{within} have the name {twice!r}, expected each once: rename one")
        for field in fields:
            kinds = [field.type.field(i) for i in range(field.type.num_fields)]
            parts += [(f" in {field.name!r}", kinds)] if kinds else []


def _check_types(schema: Any, name: str) -> None:
    """That polars reads every column; at some types, also inside lists and structs, it panics.

    Raises:
        InputError: for the first column that it does not read.
    """
    from pyarrow import types

    for column, whole in zip(schema.names, schema.types, strict=True):
        kinds = [whole]
        while kinds:
            kind = kinds.pop()
            view = types.is_list_view(kind) or types.is_large_list_view(kind)
            if view or types.is_union(kind) or types.is_run_end_encoded(kind) or _is_wide(kind):
                raise InputError(
                    f"{name}: column {column!r} holds {kind}, which cannot be read here: write it as text, a plain "
                    f"list, float64 or decimal128, or leave it out"
                )
            if types.is_timestamp(kind) and kind.tz is not None and not _known_zone(kind.tz):
                raise InputError(
                    f"{name}: column {column!r} holds times of the time zone {kind.tz!r}, which is unknown here: "
                    f"write them in UTC, or leave the column out"
                )
            kinds += [kind.field(i).type for i in range(kind.num_fields)]


def _is_wide(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_decimal256(kind) or types.is_interval(kind))


def _known_zone(zone: str) -> bool:
    try:
        pl.Series(dtype=pl.Datetime("us")).dt.replace_time_zone(zone)
    except pl.exceptions.ComputeError:
        return False
    return True


def _schema(schema: Any) -> pl.Schema:
    # Notes of whoever wrote the file; polars panics at ones that are not UTF-8.
    empty = pl.from_arrow(schema.remove_metadata().empty_table())
    return empty.schema if isinstance(empty, pl.DataFrame) else pl.Schema()


def _load(address: str, name: str, config: str | None, split: str | None) -> Any:
    import datasets
    from datasets.exceptions import DatasetNotFoundError

    try:
        found = datasets.load_dataset(name, config, split=split)
    except (DatasetNotFoundError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{address} cannot be loaded: {reason}") from error
    if not isinstance(found, dict):
        return found
    if len(found) == 1:
        return next(iter(found.values()))
    if "train" in found:
        return found["train"]
    splits = ", ".join(found)
    raise InputError(f"{address}: found splits {splits}; name one, {address}:SPLIT{closest('train', found)}")

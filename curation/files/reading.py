"""Input files of every format as frames, in chunks, with the faults of a file turned into one line.

Formats: ``.jsonl``, ``.jsonl.gz``, ``.json``, ``.parquet``, ``.csv`` and ``hf://owner/name[/config][:split]``.
What the columns mean is not known here (see ``curation.prompts.shapes``).

    source = open_input("pairs.jsonl")
    for frame in source.chunks():        # source.schema plus the row number in ROW
        ...
    source.rejects                       # rows no frame can hold (lone surrogates), once they were passed

JSON and CSV are read twice, first for the types of the columns, so memory is bounded by one chunk. A
``.json`` file is held as text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import polars as pl

from curation.errors import InputError
from curation.files import arrow, records
from curation.files.columns import Columns, ColumnTypes
from curation.files.comma_separated import Csv
from curation.files.rejects import Reject

__all__ = ["CHUNK_ROWS", "INPUT_FORMS", "ROW", "InputFile", "open_input", "read_frame"]

ROW: Final = "__row__"
"""The column that holds a row's number in its file, from 0."""

CHUNK_ROWS: Final = 8192
_CHUNK_BYTES: Final = 64 * 2**20

INPUT_FORMS: Final = ".jsonl, .jsonl.gz, .json, .parquet, .csv or hf://owner/name[/config][:split]"

_REMEDIES: Final = {
    (".zst", ".zstd"): "unpack it (zstd -d)",
    (".bz2", ".xz", ".zip", ".tar", ".tgz", ".7z"): "unpack it",
    (".tsv", ".tab"): r"write it with commas: pandas.read_csv(…, sep='\t').to_csv(…, index=False)",
    (".xlsx", ".xls", ".ods"): "save the sheet as .csv",
    (".arrow", ".feather", ".pkl", ".pickle"): "write it with pandas or datasets: to_parquet(…)",
    (".txt",): "write each text as one line of a .jsonl",
}
"""What to do with files of other kinds."""


class InputFile:
    """An input that was found, opened and whose columns are known.

    Attributes:
        name: what the user called it.
        schema: the columns and their types, in the order of the file.
        mixed: columns whose types differ between rows; their values are JSON text.
        rejects: rows that no frame can hold; complete after one pass over :meth:`chunks`.
    """

    def __init__(self, name: str, columns: Columns, frames: Callable[[int | None], records.Parts]) -> None:
        if ROW in columns.schema:
            raise InputError(f"{name}: a column is called {ROW!r}, the name of the rows' numbers here: rename it")
        self.name = name
        self.schema = pl.Schema(columns.schema)
        self.mixed = columns.mixed
        self.rejects: list[Reject] = []
        self._frames = frames

    def chunks(self, chunk_rows: int | None = CHUNK_ROWS) -> Iterator[pl.DataFrame]:
        """The rows in order, ``chunk_rows`` at a time (None: all at once), with their numbers in ROW.

        Raises:
            InputError: when the file turns out to be torn, with the place.
        """
        self.rejects = []
        for part in self._frames(chunk_rows):
            if isinstance(part, Reject):
                self.rejects.append(part)
            else:
                yield part

    def whole(self) -> pl.DataFrame:
        """All rows that a frame can hold, with their numbers in ROW."""
        frames = list(self.chunks(None))
        return frames[0] if frames else self.head()

    def head(self, rows: int = 64) -> pl.DataFrame:
        """The first rows, for a look at what the columns hold."""
        for part in self._frames(rows):
            if not isinstance(part, Reject):
                return part
        return pl.DataFrame(schema={ROW: pl.Int64, **self.schema})


def open_input(path: str | Path) -> InputFile:
    """Opens an input file and learns its columns.

    Raises:
        InputError: when it is missing, empty, of another format, torn, or not UTF-8.
    """
    name = str(path)
    if name.startswith("hf://"):
        return _arrow_input(name, arrow.HubTable(name))
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{name} is a folder, expected a file: {INPUT_FORMS}")
    if not path.exists():
        raise InputError(f"{name}: no such file")
    if path.stat().st_size == 0:
        raise InputError(f"{name} is empty: it has no bytes, expected rows")
    if path.suffix == ".parquet":
        return _arrow_input(name, arrow.ParquetTable(path))
    for suffixes, reader in _RECORD_READERS:
        if path.name.endswith(suffixes):
            return _record_input(name, reader(path))
    remedy = next((f"; {said}" for suffixes, said in _REMEDIES.items() if path.suffix.lower() in suffixes), "")
    raise InputError(f"{name}: no format has the suffix {path.suffix!r}, expected {INPUT_FORMS}{remedy}")


def read_frame(path: str | Path) -> tuple[pl.DataFrame, list[Reject]]:
    """All rows of a file in one frame (with ROW), and the rows that no frame can hold.

    Raises:
        InputError: as :func:`open_input` and :meth:`InputFile.chunks`.
    """
    source = open_input(path)
    return source.whole(), source.rejects


_RECORD_READERS: Final = (
    ((".jsonl", ".jsonl.gz", ".ndjson"), records.JsonLines),
    ((".json", ".json.gz"), records.json_reader),
    ((".csv", ".csv.gz"), Csv),
)


def _record_input(name: str, reader: records.Reader) -> InputFile:
    types = ColumnTypes()
    rows, unread, reason = 0, 0, ""
    for record in reader.records():
        rows += 1
        if isinstance(record, Reject):
            unread, reason = unread + 1, record.reason
        else:
            types.see(record.values)
    if not rows:
        raise InputError(f"{name} is empty: it holds no rows")
    if unread == rows:
        raise InputError(f"{name}: none of its {rows} rows can be read, the last because of this: {reason}")
    columns = reader.columns(types.columns())
    if not columns.schema:
        raise InputError(f"{name}: none of its {rows} rows has a column")

    def frames(chunk_rows: int | None) -> records.Parts:
        limit = None if chunk_rows is None else _CHUNK_BYTES
        return records.frames(reader, columns, row_name=ROW, chunk_rows=chunk_rows, chunk_bytes=limit)

    return InputFile(name, columns, frames)


def _arrow_input(name: str, table: arrow.ArrowTable) -> InputFile:
    if not table.rows:
        raise InputError(f"{name} is empty: it has columns ({', '.join(table.schema)}) and no rows")

    def frames(chunk_rows: int | None) -> records.Parts:
        by_size = max(1, int(_CHUNK_BYTES / max(1.0, table.row_bytes)))
        batch_rows = min(chunk_rows or CHUNK_ROWS, by_size)
        parts = arrow.frames(table, name=name, row_name=ROW, batch_rows=batch_rows)
        if chunk_rows is not None:
            yield from parts
            return
        held = []
        for part in parts:
            if isinstance(part, Reject):
                yield part
            else:
                held.append(part)
        yield pl.concat(held)

    return InputFile(name, Columns(dict(table.schema), table.mixed), frames)

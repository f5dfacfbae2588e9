"""Output files: parquet, jsonl and jsonl.gz, written whole or not at all. Reading is not here.

JSON has no NaN and no infinity: in jsonl both are written as null.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

import polars as pl

from curation.errors import InputError, WorkspaceError
from curation.files.arrow import marked_as_json

if TYPE_CHECKING:
    import pyarrow.parquet as pq
    from polars._typing import PolarsDataType

__all__ = [
    "OUTPUT_SUFFIXES",
    "FrameWriter",
    "check_output",
    "check_schema",
    "file_errors",
    "open_output",
    "write_frame",
    "write_rejects",
    "write_whole",
]

OUTPUT_SUFFIXES: Final = (".parquet", ".jsonl", ".jsonl.gz")


def check_output(path: str | Path, *, also: tuple[str, ...] = ()) -> Path:
    """The path, when its suffix is one that can be written, or one of ``also``.

    Raises:
        InputError: when it is not.
    """
    path = Path(path)
    suffixes = (*OUTPUT_SUFFIXES, *also)
    if not path.name.endswith(suffixes):
        expected = ", ".join(suffixes)
        raise InputError(f"output {path}: found suffix {path.suffix!r}, expected one of {expected}")
    if path.is_dir():
        raise InputError(f"output {path} is a folder, expected a file name")
    return path


class FrameWriter:
    """Appends frames of one schema to an open file; the first frame sets the schema."""

    def __init__(self, file: IO[bytes], *, path: Path, mixed: frozenset[str] = frozenset()) -> None:
        self.rows = 0
        self._file = file
        self._path = path
        self.mixed = mixed
        self._schema: pl.Schema | None = None
        self._parquet: pq.ParquetWriter | None = None
        # No time and no name in the header: the same rows give the same bytes.
        gz = path.suffix == ".gz"
        self._gzip = gzip.GzipFile("", "wb", fileobj=file, mtime=0) if gz else None

    @property
    def started(self) -> bool:
        """Whether a frame, be it an empty one, was written."""
        return self._schema is not None

    def write(self, frame: pl.DataFrame) -> None:
        if self._schema is None:
            check_schema(frame.schema, self._path)
            self._schema = pl.Schema({name: _storable(dtype) for name, dtype in frame.schema.items()})
        frame = frame.select(pl.col(name).cast(dtype) for name, dtype in self._schema.items())
        self.rows += frame.height
        with file_errors(self._path):
            if self._path.suffix == ".parquet":
                self._write_parquet(frame)
            else:
                self._write_json_lines(frame)

    def _write_parquet(self, frame: pl.DataFrame) -> None:
        import pyarrow.parquet as pq

        table = marked_as_json(frame.to_arrow(compat_level=pl.CompatLevel.oldest()), self.mixed)
        if self._parquet is None:
            self._parquet = pq.ParquetWriter(self._file, table.schema, compression="zstd")
        self._parquet.write_table(table)

    def _write_json_lines(self, frame: pl.DataFrame) -> None:
        target: IO[bytes] = self._gzip or self._file  # type: ignore[assignment]
        buffer = io.BytesIO()
        frame.write_ndjson(buffer)
        mixed = [name for name in frame.columns if name in self.mixed]
        if not mixed:
            target.write(buffer.getvalue())
            return
        for line in buffer.getvalue().splitlines():
            row = json.loads(line)
            for name in mixed:
                row[name] = None if row[name] is None else json.loads(row[name], parse_constant=_no_number)
            target.write(json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")

    def close(self) -> None:
        """Ends the file's format; the file itself stays open."""
        with file_errors(self._path):
            if self._parquet is not None:
                self._parquet.close()
            if self._gzip is not None:
                self._gzip.close()

    def abandon(self) -> None:
        """Ends the format while the file is open, for a file that nobody will see: later pyarrow would complain."""
        if self._parquet is not None:
            with contextlib.suppress(OSError, ValueError):
                self._parquet.close()


@contextlib.contextmanager
def open_output(path: str | Path, *, mixed: frozenset[str] = frozenset()) -> Iterator[FrameWriter]:
    """A writer for ``path``; the file appears when the block ends well, and not otherwise.

    Args:
        path: ends in ``.parquet``, ``.jsonl`` or ``.jsonl.gz``; its folder is made when absent.
        mixed: columns that hold JSON text: in jsonl they become the values that they were, in parquet marked text.

    Raises:
        InputError: for another suffix.
        WorkspaceError: when the disk is full or the place cannot be written.
    """
    path = check_output(path)
    with write_whole(path) as raw:
        writer = FrameWriter(raw, path=path, mixed=mixed)
        try:
            yield writer
        except BaseException:
            writer.abandon()
            raise
        if not writer.started:
            writer.write(pl.DataFrame())
        writer.close()


def write_frame(frame: pl.DataFrame, path: str | Path, *, mixed: frozenset[str] = frozenset()) -> None:
    """Writes one frame with :func:`open_output`."""
    with open_output(path, mixed=mixed) as writer:
        writer.write(frame)


def write_rejects(rejects: pl.DataFrame, beside: Path) -> None:
    """The rejects of one run; without any, what an earlier run left there goes: its rows are kept now."""
    if rejects.height:
        write_frame(rejects, beside)
        return
    _clear_dead(beside)
    with file_errors(beside):
        beside.unlink(missing_ok=True)


@contextlib.contextmanager
def write_whole(path: Path) -> Iterator[IO[bytes]]:
    """A binary file that takes the place of ``path`` at the end of the block, or leaves no trace.

    What a killed process has left of an earlier attempt at the same path goes first.

    Raises:
        WorkspaceError: when the file cannot be made, completed or put in place.
    """
    with file_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear_dead(path)
        temporary, file = _temporary(path)
    try:
        yield file
        with file_errors(path):
            file.flush()
            os.fsync(file.fileno())
            if os.name == "nt":  # which renames no open file; elsewhere its lock holds until it is in place
                file.close()
            temporary.replace(path)
    finally:
        # After a failure closing fails again, over the same bytes.
        with contextlib.suppress(OSError):
            file.close()
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _temporary(path: Path) -> tuple[Path, IO[bytes]]:
    """A new file beside ``path``, locked for as long as it is open: the lock says that somebody still writes it."""
    while True:
        temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
        file = temporary.open("xb")
        if os.name == "posix":
            import fcntl

            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)
        # Another command may have taken it for a dead one's before it was locked.
        if os.fstat(file.fileno()).st_nlink or os.name != "posix":
            return temporary, file
        file.close()


def _clear_dead(path: Path) -> None:
    """Removes what killed processes have left beside ``path``: files of our naming that nobody holds a lock on."""
    if os.name != "posix":
        return
    import fcntl

    ours = re.compile(rf"\.{re.escape(path.name)}\.\d+-[0-9a-f]{{8}}\.tmp")
    names: list[str] = []
    with contextlib.suppress(OSError):  # no folder yet, or one that may not be listed
        names = [name for name in os.listdir(path.parent) if ours.fullmatch(name)]
    for left in (path.parent / name for name in names):
        # Of another user, on a disk without locks, or still written: it stays.
        with contextlib.suppress(OSError), left.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            left.unlink()


@contextlib.contextmanager
def file_errors(path: Path) -> Iterator[None]:
    """Turns a failure of the file system into one line about ``path``."""
    try:
        yield
    except OSError as error:
        raise WorkspaceError(
            f"cannot write {path}: {error.strerror or error}; nothing was written there: "
            f"free space or choose another place"
        ) from error


def check_schema(schema: Mapping[str, pl.DataType], path: str | Path) -> None:
    """That a file of this suffix can hold these columns.

    Raises:
        InputError: for bytes (images, audio), which JSON cannot hold.
    """
    for name, dtype in schema.items():
        if Path(path).suffix != ".parquet" and _holds_bytes(dtype):
            raise InputError(
                f"output {path}: column {name!r} holds {dtype}, and JSON cannot hold bytes; name an output that "
                f"ends in .parquet"
            )


def _holds_bytes(dtype: PolarsDataType) -> bool:
    if isinstance(dtype, pl.Struct):
        return any(_holds_bytes(field.dtype) for field in dtype.fields)
    if isinstance(dtype, pl.List | pl.Array):
        return _holds_bytes(dtype.inner)
    return bool(dtype == pl.Binary)


def _no_number(constant: str) -> None:
    """What JSON has in place of NaN and the infinities, which Python writes by these names."""


def _storable(dtype: pl.DataType) -> pl.DataType:
    """Columns in which nothing but null was seen have no type that parquet readers agree on."""
    return pl.String() if dtype == pl.Null else dtype

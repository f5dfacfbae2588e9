"""A frame as a dataset folder in the Hub's layout, swapped in whole. What the frame holds is in ``formats``.

    <folder>/data/<split>-00000-of-00001.parquet
    <folder>/evidence/<split>-…             where there are columns that trainers must not read
    <folder>/README.md, <folder>/assets/…   extra files, such as the card and the history

How a folder is replaced, on a disk and in an object store, is in ``curation.publish.swapping``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from io import BytesIO
from typing import Any, Final, NamedTuple

import polars as pl

from curation.errors import InputError, WorkspaceError
from curation.publish.swapping import dataset_folder
from schemas.columns import SPLITS

__all__ = ["Draft", "PublishedFile", "Written", "arrow_schema", "split_counts", "write_dataset"]

_ROW_GROUP: Final = 10_000
_COMPRESSION_LEVEL: Final = 3


class PublishedFile(NamedTuple):
    """A file of a dataset."""

    path: str
    """Relative to the dataset's folder."""
    rows: int | None
    bytes: int
    sha256: str
    memory: int = 0
    """Bytes of its rows as arrow holds them; 0 for what is no table."""


class Draft(NamedTuple):
    """A dataset whose data is there and whose other files are not, before readers see any of it."""

    files: tuple[PublishedFile, ...]
    published: Callable[[str], bytes | None]
    """What readers see now: a file by its path in the folder, None where there is none."""


class _Parquet(NamedTuple):
    data: bytes
    memory: int


class Written(NamedTuple):
    """What :func:`write_dataset` left in the folder."""

    files: tuple[PublishedFile, ...]
    changed: bool
    """False where the very same files were there already, and nothing was touched."""


def write_dataset(
    frame: pl.DataFrame,
    *,
    folder: str,
    filesystem: Any = None,
    split_column: str = "split",
    rows_per_shard: int = 100_000,
    evidence: pl.DataFrame | None = None,
    extra_files: Mapping[str, bytes] | Callable[[Draft], Mapping[str, bytes]] | None = None,
) -> Written:
    """Write rows as parquet shards, one set a split, in place of what the folder held.

    Rows keep their order within a split; the split's column is left out, since the file names say it.
    The same rows give the same bytes under the same package versions.

    Args:
        frame: the rows; ``split_column`` holds train, validation or test.
        folder: a local path, or a URL that ``filesystem`` understands.
        filesystem: an fsspec file system; None for the local disk.
        split_column: see ``frame``.
        rows_per_shard: rows in a file, at most.
        evidence: further columns, row by row beside ``frame``, written under ``evidence/``.
        extra_files: relative path to content, such as the card; or what makes them, once the data is there.

    Raises:
        InputError: when a split has another name, or there are no rows.
        WorkspaceError: when the folder cannot be written; what was published before is still there.
    """
    if frame.is_empty():
        raise InputError(f"{folder}: there are no rows to publish; what was published before stays")
    if rows_per_shard < 1:
        raise InputError(f"rows_per_shard is {rows_per_shard}, expected at least 1")
    splits, counts = frame[split_column], split_counts(frame, split_column=split_column)
    parts = {"data": frame} if evidence is None else {"data": frame, "evidence": evidence}
    try:
        with dataset_folder(folder, filesystem) as place:
            files = []
            for name, rows in parts.items():
                without = rows.drop(split_column, strict=False)
                for path, rows_there, shard in _shards(name, without, splits, counts, rows_per_shard):
                    place.stage(path, shard.data)
                    files.append(_file(path, rows_there, shard.data, memory=shard.memory))
            extra = extra_files(Draft(tuple(files), place.read)) if callable(extra_files) else extra_files
            for path, data in sorted((extra or {}).items()):
                place.stage(path, data)
                files.append(_file(path, None, data))
            changed = place.digests() != {f.path: f.sha256 for f in files}
            if changed:
                place.swap([f.path for f in files])
    except OSError as error:
        found = " ".join(str(error).split())[:300]
        raise WorkspaceError(
            f"cannot publish to {folder}: {found}. What was published before is still there; check that the "
            f"disk has room and that you may write there, then run again"
        ) from error
    return Written(tuple(files), changed)


def split_counts(frame: pl.DataFrame, *, split_column: str = "split") -> dict[str, int]:
    """Rows by split, in the order train, validation, test; splits without rows are left out.

    Raises:
        InputError: when a split has another name.
    """
    found = dict(frame.group_by(split_column).len().iter_rows())
    unknown = [name for name in found if name not in SPLITS]
    if unknown:
        raise InputError(f"{split_column} is {unknown[0]!r}, expected one of {', '.join(SPLITS)}")
    return {name: found[name] for name in SPLITS if name in found}


def _shards(
    folder: str, frame: pl.DataFrame, splits: pl.Series, counts: Mapping[str, int], rows_per_shard: int
) -> Iterator[tuple[str, int, _Parquet]]:
    """Each shard's relative path, rows and content, one at a time."""
    for split, count in counts.items():
        of_split = frame.filter(splits == split)
        shards = -(-count // rows_per_shard)
        for number in range(shards):
            shard = of_split.slice(number * rows_per_shard, rows_per_shard)
            yield f"{folder}/{split}-{number:05d}-of-{shards:05d}.parquet", shard.height, _parquet(shard)


def _file(path: str, rows: int | None, data: bytes, *, memory: int = 0) -> PublishedFile:
    return PublishedFile(path, rows, len(data), hashlib.sha256(data).hexdigest(), memory)


def _parquet(frame: pl.DataFrame) -> _Parquet:
    """Parquet with the plain arrow types that every reader knows (string and list, not their large kin)."""
    import pyarrow.parquet as pq

    buffer, memory = BytesIO(), 0
    schema = arrow_schema(frame)
    with pq.ParquetWriter(buffer, schema, compression="zstd", compression_level=_COMPRESSION_LEVEL) as writer:
        for start in range(0, frame.height, _ROW_GROUP):
            group = frame.slice(start, _ROW_GROUP).to_arrow(compat_level=pl.CompatLevel.oldest())
            writer.write_table(group := group.cast(schema), row_group_size=_ROW_GROUP)
            memory += group.nbytes
    return _Parquet(buffer.getvalue(), memory)


def arrow_schema(frame: pl.DataFrame) -> Any:
    """The arrow schema of a frame's files, in the plain types that every reader knows."""
    import pyarrow as pa

    def plain(kind: Any) -> Any:
        if pa.types.is_large_string(kind):
            return pa.string()
        if pa.types.is_large_list(kind) or pa.types.is_list(kind):
            return pa.list_(plain(kind.value_type))
        if pa.types.is_struct(kind):
            return pa.struct([pa.field(f.name, plain(f.type)) for f in kind])
        return kind

    schema = frame.head(0).to_arrow(compat_level=pl.CompatLevel.oldest()).schema
    return pa.schema([pa.field(f.name, plain(f.type)) for f in schema])

"""Making the commits of a Delta table on a local disk survive the death of the machine.

delta-rs writes a commit's data files, then its log entry, and leaves both to the system: a kill costs nothing, but
until the system has written them a loss of power can take them, or leave them torn. That is nothing where a row can
be computed again. What is paid for is let go by the journal only after :func:`settle`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

__all__ = ["settle", "settle_folder"]


def settle(table: Path, *, after: int = -1) -> int:
    """Wait until the disk has the commits of a table: their data files, then their log entries, then the folders.

    Args:
        table: its folder.
        after: the last version that is known to be on the disk, with its summary if it has one.

    Returns:
        The last version that is now.

    Raises:
        OSError: when the disk cannot say so.
    """
    log = table / "_delta_log"
    entries = sorted(p for p in log.glob("*.json") if p.stem.isdecimal() and int(p.stem) > after)
    if not entries:
        return after
    files = [file for entry in entries for file in _added(table, entry) if file.exists()]
    for file in files:
        _sync(file)
    # Summaries of the log come last: they stand for entries.
    summaries = [p for p in log.glob("*.checkpoint*.parquet") if int(p.name.partition(".")[0]) > after]
    for path in (*entries, *summaries, *log.glob("_last_checkpoint")):
        _sync(path)
    # A file is found again only if the folder that names it is there, and so on upwards.
    for folder in sorted({*(file.parent for file in files), log, table, table.parent}, reverse=True):
        settle_folder(folder)
    return int(entries[-1].stem)


def settle_folder(folder: Path) -> None:
    """Wait until the disk has the names in a folder."""
    if os.name == "posix":
        _sync(folder)


def _added(table: Path, entry: Path) -> Iterator[Path]:
    """The data files that a log entry adds. One that a compaction replaced and a vacuum took may not be there."""
    for line in entry.read_bytes().splitlines():
        action = json.loads(line) if line else {}
        if "add" in action:
            yield table / unquote(action["add"]["path"])


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

"""Tables that were damaged from outside: finding it before a run, and repairing what can be.

A commit is whole or not at all as far as a program can see to it. A machine that loses power, a disk with errors or
a copy that was cut short can still leave a log entry or a data file torn. Read as it is, such a table would be an
error in the middle of a run, or lack rows without a word. Only workspaces on a local disk are looked at: an object
store puts files whole. What a table means is not known here.

A repair takes a torn summary of the log away, where all its entries are there. It takes a torn log entry away, so
that the table is what it was before it; rows of a ledger table whose file is whole are added again. A data file
that is torn or gone is taken from its table; rows of a ledger table that lie in older files, from before they
were merged, are added again, and the next run computes the others. What is taken away goes to ``damaged/`` in the
workspace.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

import polars as pl

from curation.errors import WorkspaceError
from curation.workspace import LEDGER_TABLES, Workspace
from schemas import TABLES

__all__ = ["Damage", "check_whole", "find_damage", "repair"]

_MAGIC: Final = b"PAR1"
_NOT_RESCUED: Final = frozenset({"failures"})
"""Its rows are deleted when they are to be tried again; an old file would bring them back."""

_SECONDS_OF_A_COMMIT: Final = 600.0
"""A data file is written so much before its log entry at most."""

_BACKUP: Final = (
    "Put a backup in its place, or move the folder away: a table of the ledger is then computed anew, any other is "
    "made again from the ledger"
)


class Damage(NamedTuple):
    """What is wrong with one table."""

    table: str
    entries: tuple[Path, ...]
    """A torn log entry, and those after it."""
    files: tuple[Path, ...]
    """Data files that are torn or gone."""
    rows: int
    """How many rows the data files held, by the log."""
    summaries: tuple[Path, ...] = ()
    """Torn summaries of the log (Delta's checkpoints), while every entry that they sum up is there."""

    @property
    def what(self) -> str:
        if self.summaries:
            return f"the summary {self.summaries[0].name} of the log of table {self.table!r} is torn"
        if self.entries:
            return f"log entry {self.entries[0].name} of table {self.table!r} is torn"
        return f"{len(self.files)} data files of table {self.table!r} are torn or gone ({self.rows:,} rows)"


def check_whole(workspace: Workspace) -> None:
    """Refuse a workspace with damaged tables.

    Raises:
        WorkspaceError: with what is wrong, and the command that repairs it.
    """
    found = find_damage(workspace)
    if found:
        more = f" (and {len(found) - 1} more tables)" if len(found) > 1 else ""
        raise WorkspaceError(
            f"{workspace.url} is damaged: {found[0].what}{more}. Nothing was changed. `curation repair "
            f"{workspace.url}` takes out what is torn and says what that costs; or put a backup in its place"
        )


def find_damage(workspace: Workspace) -> list[Damage]:
    """Every damaged table of a workspace on a local disk."""
    if not workspace.is_local:
        return []
    found = (_damage(name, Path(workspace.table_path(name))) for name in TABLES)
    return [damage for damage in found if damage is not None]


def repair(workspace: Workspace) -> list[str]:
    """Repair what :func:`find_damage` finds; returns a line for each thing done.

    Raises:
        WorkspaceError: when a run holds the workspace, or a table cannot be repaired.
    """
    done: list[str] = []
    with workspace.lock():
        for name in TABLES:
            # Summaries and entries of the log first: which files there are to look at depends on them.
            for _ in range(3):
                damage = _damage(name, Path(workspace.table_path(name)))
                if damage is not None:
                    done += _repaired(workspace, damage)
        left = find_damage(workspace)
    if left:
        raise WorkspaceError(
            f"{left[0].what}, and could not be repaired: put a backup of {workspace.table_path(left[0].table)} in "
            f"its place, or move that folder away, after which all its rows are computed anew"
        )
    return done


# ---- finding -----------------------------------------------------------------------------------------------


def _damage(name: str, table: Path) -> Damage | None:
    summaries = _torn_summaries(table)
    if summaries:
        return Damage(name, (), (), 0, summaries)
    entries = _entries(table)
    for position, entry in enumerate(entries):
        if not _is_whole(entry):
            return Damage(name, tuple(entries[position:]), (), 0)
    files, rows = [], 0
    for file, size, count in _data_files(table) if entries or _summaries(table) else ():
        if not _is_whole_parquet(file, size):
            files.append(file)
            rows += count
    return Damage(name, (), tuple(files), rows) if files else None


def _torn_summaries(table: Path) -> tuple[Path, ...]:
    """Summaries that are torn, and for which all entries are there, from the last whole one or the first on.

    Raises:
        WorkspaceError: when one is torn, and entries that it sums up are gone.
    """
    found = _summaries(table)
    torn = {version for version, path in found.items() if not _is_whole_parquet(path, path.stat().st_size)}
    after = max(set(found) - torn, default=-1)
    entries = {int(path.stem) for path in (table / "_delta_log").glob("*.json") if path.stem.isdecimal()}
    if torn and not entries.issuperset(range(after + 1, max(entries, default=-1) + 1)):
        raise WorkspaceError(f"cannot read {table}: {found[max(torn)].name} is torn. {_BACKUP}")
    return tuple(found[version] for version in sorted(torn))


def _summaries(table: Path) -> dict[int, Path]:
    found = (table / "_delta_log").glob("*.checkpoint.parquet")
    return {int(p.name.split(".")[0]): p for p in found if p.name.split(".")[0].isdecimal()}


def _entries(table: Path) -> list[Path]:
    """The log entries since the last summary of the log, in order."""
    log = table / "_delta_log"
    if not log.is_dir():
        return []
    after = max(_summaries(table), default=-1)
    found = [p for p in log.glob("*.json") if p.stem.isdecimal() and int(p.stem) > after]
    return sorted(found, key=lambda p: int(p.stem))


def _is_whole(entry: Path) -> bool:
    """Whether each line is JSON, and there are as many actions as the first of them says."""
    try:
        actions = [json.loads(line) for line in entry.read_bytes().splitlines() if line]
    except ValueError:
        return False
    if not actions or not all(isinstance(action, dict) for action in actions):
        return False
    info: Any = next((action["commitInfo"] for action in actions if "commitInfo" in action), {})
    metrics = info.get("operationMetrics") if isinstance(info, dict) else None
    for kind, key in (("add", "num_added_files"), ("remove", "num_removed_files")):
        said = metrics.get(key) if isinstance(metrics, dict) else None
        if isinstance(said, int) and sum(kind in action for action in actions) < said:
            return False
    return True


def _data_files(table: Path) -> Iterator[tuple[Path, int, int]]:
    """Path, size and rows of each data file of the current version."""
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError

    try:
        actions = pl.DataFrame(DeltaTable(str(table)).get_add_actions(flatten=True))
    except (DeltaError, OSError, ValueError) as error:
        raise WorkspaceError(f"cannot read {table}: {error}. {_BACKUP}") from error
    counts = actions["num_records"] if "num_records" in actions.columns else pl.Series([0] * actions.height)
    for path, size, rows in zip(actions["path"], actions["size_bytes"], counts, strict=True):
        yield table / unquote(path), int(size), int(rows or 0)


def _is_whole_parquet(path: Path, size: int) -> bool:
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size != size or size < 2 * len(_MAGIC):
                return False
            file.seek(-len(_MAGIC), os.SEEK_END)
            return file.read() == _MAGIC
    except FileNotFoundError:
        return False


# ---- repairing ---------------------------------------------------------------------------------------------


def _repaired(workspace: Workspace, damage: Damage) -> list[str]:
    if damage.summaries:
        return _without_summaries(workspace, damage)
    return _without_entries(workspace, damage) if damage.entries else _without_files(workspace, damage)


def _without_summaries(workspace: Workspace, damage: Damage) -> list[str]:
    """Take torn summaries of the log away: its entries say the same."""
    for summary in damage.summaries:
        _set_aside(workspace, damage.table, summary)
        (summary.parent / "_last_checkpoint").unlink(missing_ok=True)
    return [f"{damage.what}: taken away; the log's entries are all there, and nothing is lost"]


def _without_entries(workspace: Workspace, damage: Damage) -> list[str]:
    """Take torn and later log entries away, and add again the rows of a ledger table whose files are whole."""
    table = Path(workspace.table_path(damage.table))
    since = min(entry.stat().st_mtime for entry in damage.entries)
    for entry in damage.entries:
        _set_aside(workspace, damage.table, entry)
    stale = table / "_delta_log" / "_last_checkpoint"
    if not any((table / "_delta_log").glob("*.checkpoint.parquet")):
        stale.unlink(missing_ok=True)
    said = f"{damage.what}: taken away, with {len(damage.entries) - 1} later ones"
    if damage.table not in LEDGER_TABLES or damage.table in _NOT_RESCUED:
        return [said]
    rescued = _rescued(workspace, damage.table, since)
    return [f"{said}; {rescued:,} rows of its data files were added again"]


def _rescued(workspace: Workspace, name: str, since: float) -> int:
    """Add the rows of whole files that no log entry names any more, each once."""
    table = Path(workspace.table_path(name))
    known = {path for path, _, _ in _data_files(table)} if _entries(table) or _summaries(table) else set()
    added = 0
    schema = TABLES[name]
    for path in sorted(table.rglob("*.parquet")):
        if "_delta_log" in path.parts or path in known or path.stat().st_mtime < since - _SECONDS_OF_A_COMMIT:
            continue
        if not _is_whole_parquet(path, path.stat().st_size):
            continue
        given = {
            key: unquote(value)
            for key, _, value in (p.partition("=") for p in path.parent.relative_to(table).parts)
            if value
        }
        frame = pl.read_parquet(path, hive_partitioning=False).with_columns(
            pl.lit(value).alias(key) for key, value in given.items() if key in schema.column_names()
        )
        # A file that an earlier version wrote lacks the columns that were added since; they can be null.
        missing = (name for name in schema.column_names() if name not in frame.columns)
        frame = frame.with_columns(pl.lit(None).alias(name) for name in missing)
        if not schema.is_valid(frame, cast=True):
            continue
        keys = schema.primary_key()
        fresh = schema.validate(frame, cast=True).unique(keys, keep="first", maintain_order=True)
        fresh = fresh.join(workspace.scan(name).select(keys).collect(), on=keys, how="anti", maintain_order="left")
        if fresh.height:
            partition = next((key for key in given if key in schema.column_names()), None)
            workspace.append(name, fresh, partition_by=partition)
            added += fresh.height
    return added


def _without_files(workspace: Workspace, damage: Damage) -> list[str]:
    """Take torn data files out of a table."""
    from deltalake import DeltaTable

    for path in damage.files:
        if path.exists():
            _set_aside(workspace, damage.table, path)
    DeltaTable(workspace.table_path(damage.table)).repair()
    if damage.table not in LEDGER_TABLES or damage.table in _NOT_RESCUED:
        return [f"{damage.what}: taken out of the table; the next run computes what is missing"]
    # A file that others were merged into: they lie there still, and a ledger's rows never change.
    found = _rescued(workspace, damage.table, 0.0)
    return [
        f"{damage.what}: taken out of the table; {found:,} rows of older files were added again, and the next run "
        f"computes what is missing"
    ]


def _set_aside(workspace: Workspace, table: str, path: Path) -> None:
    folder = Path(workspace.path("damaged", table))
    folder.mkdir(parents=True, exist_ok=True)
    target, number = folder / path.name, 0
    while target.exists():
        number += 1
        target = folder / f"{path.name}.{number}"
    path.rename(target)

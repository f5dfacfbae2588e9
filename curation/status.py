"""The state of a workspace at a glance: tables, datasets, runs, money, failures, journals, locks. Reads only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import polars as pl

from curation.errors import WorkspaceError
from curation.journal import PAID, entries_in, journal_folder
from curation.kept_replies import REPLIES, replies_among
from curation.ledger import FORGOTTEN
from curation.publish.history import MANIFEST, History
from curation.stored import read_file, stored_files
from curation.workspace import FORGETTING, LEDGER_TABLES, Workspace
from schemas import TABLES

__all__ = ["Status", "workspace_status"]

_PRODUCERS: Final = {
    "generations": "generator", "embeddings": "model", "rewards": "model", "requests": "model",
    "refusals": "detector", "policy_stats": "policy", "judgements": "judge",
}  # fmt: skip


class Status(NamedTuple):
    """What :func:`workspace_status` found; plain values, ready for JSON."""

    workspace: str
    bytes: int
    files: int
    tables: list[dict[str, Any]]
    """name, rows, version, files, bytes (old versions included); ``error`` where one cannot be read."""
    datasets: list[dict[str, Any]]
    """name, version, date, rows by split, bytes."""
    runs: list[dict[str, Any]]
    """The last ones, the newest first: run_id, started_at, seconds, status, package_version, computed, reused."""
    models: list[dict[str, Any]]
    """step, producer, rows, prompt_tokens, completion_tokens, cost; tokens and cost are those of generations."""
    failures: list[dict[str, Any]]
    """step, producer, rule, rows: what a run with --retry-failed would try again."""
    journals: list[dict[str, Any]]
    """step, file, answers, torn_end, bytes: paid answers that the next run takes into the ledger."""
    replies: list[dict[str, Any]]
    """step, file, replies, bytes: of judges whose batch broke off. A run with the same judge goes on from them."""
    locks: list[dict[str, Any]]
    """name, holder."""
    notes: list[str]


def workspace_status(workspace: Workspace, *, runs: int = 5) -> Status:
    """Look at a workspace; a table that cannot be read is said to be so, and the others are still shown.

    Args:
        runs: how many of the last runs are listed.
    """
    files = stored_files(workspace)
    looked_at = (_table(workspace, name, files) for name in TABLES)
    tables = [table for table in looked_at if table is not None]
    notes = [f"table {t['name']} cannot be read: {t['error']}" for t in tables if "error" in t]
    broken = {t["name"] for t in tables if "error" in t}
    if FORGETTING in files:
        notes.append("a `curation forget` was cut short: give that command again, and it goes on")
    if any(path.startswith("trial/") for path in files):
        notes.append("there is a trial beside it (trial/); it shares the ledger")
    if not tables:
        notes.append("nothing has been run here yet: `curation run RECIPE --workspace` this folder")
    return Status(
        workspace=workspace.url,
        bytes=sum(files.values()),
        files=len(files),
        tables=tables,
        datasets=_datasets(workspace, files, notes),
        runs=[] if "runs" in broken else _runs(workspace, runs),
        models=[m for name in _PRODUCERS if name not in broken for m in _models(workspace, name)],
        failures=[] if "failures" in broken else _failures(workspace),
        journals=_journals(workspace),
        replies=_replies(workspace),
        locks=workspace.locks_held(),
        notes=notes,
    )


def _table(workspace: Workspace, name: str, files: Mapping[str, int]) -> dict[str, Any] | None:
    folder = workspace.table_path(name)[len(workspace.url) + 1 :] + "/"
    sizes = {path: size for path, size in files.items() if path.startswith(folder)}
    if not sizes:
        return None
    found: dict[str, Any] = {"name": name, "ledger": name in LEDGER_TABLES}
    size = sum(sizes.values())
    try:
        version = workspace.version(name)
        if version is None:
            return found | {"bytes": size, "error": "its log is gone or unreadable; the data files are there"}
        rows = workspace.scan(name).select(pl.len()).collect().item()
        return found | {"rows": rows, "version": version, "files": workspace.file_count(name), "bytes": size}
    except (WorkspaceError, OSError, pl.exceptions.PolarsError) as error:
        return found | {"bytes": size, "error": " ".join(str(error).split())[:200]}


def _datasets(workspace: Workspace, files: Mapping[str, int], notes: list[str]) -> list[dict[str, Any]]:
    names = sorted({path.split("/")[1] for path in files if path.startswith("datasets/")})
    found = []
    for name in (n for n in names if not n.startswith(".")):
        prefix = f"datasets/{name}/"
        size = sum(count for path, count in files.items() if path.startswith(prefix))
        row: dict[str, Any] = {"name": name, "bytes": size}
        try:
            data = read_file(workspace, prefix + MANIFEST) if prefix + MANIFEST in files else None
            history = History.from_bytes(data, where=workspace.path(prefix + MANIFEST))
        except WorkspaceError as error:
            notes.append(str(error))
            history = None
        if history is not None:
            last = history.latest
            row |= {"version": last.name, "date": last.date, "rows": last.rows}
        found.append(row)
    return found


def _runs(workspace: Workspace, count: int) -> list[dict[str, Any]]:
    rows = workspace.scan("runs").sort("finished_at", descending=True).head(count).collect()
    found = []
    for row in rows.iter_rows(named=True):
        steps = json.loads(row["computed"])
        found.append({
            "run_id": row["run_id"],
            "started_at": row["started_at"].isoformat(timespec="seconds"),
            "seconds": round((row["finished_at"] - row["started_at"]).total_seconds(), 1),
            "status": row["status"],
            "package_version": row["package_version"],
            "computed": sum(step["computed"] for step in steps),
            "reused": sum(step["reused"] for step in steps),
            "failed": sum(step["failed"] for step in steps),
        })  # fmt: skip
    return found


def _models(workspace: Workspace, name: str) -> list[dict[str, Any]]:
    producer = _PRODUCERS[name]
    counted: dict[str, Any] = {"rows": pl.len()}
    if name == "generations":
        counted |= {c: pl.col(c).sum() for c in ("prompt_tokens", "completion_tokens", "cost")}
        # A sum over nothing but nulls is no money: nobody said what it cost.
        counted["cost"] = pl.when(pl.col("cost").count() > 0).then(pl.col("cost").sum())
    rows = workspace.scan(name).group_by(pl.col(producer).alias("producer")).agg(**counted).collect()
    return [{"step": name, **row} for row in rows.sort("producer").to_dicts()]


def _failures(workspace: Workspace) -> list[dict[str, Any]]:
    rows = workspace.scan("failures").filter(pl.col("rule") != FORGOTTEN)
    counted = rows.group_by("step", "producer", "rule").agg(rows=pl.len()).collect()
    return counted.sort("step", "producer", "rule").to_dicts()


def _journals(workspace: Workspace) -> list[dict[str, Any]]:
    folder = journal_folder(workspace)
    if not folder.is_dir():
        return []
    found = []
    for path in sorted(folder.glob("*.jsonl")):
        data = path.read_bytes()
        if data and not path.name.startswith((REPLIES, PAID)):
            # A line is a checksum and JSON: of an answer, or of a request that failed.
            answers = data[: data.rfind(b"\n") + 1].count(b' {"row":')
            torn = not data.endswith(b"\n")
            step = path.name.rpartition("-")[0]
            found.append(
                {"step": step, "file": str(path), "answers": answers, "torn_end": torn, "bytes": len(data)}
            )
    return found


def _replies(workspace: Workspace) -> list[dict[str, Any]]:
    found = []
    for path in sorted(journal_folder(workspace).glob(f"{REPLIES}*.jsonl")):
        data = path.read_bytes()
        if count := len(replies_among(entries_in(data).entries)):
            step = path.name.removeprefix(REPLIES).rpartition("-")[0]
            found.append({"step": step, "file": str(path), "replies": count, "bytes": len(data)})
    return found

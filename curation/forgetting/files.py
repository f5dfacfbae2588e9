"""Taking what is forgotten out of the files beside tables and datasets: journals, indexes, reports, sheets."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Sequence
from io import StringIO
from typing import Any, Final

import polars as pl

from curation.forgetting.matching import Needles
from curation.forgetting.selection import Selection
from curation.journal import PAID, Journal, journal_folder, journal_path
from curation.kept_replies import REPLIES, KeptReplies
from curation.ledger import LedgerKey
from curation.review.sheets import SHEET_COLUMNS
from curation.stages.reward_heads import local_copy
from curation.stored import read_file, remove_file, remove_folder, stored_files
from curation.workspace import Workspace

__all__ = ["cut_files", "cut_journals"]

_SHEET: Final = "review.csv"
_RECORDS: Final = "records.json"


def cut_journals(workspace: Workspace, selection: Selection, needles: Needles) -> int:
    """Take answers out of the journals: paid for, and not in the ledger yet. Returns how many.

    Lines that are torn or damaged go, too: no run can read them, and nobody can say what is in them.
    """
    folder = journal_folder(workspace)
    if not folder.is_dir():
        return 0
    replaced: dict[str, set[str]] = {}
    for request, generator, _ in selection.replaced:
        key = LedgerKey("generations", "request_id", "generator", generator)
        replaced.setdefault(journal_path(workspace, key).name, set()).add(request)
    count = 0
    for path in sorted(folder.glob("*.jsonl")):
        if path.name.startswith(PAID):
            continue
        if path.name.startswith(REPLIES):
            # Of a judge's replies nobody can say whom they quote: what a batch had so far is asked for again.
            replies = KeptReplies(path)
            count += replies.found
            replies.remove()
            continue
        asked = selection.requests | replaced.get(path.name, set())
        with Journal(path) as journal:
            found = journal.read()
            kept = [entry for entry in found.entries if not _named(entry, asked, selection, needles)]
            if len(kept) == len(found.entries) and not found.damaged:
                continue
            count += len(found.entries) - len(kept)
            temporary = path.with_name(f"{path.name}.new")
            temporary.unlink(missing_ok=True)
            with Journal(temporary) as fresh:
                for entry in kept:
                    fresh.append(entry)
                fresh.sync()
            temporary.replace(path)
    return count


def _named(entry: dict[str, Any], asked: set[str], selection: Selection, needles: Needles) -> bool:
    row = entry.get("row") or entry.get("failure") or {}
    ids = {row.get("request_id"), row.get("prompt_id"), row.get("row_id"), row.get("item_id")}
    if ids & (asked | selection.prompts):
        return True
    texts = {name: [value] for name, value in row.items() if isinstance(value, str)}
    return bool(needles.rows(pl.DataFrame(texts)).any())


def cut_files(places: Sequence[Workspace], selection: Selection, needles: Needles) -> list[str]:
    """Remove or rewrite every file that holds something. Returns what was done, a line each.

    Indexes, heads and reports are made again from what is left; review sheets keep their other rows.

    Args:
        places: the workspace, and its trial where there is one.
    """
    workspace, done = places[0], list[str]()
    for root in ("", "trial/"):
        indexes = stored_files(workspace, f"{root}indexes")
        for folder in sorted({path.rpartition("/")[0] for path in indexes}):
            if any(needles.in_bytes(read_file(workspace, p)) for p in indexes if p.startswith(folder + "/")):
                remove_folder(workspace, folder)
                done.append(f"index {folder} removed; the next run builds it again")
        if selection.trained and remove_folder(workspace, f"{root}models"):
            done.append(f"{root}models removed: trained on the pairs that were there; the next run trains again")
        report = f"{root}report.html"
        if report in stored_files(workspace) and needles.in_bytes(read_file(workspace, report)):
            remove_file(workspace, report)
            done.append(f"{report} removed; the next run or `curation report` writes it again")
    for place in places if selection.trained else ():
        shutil.rmtree(local_copy(place), ignore_errors=True)
    if remove_folder(workspace, "damaged"):
        done.append("damaged removed: what `curation repair` set aside is torn, and nobody can say what is in it")
    for path in stored_files(workspace):
        name = path.rpartition("/")[2]
        rewrite: Callable[[bytes, Needles], bytes | None] | None = {_SHEET: _sheet, _RECORDS: _records}.get(name)
        if rewrite is None or path.startswith(("tables/", "trial/tables/", "datasets/", "trial/datasets/")):
            continue
        data = rewrite(read_file(workspace, path), needles)
        if data is not None:
            workspace.write_bytes(data, *path.split("/"))
            done.append(f"{path}: rows removed")
    return done


def _sheet(data: bytes, needles: Needles) -> bytes | None:
    """A review sheet without the rows; None where there is nothing to remove."""
    try:
        lines = list(csv.DictReader(StringIO(data.decode("utf-8-sig"), newline="")))
    except (UnicodeDecodeError, csv.Error):
        return None
    if not lines:
        return None
    rows = pl.DataFrame({name: [str(line.get(name) or "") for line in lines] for name in lines[0] if name})
    if not set(SHEET_COLUMNS) <= set(rows.columns):
        return None
    gone = needles.rows(rows)
    return rows.filter(~gone).write_csv(quote_style="non_numeric").encode("utf-8-sig") if gone.any() else None


def _records(data: bytes, needles: Needles) -> bytes | None:
    """Argilla's records without those; None where there is nothing to remove."""
    try:
        records = json.loads(data)
    except ValueError:
        return None
    if not isinstance(records, list):
        return None
    kept = [one for one in records if not needles.in_bytes(json.dumps(one, ensure_ascii=False).encode())]
    return json.dumps(kept, ensure_ascii=False, indent=1).encode() if len(kept) < len(records) else None

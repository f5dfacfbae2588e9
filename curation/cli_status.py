"""The command ``curation status``. It parses and prints; looking is in ``curation.status``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console

from curation.cli_options import WorkspaceUrl

if TYPE_CHECKING:
    from curation.status import Status

__all__ = ["looking", "status_lines"]

looking = typer.Typer()
_console: Final = Console(highlight=False)
_PRODUCER: Final = 64
_COLUMNS: Final = f"{'rows':>11} {'version':>9} {'files':>7} {'size':>11}"


@looking.command()
def status(
    workspace: WorkspaceUrl,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object, for programs")] = False,
) -> None:
    """Show what a workspace holds: tables, datasets, runs, tokens and money, failures, locks, disk."""
    from curation.status import workspace_status
    from curation.workspace import Workspace

    found = workspace_status(Workspace(workspace, create=False))
    if as_json:
        _console.print(json.dumps(found._asdict(), ensure_ascii=False, indent=1), markup=False, soft_wrap=True)
        return
    for line in status_lines(found):
        _console.print(line, markup=False, soft_wrap=True)


def status_lines(found: Status) -> list[str]:
    """The status as lines to print."""
    lines = [f"{found.workspace}  {_bytes(found.bytes)} in {found.files:,} files"]
    lines += [f"  {note}" for note in found.notes]
    if found.locks:
        lines += ["", "in use by", *(f"  {lock['name']:<20} {lock['holder']}" for lock in found.locks)]
    parts = (
        ("results", _COLUMNS, [_table(t) for t in found.tables if not t["ledger"]]),
        ("ledger", _COLUMNS, [_table(t) for t in found.tables if t["ledger"]]),
        ("datasets", "published", [_dataset(one) for one in found.datasets]),
        ("runs", "the newest first", [_run(one) for one in found.runs]),
        ("models", "rows in the ledger; tokens and money of answers", [_model(one) for one in found.models]),
        ("failures", "waiting for a retry", [_failure(one) for one in found.failures]),
        ("journals", "answers that are paid for and not in the ledger yet", [_journal(j) for j in found.journals]),
        ("replies", "of judges whose batch broke off, paid for", [_reply(one) for one in found.replies]),
    )
    for title, heading, rows in parts:
        if rows:
            lines += ["", f"{title:<22} {heading}" if heading is _COLUMNS else f"{title}: {heading}"]
            lines += [f"  {row}" for row in rows]
    if found.failures:
        lines += ["", "  try them again: curation run RECIPE --workspace " + found.workspace + " --retry-failed"]
    if found.journals:
        lines += ["", "  the next run of the same recipe takes them into the ledger; nothing is asked for again"]
    if found.replies:
        lines += [
            "",
            "  a run with the same judge and options goes on from them; remove those of a judge you gave up",
        ]
    return lines


def _table(table: dict[str, Any]) -> str:
    if "error" in table:
        return f"{table['name']:<20} cannot be read                  {_bytes(table['bytes']):>11}"
    return (
        f"{table['name']:<20} {table['rows']:>11,} {table['version']:>9,} {table['files']:>7,} "
        f"{_bytes(table['bytes']):>11}"
    )


def _dataset(dataset: dict[str, Any]) -> str:
    if "version" not in dataset:
        return f"{dataset['name']:<20} its history cannot be read  {_bytes(dataset['bytes'])}"
    splits = ", ".join(f"{rows:,} {split}" for split, rows in dataset["rows"].items())
    total = sum(dataset["rows"].values())
    return f"{dataset['name']:<20} {total:>11,} rows ({splits}), {dataset['version']} of {dataset['date']}"


def _run(run: dict[str, Any]) -> str:
    return (
        f"{run['run_id']}  {run['started_at']}  {run['status']:<11} {run['seconds']:>9,.1f} s  "
        f"{run['computed']:,} computed, {run['reused']:,} reused, {run['failed']:,} failed"
    )


def _model(model: dict[str, Any]) -> str:
    line = f"{model['step']:<14} {model['rows']:>11,}  {_cut(model['producer'])}"
    if "completion_tokens" not in model:
        return line
    money = "no price" if model["cost"] is None else f"cost {model['cost']:.6g}"
    return f"{line}: {model['prompt_tokens']:,} tokens in, {model['completion_tokens']:,} out, {money}"


def _failure(failure: dict[str, Any]) -> str:
    return f"{failure['step']:<14} {failure['rows']:>11,}  {failure['rule']}, {_cut(failure['producer'])}"


def _journal(journal: dict[str, Any]) -> str:
    torn = " and a torn one, which will be asked for again" if journal["torn_end"] else ""
    return f"{journal['step']:<14} {journal['answers']:>11,} answers{torn}  {journal['file']}"


def _reply(replies: dict[str, Any]) -> str:
    return f"{replies['step']:<14} {replies['replies']:>11,} replies  {replies['file']}"


def _cut(text: str) -> str:
    return text if len(text) <= _PRODUCER else text[: _PRODUCER - 1] + "…"


def _bytes(count: int) -> str:
    for unit, power in (("GB", 9), ("MB", 6), ("kB", 3)):
        if count >= 10**power:
            return f"{count / 10**power:.1f} {unit}"
    return f"{count} B"

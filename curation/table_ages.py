"""Which tables of a workspace are older than the rest, as table ``runs`` tells. Reads nothing else."""

from __future__ import annotations

import json
from typing import Any, Final, NamedTuple

from pydantic import ValidationError

from curation.recipe import Recipe
from curation.workspace import LEDGER_TABLES, Workspace

__all__ = ["TableAges", "table_ages"]

_COLUMNS: Final = ("finished_at", "recipe_hash", "recipe", "versions_read", "versions_written")


class TableAges(NamedTuple):
    """What the runs say of each table."""

    left: dict[str, str]
    """Table to why it may not fit the others, in words; tables that are up to date are not in it."""

    def titled(self, table: str) -> str:
        """The table's name, and what is to be said of its age."""
        return f"{table}, {self.left[table]}" if table in self.left else table


def table_ages(workspace: Workspace) -> TableAges:
    """Look at the runs: a stage that the last recipe leaves out, or that no run came to since, keeps its table.

    A table is as old as the last run that wrote or read it. The ledger's are keyed by content and have no age.
    """
    from curation.stages import STAGES

    there = workspace.scan("runs")
    known = [name for name in _COLUMNS if name in there.collect_schema().names()]
    runs = there.select(known).sort("finished_at").collect().to_dicts()
    if not runs or len(known) < len(_COLUMNS):
        return TableAges({})
    recipe = _recipe(runs[-1])
    written, touched = _last_runs(runs)
    upstream: dict[str, set[str]] = {}
    left: dict[str, str] = {}
    for stage in STAGES:
        of = {name for need in stage.needs for name in upstream.get(need, ())}
        table = stage.table
        upstream[stage.name] = of | ({table} if table and table not in LEDGER_TABLES else set())
        if table is None or table in LEDGER_TABLES or table not in touched:
            continue
        at = touched[table]
        newer = sorted((written[name], name) for name in of if written.get(name, -1) > at)
        if recipe is not None and not stage.enabled(recipe):
            left[table] = "left from an earlier recipe: that of the last run does not make them"
        elif newer:
            left[table] = f"older than table {newer[-1][1]}: no run has made them since"
        elif runs[at]["recipe_hash"] != runs[-1]["recipe_hash"]:
            left[table] = "of an earlier recipe: no run has made them by the last one's"
    return TableAges(left)


def _recipe(run: dict[str, Any]) -> Recipe | None:
    """The recipe of a run; None where another version of the package wrote it in other words."""
    try:
        return Recipe.model_validate_json(run["recipe"])
    except ValidationError:
        return None


def _last_runs(runs: list[dict[str, Any]]) -> tuple[dict[str, int], dict[str, int]]:
    """The number of the last run that wrote each table, and of the last that wrote or read it."""
    written: dict[str, int] = {}
    touched: dict[str, int] = {}
    for number, run in enumerate(runs):
        wrote = dict.fromkeys(json.loads(run["versions_written"]), number)
        written |= wrote
        touched |= wrote | dict.fromkeys(json.loads(run["versions_read"]), number)
    return written, touched

"""Forgetting from the first step to the proof, in an order in which a killed process can be followed by another.

What is to go is written down first (``forgetting.json`` in the workspace), then table ``forgotten`` learns it, then
it is removed from tables, datasets and files, and the plan goes last. Each step may be done twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, fields
from typing import Final, NamedTuple

from curation.errors import WorkspaceError
from curation.forgetting.corpora import add_documents, read_corpora
from curation.forgetting.datasets import withdraw_rows
from curation.forgetting.files import cut_files, cut_journals
from curation.forgetting.matching import Needles
from curation.forgetting.replies import add_unused_replies
from curation.forgetting.scores import add_scores
from curation.forgetting.search import Searched, search_workspace
from curation.forgetting.selection import Selection, select
from curation.forgetting.tables import cut_tables, drop_old_versions, remember
from curation.forgetting.texts import add_texts
from curation.forgetting.versions import Versions
from curation.stored import remove_file, remove_folder, stored_files
from curation.workspace import FORGETTING, LEDGER_TABLES, Workspace

__all__ = ["Forgetting", "Removed", "forget", "what_would_go"]

_SETS: Final = tuple(one.name for one in fields(Selection) if one.default_factory is set)


class Removed(NamedTuple):
    """What goes, or went."""

    rows: dict[str, int]
    """By table."""
    datasets: dict[str, tuple[int, int]]
    """Rows that go, and rows that there were, by dataset."""
    others: list[str]
    """Lines on other files."""
    notes: list[str]
    """What stays, and why."""
    searched: Searched | None
    """None where nothing was removed."""


class Forgetting(NamedTuple):
    """A plan: what goes and why."""

    selection: Selection
    reason: str | None


def what_would_go(workspace: Workspace, given: Sequence[str]) -> tuple[Forgetting, Removed]:
    """The plan for what was named, and what it would remove; nothing is touched.

    A plan that another process began and did not finish comes first, whatever is named.

    Raises:
        InputError: when nothing, or more than one thing, has one of the names.
    """
    plan = _read_plan(workspace)
    if plan is None:
        versions = Versions(_places(workspace))
        selection = select(versions, given)
        if not selection.is_empty:
            add_unused_replies(versions, selection)
            add_texts(versions, selection)
            corpora = read_corpora(versions)
            add_documents(selection, corpora)
            add_scores(versions, selection, corpora)
        plan = Forgetting(selection, None)
    selection, needles = plan.selection, _needles(plan.selection)
    rows = {} if selection.is_empty else cut_tables(_places(workspace), selection, needles, dry_run=True)
    datasets = {name: withdraw_rows(w, dataset, needles, dry_run=True) for name, w, dataset in _datasets(workspace)}
    return plan, Removed(rows, {n: d for n, d in datasets.items() if d[0]}, [], selection.notes, None)


def forget(workspace: Workspace, plan: Forgetting, *, reason: str | None = None) -> Removed:
    """Carry a plan out, and search for what may be left.

    Raises:
        WorkspaceError: when a run or a sender holds the workspace, or something cannot be written.
    """
    with _alone(workspace):
        selection, needles = plan.selection, _needles(plan.selection)
        _write_plan(workspace, Forgetting(selection, plan.reason or reason))
        remember(workspace, selection, reason=plan.reason or reason)
        journals = cut_journals(workspace, selection, needles)
        places = _places(workspace)
        rows = cut_tables(places, selection, needles)
        drop_old_versions(places)
        datasets = {n: withdraw_rows(w, dataset, needles) for n, w, dataset in _datasets(workspace)}
        _remove_half_written(workspace)
        others = cut_files(places, selection, needles)
        if journals:
            others.insert(0, f"journals: {journals:,} answers removed")
        searched = search_workspace(workspace, needles, but=(FORGETTING,))
        remove_file(workspace, FORGETTING)
    return Removed(rows, {n: d for n, d in datasets.items() if d[0]}, others, selection.notes, searched)


def _needles(selection: Selection) -> Needles:
    return Needles(selection.identifiers, selection.texts, common=selection.common)


def _places(workspace: Workspace) -> list[Workspace]:
    """The workspace, and its trial where there is one."""
    has_trial = bool(stored_files(workspace, "trial"))
    options = workspace.storage_options
    return [workspace, *([Workspace(workspace.url, storage_options=options, trial=True)] if has_trial else [])]


def _datasets(workspace: Workspace) -> list[tuple[str, Workspace, str]]:
    found = []
    for place in _places(workspace):
        root = place.dataset_path("")[len(place.url) + 1 :]
        names = {path[len(root) :].split("/", 1)[0] for path in stored_files(place, root.rstrip("/"))}
        found += [(f"{root}{name}", place, name) for name in sorted(names) if not name.startswith(".")]
    return found


def _remove_half_written(workspace: Workspace) -> None:
    """What a killed publication left beside the datasets; the next one would clear it."""
    for place in _places(workspace):
        root = place.dataset_path("")[len(place.url) + 1 :]
        for name in {path[len(root) :].split("/", 1)[0] for path in stored_files(place, root.rstrip("/"))}:
            if name.startswith("."):
                remove_folder(workspace, f"{root}{name}")


@contextmanager
def _alone(workspace: Workspace) -> Iterator[None]:
    """Hold the workspace and every table of the ledger: a sender may outlive its run."""
    with ExitStack() as locks:
        for name in ("workspace", *sorted(LEDGER_TABLES)):
            locks.enter_context(workspace.lock(name))
        yield


def _write_plan(workspace: Workspace, plan: Forgetting) -> None:
    plain = {
        name: sorted(value) if isinstance(value, set) else value for name, value in asdict(plan.selection).items()
    }
    workspace.write_bytes(json.dumps({"reason": plan.reason, **plain}).encode(), FORGETTING)


def _read_plan(workspace: Workspace) -> Forgetting | None:
    text = workspace.read_text(FORGETTING)
    if text is None:
        return None
    try:
        found = json.loads(text)
        values = {f.name: found[f.name] for f in fields(Selection)}
    except (ValueError, KeyError, TypeError) as error:
        raise WorkspaceError(
            f"{workspace.path(FORGETTING)} is damaged: remove it and give the command again"
        ) from error
    values |= {name: set(values[name]) for name in _SETS}
    selection = Selection(**values)
    selection.notes = [*selection.notes, "this goes on with what another process began"]
    return Forgetting(selection, found["reason"])

"""The graph: every stage in order, and a whole run of them.

What a stage does is in ``curation.stages``; when it is done is for the caller: the command line runs all,
Dagster one asset at a time. Both come through :func:`run_stage`.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Final, NamedTuple

import polars as pl

from curation.damage import check_whole
from curation.engine_ray import RayEngine
from curation.errors import CurationError, GateError, InterruptedRun, RecipeError, WorkspaceError
from curation.progress import ProgressSink, SilentProgress
from curation.recipe import Recipe, load_recipe
from curation.run_log import log_of_run, stage_logged
from curation.stages import STAGES
from curation.stages.context import Context, Stage, StageResult
from curation.stages.spending import recorded
from curation.tables import validated
from curation.text import content_hash
from curation.workspace import FORGETTING, Workspace

__all__ = [
    "ENGINES",
    "Recording",
    "RunResult",
    "check_engine",
    "opened_engine",
    "recorded_run",
    "run",
    "run_stage",
    "stage_named",
    "workspace_of",
]

ENGINES: Final = ("local", "ray")

_BY_NAME: Final = {stage.name: stage for stage in STAGES}


class RunResult(NamedTuple):
    """What a run did.

    Attributes:
        workspace: where everything is.
        computed: rows that a model was called for.
        reused: rows that the ledger already had.
    """

    run_id: str
    workspace: Workspace
    stages: list[StageResult]
    computed: int
    reused: int
    changed: bool
    """whether any table's content changed."""
    seconds: float


def stage_named(name: str) -> Stage:
    """The stage with a name."""
    return _BY_NAME[name]


def run_stage(context: Context, stage: Stage) -> StageResult | None:
    """Run one stage, or, where the recipe leaves it out, forget its rejects and return None."""
    if not stage.enabled(context.recipe):
        context.clear(stage.name)
        return None
    with stage_logged(context, stage.name) as logged:
        result = stage.run(context)
        logged.append(result)
    return result


def run(
    recipe: Recipe | str | os.PathLike[str],
    *,
    workspace: str | os.PathLike[str] | Workspace | None = None,
    limit: int | None = None,
    engine: str | None = None,
    retry_failed: bool = False,
    progress: ProgressSink | None = None,
    on_stage: Callable[[StageResult], None] = lambda result: None,
    on_end: Callable[[RunResult], None] = lambda result: None,
) -> RunResult:
    """Run a recipe from its sources to its datasets.

    Args:
        recipe: a recipe, or the path of one.
        workspace: where to keep everything; the recipe's own by default, else ``workspaces/<name>``.
        limit: a trial: read so many rows of each source, and keep tables and datasets of the trial apart
            under ``trial/``. The ledger is shared, so nothing computed in a trial is computed again.
        engine: ``local`` (models run in this process) or ``ray`` (on a cluster); the recipe's own by default.
        retry_failed: try rows again that a model failed on before.
        on_stage: called after each stage.
        on_end: called with the result, also where a gate refused a dataset.

    Raises:
        InputError: a source or the recipe is wrong.
        GateError: a gate refused a dataset; the other datasets are published.
        WorkspaceError, ModelError: as they say.
        InterruptedRun: after Ctrl-C; what was computed is kept.
    """
    check_engine(engine)
    if not isinstance(recipe, Recipe):
        recipe = load_recipe(recipe)
    if engine is not None:
        recipe = recipe.model_copy(update={"engine": engine})
    started = time.monotonic()
    place = workspace_of(recipe, workspace, trial=limit is not None)
    context = Context(place, recipe, progress or SilentProgress(), limit, retry_failed)
    results: list[StageResult] = []
    with opened_engine(context), recorded_run(context) as recording:
        refused = _run_all(context, results, on_stage)
        if refused:
            recording.status = "failed"
    computed = sum(r.computed for r in context.reports)
    reused = sum(r.reused for r in context.reports)
    seconds = time.monotonic() - started
    result = RunResult(recording.run_id, place, results, computed, reused, recording.changed, seconds)
    on_end(result)
    if refused:
        raise _refusal(refused)
    return result


def check_engine(engine: str | None) -> None:
    """Whether there is such an engine; None is the recipe's own.

    Raises:
        RecipeError: when there is not.
    """
    if engine not in (None, *ENGINES):
        raise RecipeError(f"engine {engine!r} is not there: expected one of {', '.join(ENGINES)}")


@contextmanager
def opened_engine(context: Context) -> Iterator[None]:
    """Where the recipe wants its models to run. A cluster is connected to on first use, and left at the end."""
    if context.recipe.engine == "local":
        yield
        return
    recipe = context.recipe
    with RayEngine(recipe.ray, batch_timeout_seconds=recipe.batch_timeout_seconds) as context.engine:
        yield


@dataclass
class Recording:
    """A run under way: how it ended, and whether any table's content changed, once it is over."""

    run_id: str
    status: str = "done"
    changed: bool = False


@contextmanager
def recorded_run(context: Context) -> Iterator[Recording]:
    """Hold the workspace for a run, and add the run to table ``runs`` when it is over, however it ends.

    Raises:
        WorkspaceError: when another run holds the workspace.
    """
    started_at = datetime.now(UTC)
    recording = Recording(content_hash("run", started_at.isoformat(), str(os.getpid()))[:12])
    context.run_id = recording.run_id
    with context.workspace.lock():
        check_whole(context.workspace)
        _check_nothing_half_forgotten(context.workspace)
        context.workspace.take_versions()
        try:
            with log_of_run(context.workspace, recording.run_id, recipe=context.recipe.name):
                yield recording
        except BaseException as error:
            stopped = isinstance(error, InterruptedRun | KeyboardInterrupt)
            recording.status = "interrupted" if stopped else "failed"
            raise
        finally:
            recording.changed = _record(context, recording.run_id, started_at, recording.status)


def _check_nothing_half_forgotten(workspace: Workspace) -> None:
    if workspace.read_text(FORGETTING) is not None:
        raise WorkspaceError(
            f"a `curation forget` of {workspace.url} was cut short: give that command again, and it goes on"
        )


def _run_all(
    context: Context, results: list[StageResult], on_stage: Callable[[StageResult], None]
) -> dict[str, GateError]:
    """Every stage in order. A gate stops one dataset; all else comes out all the same. Stages that were stopped."""
    refused: dict[str, GateError] = {}
    for stage in STAGES:
        try:
            result = run_stage(context, stage)
        except GateError as error:
            refused[stage.name] = error
            continue
        if result is not None:
            results.append(result)
            on_stage(result)
    return refused


def _refusal(refused: Mapping[str, GateError]) -> GateError:
    """The first refusal, and the names of the datasets that were refused besides."""
    first, *others = refused
    names = ", ".join(name.removeprefix("publish_") for name in others)
    return GateError(f"{refused[first]}. Not published either: {names}") if others else refused[first]


def workspace_of(
    recipe: Recipe, given: str | os.PathLike[str] | Workspace | None, *, trial: bool, create: bool = True
) -> Workspace:
    """Where a run keeps everything; see :func:`run`."""
    if isinstance(given, Workspace):
        return given
    url = given or recipe.workspace or os.path.join("workspaces", recipe.name)
    return Workspace(url, trial=trial, create=create)


def _record(context: Context, run_id: str, started_at: datetime, status: str) -> bool:
    """Add a row to ``runs``, and say whether any table's content changed.

    A run that changed nothing adds none, unless it is the first that was done with its recipe.
    """
    read, written = context.workspace.take_versions()
    if status == "done" and not written and _is_recorded(context):
        return False
    row = pl.DataFrame(
        {
            "run_id": run_id,
            "started_at": started_at,
            "finished_at": datetime.now(UTC),
            "status": status,
            "package_version": version("preference-curation"),
            "recipe_hash": context.recipe.content_hash,
            "recipe": context.recipe.model_dump_json(),
            "versions_read": json.dumps(read, sort_keys=True),
            "versions_written": json.dumps(written, sort_keys=True),
            "computed": json.dumps([r._asdict() for r in context.reports]),
        }
    )
    try:
        context.workspace.append("runs", validated("runs", row, stage="runs").kept)
        recorded(context)
    except CurationError:
        # The error that ended the run says more than the one that kept it from being recorded.
        if status == "done":
            raise
    return status != "done" or bool(written)


def _is_recorded(context: Context) -> bool:
    """Whether the last run was done with this recipe, by this version of the package."""
    last = context.workspace.read("runs").sort("finished_at").tail(1)
    same = {
        "status": "done",
        "recipe_hash": context.recipe.content_hash,
        "package_version": version("preference-curation"),
    }
    return last.height > 0 and all(last[name][0] == value for name, value in same.items())

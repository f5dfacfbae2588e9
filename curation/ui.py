"""Starting the Dagster UI on a workspace. Dagster itself runs in its own process and is not imported."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import Final, NoReturn

from curation.demo import quickstart_recipe
from curation.errors import InputError
from curation.recipe import load_recipe
from curation.workspace import Workspace

__all__ = ["dagster_environment", "start_ui"]

_INSTANCE: Final = """\
# One run at a time: the tables of a workspace are written by one run.
concurrency:
  runs:
    max_concurrent_runs: 1
  pools:
    granularity: op
    default_limit: 1
# Without this, a run that was killed would keep its place in the pool "gpu".
run_monitoring:
  enabled: true
  free_slots_after_run_end_seconds: 60
freshness:
  enabled: true
telemetry:
  enabled: false
nux:
  enabled: false
"""
_HEADER: Final = "# The recipe of the workspace's last run. To edit it, copy it and give the copy with --recipe.\n"


def dagster_environment(*, workspace: str | None, recipe: Path | None) -> dict[str, str]:
    """The environment for Dagster: which workspace and recipe, and a DAGSTER_HOME beside the workspace.

    Without a recipe it is that of the workspace's last run; with neither it is the quickstart.

    Raises:
        InputError: when the recipe is wrong, when there is none and the workspace holds no run, or when the
            workspace is not local and DAGSTER_HOME is not set.
        WorkspaceError: when the workspace cannot be read.
    """
    if workspace is None:
        recipe = recipe or quickstart_recipe()
    if recipe is not None:
        loaded = load_recipe(recipe)
        workspace = workspace or loaded.workspace or f"workspaces/{loaded.name}"
    assert workspace is not None
    try:
        place = Workspace(workspace, create=recipe is not None)
    except InputError as error:
        hint = "" if recipe is not None else "; a new one needs its recipe (--recipe)"
        raise InputError(f"{error}{hint}") from error
    home = os.environ.get("DAGSTER_HOME") or (place.path("dagster") if place.is_local else None)
    if not home:
        raise InputError(f"workspace {place.url} is not on this disk: set DAGSTER_HOME to a folder that lasts")
    folder = Path(home).expanduser().resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "dagster.yaml").exists():
            (folder / "dagster.yaml").write_text(_INSTANCE)
        recipe = recipe or _last_recipe(place, folder)
    except OSError as error:
        raise InputError(
            f"{folder}: {error.strerror}: Dagster's history is kept there; set DAGSTER_HOME to a folder in which "
            f"you may write"
        ) from error
    return dict(os.environ) | {
        "DAGSTER_HOME": str(folder),
        "CURATION_WORKSPACE": place.url,
        "CURATION_RECIPE": str(recipe.resolve()),
    }


def _last_recipe(workspace: Workspace, folder: Path) -> Path:
    """The recipe of the last run, as a file: its paths are absolute, and JSON is YAML."""
    runs = workspace.read("runs").sort("finished_at")
    if runs.is_empty():
        raise InputError(f"{workspace.url} holds no run, so it has no recipe yet: name one with --recipe")
    file = folder / "last-recipe.yaml"
    file.write_text(_HEADER + runs["recipe"][-1] + "\n")
    return file


def start_ui(*, workspace: str | None, recipe: Path | None, host: str, port: int) -> NoReturn:
    """Become ``dagster dev``, so that a signal to this process reaches it.

    Raises:
        InputError: as in :func:`dagster_environment`, and when the address is taken.
    """
    environment = dagster_environment(workspace=workspace, recipe=recipe)
    _must_be_free(host, port)
    lines = (
        f"Dagster on http://{host}:{port} (stop it with Ctrl-C)",
        f"workspace  {environment['CURATION_WORKSPACE']}",
        f"recipe     {environment['CURATION_RECIPE']}",
        f"history    {environment['DAGSTER_HOME']}",
    )
    print(*lines, sep="\n", flush=True)  # noqa: T201
    # The warning is about another program, `dg`, which is not needed here.
    quiet = ["-W", "ignore:Function `dev_command` is superseded"]
    command = [*quiet, "-m", "dagster", "dev", "-m", "assets.definitions", "-h", host, "-p", str(port)]
    os.execve(sys.executable, [sys.executable, *command], environment)


def _must_be_free(host: str, port: int) -> None:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(
            f"cannot listen on {host}:{port}: {reason}; choose another with --port or --host"
        ) from error

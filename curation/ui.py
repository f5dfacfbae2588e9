"""Starting the Dagster UI on a workspace. Dagster itself runs in its own process and is not imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from curation.demo import DEFAULT_WORKSPACE, quickstart_recipe
from curation.errors import InputError
from curation.recipe import load_recipe

__all__ = ["dagster_environment", "start_ui"]

_INSTANCE: Final = """\
# One run at a time: the assets of a workspace are written by one run.
run_queue:
  max_concurrent_runs: 1
concurrency:
  pools:
    granularity: op
    default_limit: 1
run_monitoring:
  enabled: true
  free_slots_after_run_end_seconds: 60
telemetry:
  enabled: false
"""


def dagster_environment(*, workspace: str | None, recipe: Path | None) -> dict[str, str]:
    """The environment for Dagster: which workspace and recipe, and a DAGSTER_HOME beside the workspace.

    Raises:
        InputError: when the recipe is wrong, or the workspace is not local and DAGSTER_HOME is not set.
    """
    recipe_file = (recipe or quickstart_recipe()).resolve()
    loaded = load_recipe(recipe_file)
    place = workspace or loaded.workspace or (DEFAULT_WORKSPACE if recipe is None else f"workspaces/{loaded.name}")
    environment = dict(os.environ)
    if "://" in place:
        home = environment.get("DAGSTER_HOME")
        if not home:
            raise InputError(f"workspace {place} is not on this disk: set DAGSTER_HOME to a folder that lasts")
    else:
        place = str(Path(place).expanduser().resolve())
        home = environment.get("DAGSTER_HOME") or str(Path(place) / "dagster")
    instance = Path(home).resolve() / "dagster.yaml"
    instance.parent.mkdir(parents=True, exist_ok=True)
    if not instance.exists():
        instance.write_text(_INSTANCE)
    return environment | {
        "DAGSTER_HOME": str(instance.parent),
        "CURATION_WORKSPACE": place,
        "CURATION_RECIPE": str(recipe_file),
    }


def start_ui(*, workspace: str | None, recipe: Path | None, host: str, port: int) -> int:
    """Run ``dagster dev`` until it is stopped; returns its exit status."""
    environment = dagster_environment(workspace=workspace, recipe=recipe)
    print(f"Dagster on http://{host}:{port}  (workspace {environment['CURATION_WORKSPACE']})", flush=True)  # noqa: T201
    command = ["-m", "dagster", "dev", "-m", "assets.definitions", "-h", host, "-p", str(port)]
    return subprocess.call([sys.executable, *command], env=environment)

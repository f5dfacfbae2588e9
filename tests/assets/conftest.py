"""A small recipe, materialized by Dagster in this process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import dagster as dg
import pytest
import yaml

from assets.definitions import build_defs
from assets.resources import resources
from tests.stages.conftest import sentences

PLAIN: dict[str, Any] = {
    "name": "plain",
    "sources": [{"path": "pairs.jsonl"}],
    "encoder": None,
    "rewards": [],
    "refusals": None,
    "policy": None,
    "publish": {"datasets": ["preference", "preference_unpaired"], "license": "apache-2.0"},
}
"""Calls no model."""


class Location(NamedTuple):
    """A recipe, its workspace, and the Dagster instance that remembers its runs."""

    folder: Path
    instance: dg.DagsterInstance

    @property
    def workspace(self) -> Path:
        return self.folder / "workspace"

    @property
    def recipe(self) -> Path:
        return self.folder / "recipe.yaml"

    def write(self, recipe: dict[str, Any], *, rows: int = 12) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps(row) + "\n" for row in sentences(rows)]
        (self.folder / "pairs.jsonl").write_text("".join(lines))
        self.recipe.write_text(yaml.safe_dump(recipe))

    def definitions(self) -> dg.Definitions:
        return build_defs(resources(workspace=str(self.workspace), recipe=str(self.recipe)))

    def materialize(self, **changes: dict[str, Any]) -> dg.ExecuteInProcessResult:
        """Everything, as the job does it; ``changes`` is what a person types into the launchpad."""
        job = self.definitions().resolve_job_def("everything")
        config = {"resources": {"changes": {"config": changes}}} if changes else {}
        return job.execute_in_process(run_config=config, instance=self.instance, raise_on_error=False)

    def published(self) -> dict[str, bytes]:
        """Path to content of every published file."""
        folder = self.workspace / "datasets"
        return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def metadata(result: dg.ExecuteInProcessResult, asset: str) -> dict[str, Any]:
    """The metadata that a run put on an asset."""
    (event,) = result.asset_materializations_for_node(asset)
    return {name: value.value for name, value in event.metadata.items()}


@pytest.fixture
def location(tmp_path: Path) -> Iterator[Location]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield Location(tmp_path / "place", instance)

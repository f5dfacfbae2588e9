"""Resources: the workspace and the recipe that every asset of a run works on."""

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import dagster as dg
from pydantic import Field, PrivateAttr

from curation.errors import CurationError
from curation.pipeline import Recording, opened_engine, recorded_run
from curation.progress import LogProgress
from curation.recipe import load_recipe
from curation.stages.context import Context
from curation.workspace import Workspace

__all__ = ["CurationResource", "RecipeChanges", "from_environment", "resources"]


class RecipeChanges(dg.ConfigurableResource):
    """Other values than the recipe's, for one run: type them into the launchpad.

    Each section holds keys of the recipe's section of that name, for instance ``gates: {max_tie_rate: 0.01}``.
    """

    gates: dict = Field(default={}, description="thresholds of the gates, e.g. {max_tie_rate: 0.01}")
    selection: dict = Field(default={}, description="which pairs are kept, e.g. {drop_refusal_pairs: true}")
    pairs: dict = Field(default={}, description="how pairs are built, e.g. {min_margin: 0.2}")
    negatives: dict = Field(default={}, description="hard negatives, e.g. {relative_margin: 0.1}")
    splits: dict = Field(default={}, description="shares of the prompts, e.g. {train: 0.8, test: 0.2}")
    publish: dict = Field(default={}, description="what is published, e.g. {rows_per_shard: 50000}")

    def given(self) -> dict[str, Any]:
        """The sections in which anything is changed."""
        return {name: value for name, value in self.model_dump().items() if value}


class CurationResource(dg.ConfigurableResource):
    """A workspace and the recipe that fills it. The workspace is held from a run's first asset to its end."""

    workspace: str = Field(description="a folder or URL")
    recipe: str = Field(description="the path of a YAML file")
    changes: dg.ResourceDependency[RecipeChanges]

    _context: Context | None = PrivateAttr(default=None)
    _recording: Recording | None = PrivateAttr(default=None)
    _failed: set[str] = PrivateAttr(default_factory=set)
    _until_the_end: ExitStack = PrivateAttr(default_factory=ExitStack)

    def open_workspace(self) -> Workspace:
        """The workspace, for reading."""
        return Workspace(self.workspace)

    @contextmanager
    def stage(self, log: dg.DagsterLogManager, name: str) -> Iterator[Context]:
        """What a stage needs; progress goes to the run's log. An error of ours becomes a Failure of one line.

        A run has failed when a stage did and was not tried again with success.

        Raises:
            Failure: with the error's message; trying again would not help.
        """
        try:
            yield self._opened(log)
        except BaseException as error:
            self._failed.add(name)
            if isinstance(error, CurationError):
                raise dg.Failure(description=str(error), allow_retries=False) from None
            raise
        else:
            self._failed.discard(name)
        finally:
            if self._recording is not None:
                self._recording.status = "failed" if self._failed else "done"

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """Record the run, and let go of the workspace."""
        self._until_the_end.close()

    def _opened(self, log: dg.DagsterLogManager) -> Context:
        if self._context is None:
            recipe = load_recipe(self.recipe, changes=self.changes.given())
            opened = Context(self.open_workspace(), recipe)
            self._until_the_end.enter_context(opened_engine(opened))
            self._recording = self._until_the_end.enter_context(recorded_run(opened))
            self._context = opened
        self._context.progress = LogProgress(log.info)
        return self._context


def resources(*, workspace: str, recipe: str) -> Mapping[str, Any]:
    """All resources, for a workspace and a recipe."""
    changes = RecipeChanges.configure_at_launch()
    return {"changes": changes, "curation": CurationResource(workspace=workspace, recipe=recipe, changes=changes)}


def from_environment() -> Mapping[str, Any]:
    """The resources that ``curation ui`` sets up through CURATION_WORKSPACE and CURATION_RECIPE."""
    from curation.demo import DEFAULT_WORKSPACE, quickstart_recipe

    return resources(
        workspace=os.environ.get("CURATION_WORKSPACE", DEFAULT_WORKSPACE),
        recipe=os.environ.get("CURATION_RECIPE") or str(quickstart_recipe()),
    )

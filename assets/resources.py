"""Resources: the workspace and the recipe that every asset works on. Nothing is read here."""

import os

import dagster as dg

from curation.progress import LogProgress
from curation.recipe import Recipe, load_recipe
from curation.stages.context import Context
from curation.workspace import Workspace

__all__ = ["CurationResource", "from_environment"]


class CurationResource(dg.ConfigurableResource):
    """A workspace and the recipe that fills it."""

    workspace: str
    recipe: str

    def load_recipe(self) -> Recipe:
        return load_recipe(self.recipe)

    def open_workspace(self) -> Workspace:
        return Workspace(self.workspace)

    def context(self, log: dg.DagsterLogManager) -> Context:
        """What a stage needs; progress goes to the run's log."""
        return Context(self.open_workspace(), self.load_recipe(), LogProgress(log.info))


def from_environment() -> CurationResource:
    """The resource that ``curation ui`` sets up through CURATION_WORKSPACE and CURATION_RECIPE."""
    from curation.demo import DEFAULT_WORKSPACE, quickstart_recipe

    return CurationResource(
        workspace=os.environ.get("CURATION_WORKSPACE", DEFAULT_WORKSPACE),
        recipe=os.environ.get("CURATION_RECIPE", str(quickstart_recipe())),
    )

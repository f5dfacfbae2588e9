"""Stage ``push``: bring the repositories and folders that the recipe names up to date. Off unless it names any."""

from __future__ import annotations

from collections.abc import Mapping

from curation.errors import GateError, InputError, closest
from curation.publish.gates import raise_if_blocked
from curation.publish.hub import HubOptions, push_to_hub
from curation.publish.published_folder import CARD, PublishedFolder
from curation.publish.pushing import PushResult
from curation.publish.url import push_to_url
from curation.recipe import DATASETS
from curation.stages.context import Context, Stage, StageResult
from curation.stages.facts import gate_results
from curation.stages.forms import table_of
from curation.workspace import Workspace

__all__ = ["STAGE", "push_dataset"]


def run(context: Context) -> StageResult:
    """Push every dataset that the recipe has a place for; one that a gate refuses stays as it is there."""
    hub = context.recipe.publish.hub
    options = HubOptions(private=hub.private, pull_request=hub.pull_request)
    facts: dict[str, str] = {}
    pushed = 0
    for dataset, destination in hub.repos.items():
        try:
            result = push_dataset(context.workspace, dataset, destination, options=options)
        except GateError:
            facts[dataset] = "not pushed: a gate refuses it"
            continue
        pushed += result.outcome != "unchanged"
        facts[dataset] = ", ".join((result.outcome, result.version, result.destination, *result.notes))
    return StageResult("push", pushed, 0, facts)


def push_dataset(
    workspace: Workspace,
    dataset: str,
    destination: str,
    *,
    options: HubOptions = HubOptions(),  # noqa: B008 - immutable
    storage_options: Mapping[str, str] | None = None,
) -> PushResult:
    """Push the published folder of a dataset.

    Args:
        workspace: that holds it.
        dataset: its name.
        destination: ``owner/name`` on the Hub, or the URL of a folder.
        options: how; a folder has no tags, visibility or pull requests.
        storage_options: for a folder.

    Raises:
        InputError: a name or option is wrong, or the dataset has not been published.
        GateError: a gate refuses the dataset.
        PushError: the destination refuses it or cannot be reached.
    """
    if dataset not in DATASETS:
        raise InputError(
            f"no dataset is called {dataset!r}{closest(dataset, DATASETS)}; there are {', '.join(DATASETS)}"
        )
    published = PublishedFolder(
        workspace.dataset_path(dataset), filesystem=None if workspace.is_local else workspace.filesystem()
    )
    if CARD not in published.paths:
        there = [name for name in DATASETS if _published(workspace, name)]
        raise InputError(
            f"{workspace.url} has not published {dataset!r}, but {', '.join(there) or 'nothing'}: name it in the "
            f"recipe's publish.datasets, and run the recipe"
        )
    raise_if_blocked(gate_results(workspace, table_of(dataset)))
    if "://" not in destination or destination.startswith(("https://", "http://")):
        return push_to_hub(published, destination, options=options)
    for given, name in ((options.pull_request, "--pr"), (options.tag is not None, "--tag")):
        if given:
            raise InputError(f"{name} is for the Hub; {destination} is a folder: leave it out")
    return push_to_url(
        published,
        destination,
        dry_run=options.dry_run,
        force=options.force,
        storage_options=dict(storage_options or {}),
    )


def _published(workspace: Workspace, dataset: str) -> bool:
    folder = workspace.dataset_path(dataset)
    return bool(workspace.filesystem().exists(f"{folder}/{CARD}"))


STAGE = Stage(
    name="push",
    group="publication",
    description="Datasets in the repositories and folders that publish.hub.repos names; nowhere by default.",
    needs=tuple(f"publish_{dataset}" for dataset in DATASETS),
    run=run,
    table=None,
    enabled=lambda recipe: bool(recipe.publish.hub.repos),
)

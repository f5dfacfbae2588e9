"""The command ``curation push``. It parses and prints; pushing is in ``curation.stages.push``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console

from curation.cli_options import WorkspaceUrl

if TYPE_CHECKING:
    from curation.publish.pushing import PushResult

__all__ = ["push_lines", "pushing"]

pushing = typer.Typer()
_console: Final = Console(highlight=False)
_SHOWN: Final = 20


@pushing.command()
def push(
    workspace: WorkspaceUrl,
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="such as preference; one that was published")],
    destination: Annotated[
        str, typer.Argument(metavar="REPO_ID", help="owner/name on the Hub, or a folder's URL: s3://…, file://…")
    ],
    private: Annotated[
        bool,
        typer.Option("--private/--public", help="of a new repository; a public one needs --public"),
    ] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only show what would change")] = False,
    pr: Annotated[bool, typer.Option("--pr", help="open a pull request instead of writing to main")] = False,
    tag: Annotated[str | None, typer.Option(help="of the version; its name (v1, v2, …) by default")] = None,
    force: Annotated[
        bool, typer.Option("--force", help="replace a history that this workspace has not written")
    ] = False,
) -> None:
    """Push a published dataset to the Hub or a folder: one commit, and none when nothing changed."""
    from curation.publish.hub import HubOptions
    from curation.stages.push import push_dataset
    from curation.workspace import Workspace

    place = Workspace(workspace, create=False)
    options = HubOptions(private=private, pull_request=pr, tag=tag, dry_run=dry_run, force=force)
    with place.lock():
        result = push_dataset(place, dataset, destination, options=options)
    for line in push_lines(result):
        _console.print(line, markup=False, soft_wrap=True)


def push_lines(result: PushResult) -> list[str]:
    """What a push did or would do, as lines to print."""
    plan = result.plan
    size = sum(plan.uploads.values())
    lines = [f"{result.outcome}: {result.version} to {result.destination}"]
    lines += [f"  + {path}  {_bytes(count)}" for path, count in list(plan.uploads.items())[:_SHOWN]]
    if len(plan.uploads) > _SHOWN:
        lines.append(f"  + and {len(plan.uploads) - _SHOWN:,} more")
    lines += [f"  - {path}" for path in plan.deletes[:_SHOWN]]
    if len(plan.deletes) > _SHOWN:
        lines.append(f"  - and {len(plan.deletes) - _SHOWN:,} more")
    written, deleted = ("to write", "to delete") if result.outcome == "would push" else ("written", "deleted")
    lines.append(
        f"  {len(plan.uploads):,} files {written} ({_bytes(size)}), {len(plan.deletes):,} {deleted}, "
        f"{plan.unchanged:,} unchanged"
    )
    return [*lines, *(f"  {note}" for note in result.notes)]


def _bytes(count: int) -> str:
    for unit, power in (("GB", 9), ("MB", 6), ("kB", 3)):
        if count >= 10**power:
            return f"{count / 10**power:.1f} {unit}"
    return f"{count} B"

"""The command ``curation repair``. It parses and prints; what is damage and how it is mended is in ``damage``."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import typer
from rich.console import Console

from curation.cli_options import WorkspaceUrl

__all__ = ["repairing"]

repairing: Final = typer.Typer()
_console: Final = Console(highlight=False)


@repairing.command()
def repair(workspace: WorkspaceUrl) -> None:
    """Take what is torn out of a damaged workspace's tables; what was taken out is kept under damaged/."""
    from curation.damage import repair as mend
    from curation.workspace import Workspace

    place = Workspace(workspace, create=False)
    done = mend(place)
    if place.is_local and Path(place.path("trial", "tables")).is_dir():
        # The ledger is shared, and is whole by now: what is left is of the trial alone.
        done += [f"trial: {line}" for line in mend(Workspace(workspace, create=False, trial=True))]
    for line in done or ["nothing is damaged"]:
        _console.print(line, markup=False, soft_wrap=True)

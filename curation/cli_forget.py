"""The command ``curation forget``. It parses, asks and prints; forgetting is in ``curation.forgetting``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console

from curation.cli_options import WorkspaceUrl

if TYPE_CHECKING:
    from curation.forgetting.forget import Removed
    from curation.forgetting.search import Searched

__all__ = ["forgetting"]

forgetting = typer.Typer()
_console: Final = Console(highlight=False)
_OUT_OF_REACH: Final = (
    "out of reach: the source files themselves (the next run turns the rows away), what was pushed or copied "
    "elsewhere (push the datasets again, and delete old revisions there), models trained on it, backups"
)


@forgetting.command()
def forget(
    workspace: WorkspaceUrl,
    identifiers: Annotated[
        list[str],
        typer.Argument(metavar="ID...", help="of prompts or answers (first digits do), or sources' names"),
    ],
    reason: Annotated[str | None, typer.Option(help="kept with the time, and shown nowhere else")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only show what would go")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="do not ask")] = False,
) -> None:
    """Remove prompts, sources or answers and all that came from them, and search for what may be left."""
    from curation.forgetting.forget import forget as carry_out
    from curation.forgetting.forget import what_would_go
    from curation.forgetting.matching import Needles
    from curation.forgetting.search import search_workspace
    from curation.workspace import Workspace

    place = Workspace(workspace, create=False)
    plan, going = what_would_go(place, identifiers)
    if plan.selection.is_empty:
        _print_lines(going.notes)
        _finish(search_workspace(place, Needles((name for name in identifiers), ())))
        return
    chosen = plan.selection
    _say(f"from {place.url}:")
    counts = ((len(chosen.sources), "sources"), (len(chosen.prompts), "prompts"), (len(chosen.answers), "answers"))
    _say("  " + ", ".join(f"{count:,} {what}" for count, what in counts if count) + ", and all that came from them")
    _print_removed(going)
    if dry_run:
        _say("nothing was removed: this is a dry run")
        return
    if not yes and not typer.confirm("This cannot be undone. Older versions of every table go with it. Go on?"):
        _say("nothing was removed")
        raise typer.Exit(1)
    done = carry_out(place, plan, reason=reason)
    _say("removed")
    _print_removed(done._replace(notes=[]))
    _say("older versions of the tables: gone, for they held it, too")
    assert done.searched is not None
    _finish(done.searched)


def _print_removed(removed: Removed) -> None:
    lines = [f"table {name:<20} {rows:>9,} rows" for name, rows in removed.rows.items()]
    lines += [f"{name:<26} {gone:>9,} of {rows:,} rows" for name, (gone, rows) in removed.datasets.items()]
    _print_lines([*lines, *removed.others, *removed.notes])


def _finish(searched: Searched) -> None:
    _say(
        f"searched {searched.files:,} files ({searched.bytes / 1e6:.1f} MB; {searched.decoded:,} decoded) "
        f"for {searched.identifiers:,} identifiers and {searched.texts:,} texts: "
        + ("nothing is left" if not searched.left else f"something is left in {len(searched.left):,} files:")
    )
    _print_lines(searched.left)
    if searched.unread:
        _say(f"{len(searched.unread):,} files are packed or torn, so that nothing can be said of them:")
        _print_lines(searched.unread)
    _say(_OUT_OF_REACH)
    if searched.left or searched.unread:
        raise typer.Exit(1)


def _print_lines(lines: list[str]) -> None:
    for line in lines:
        _say(f"  {line}")


def _say(line: str) -> None:
    _console.print(line, markup=False, soft_wrap=True)

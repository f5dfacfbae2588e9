"""What a server replied to a command on a file, kept until the command is done.

A command writes its output whole or not at all. Its replies are paid for, so they lie beside the output while it
works (``OUT.replies``), and the same command goes on from them when it broke off, or when requests had no answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from curation.kept_replies import KeptReplies
from curation.models.kept import keeping

__all__ = ["kept_replies"]


@contextmanager
def kept_replies(output: Path) -> Iterator[None]:
    """Keeps what servers reply in this block, and takes it away when the block ends well and none was missing.

    Raises:
        WorkspaceError: when a reply cannot be kept, or another command with this output is under way.
    """
    kept = KeptReplies(output.with_name(f"{output.name}.replies"))
    if kept.found or kept.damaged:
        lost = f"; {kept.damaged:,} lines are damaged: those are asked for again" if kept.damaged else ""
        typer.echo(
            f"{kept.found:,} replies are in {kept.path} since a command broke off, and are not paid again{lost}",
            err=True,
        )
    try:
        with keeping(kept):
            yield
    except BaseException:
        kept.close()
        if kept.count:
            typer.echo(
                f"{kept.count:,} replies of the server are kept in {kept.path}: the same command goes on from them",
                err=True,
            )
        raise
    if kept.goes_on:
        kept.close()
        typer.echo(
            f"{len(kept.unanswered):,} requests got no answer: the same command asks for those alone, for the "
            f"{kept.count:,} replies that came are kept in {kept.path}; remove it when nobody needs them",
            err=True,
        )
    elif kept.unused:
        kept.forget()
        kept.close()
        typer.echo(
            f"{len(kept.unused):,} replies in {kept.path} are to other requests, of another model or file: "
            f"remove it when nobody needs them",
            err=True,
        )
    else:
        kept.remove()

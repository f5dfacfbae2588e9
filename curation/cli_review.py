"""The commands ``review`` and ``review import``: people look at pairs, and their answers come back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

__all__ = ["review"]


class _WriteByDefault(TyperGroup):
    """``curation review WORKSPACE DATASET`` is ``curation review write WORKSPACE DATASET``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            args = ["write", *args]
        parsed: list[str] = super().parse_args(ctx, args)
        return parsed


review = typer.Typer(
    cls=_WriteByDefault, help="Ask people about pairs, and take their answers.", no_args_is_help=True
)
console = Console(highlight=False)
_Workspace = Annotated[str, typer.Argument(metavar="WORKSPACE", help="a folder or URL that a run has written")]


@review.command()
def write(
    workspace: _Workspace,
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="preference, preference_unpaired or reward")],
    output: Annotated[Path, typer.Option("--output", "-o", help="a folder for the sheet and Argilla's files")],
    rows: Annotated[int, typer.Option(min=1, help="pairs to ask about")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="of the draw")] = 0,
) -> None:
    """Write a sample of pairs for people to judge: review.csv, and a folder for Argilla."""
    from curation.review.sample import review_sample
    from curation.review.sheets import write_review
    from curation.workspace import Workspace

    sample = review_sample(Workspace(workspace, create=False), dataset, rows=rows, seed=seed)
    files = write_review(sample, output, name=f"review-{dataset}")
    for stratum, count in sample["stratum"].value_counts(sort=True).iter_rows():
        console.print(f"  {stratum:<34} {count:>6,}", markup=False)
    console.print(f"sheet    {files[0]}\nArgilla  {files[1].parent}", markup=False, soft_wrap=True)


@review.command("import")
def import_(
    workspace: _Workspace,
    answers: Annotated[
        Path, typer.Argument(metavar="ANSWERS", help="review.csv, or a folder of Argilla's to_disk")
    ],
    annotator: Annotated[
        str | None, typer.Option(help="who answered, where a sheet's column annotator is empty")
    ] = None,
) -> None:
    """Take answers into the workspace; the next run calibrates its label probabilities by them."""
    from curation.review.answers import import_review
    from curation.workspace import Workspace

    done = import_review(Workspace(workspace, create=False), answers, annotator=annotator)
    console.print(
        f"{done.labels:,} labels taken, {done.unanswered:,} rows unanswered, {done.total:,} labels in the workspace"
    )

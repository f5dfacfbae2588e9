"""The commands ``review`` and ``review import``: people look at pairs, and their answers come back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

from curation.cli_options import WorkspaceUrl, unless_named

__all__ = ["review"]


review = typer.Typer(
    cls=unless_named("write"), help="Ask people about pairs, and take their answers.", no_args_is_help=True
)
console = Console(highlight=False)
_NAMED: Final = 8
"""Missing lines that are named."""


@review.command()
def write(
    workspace: WorkspaceUrl,
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
    workspace: WorkspaceUrl,
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
    if done.missing:
        named = ", ".join(done.missing[:_NAMED]) + (" …" if len(done.missing) > _NAMED else "")
        console.print(
            f"{len(done.missing):,} lines of the sheet are not in {answers} (sheet_line {named}): they count as "
            "unanswered; if they were taken out for what stood in them, the labels are a biased sample",
            markup=False, soft_wrap=True,
        )  # fmt: skip

"""The command line. It parses, prints and turns errors into exit statuses; the work is done elsewhere."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from curation.cli_files import files
from curation.cli_forget import forgetting
from curation.cli_labels import labels
from curation.cli_options import CommandGroup, WorkspaceUrl
from curation.cli_push import pushing
from curation.cli_refusals import refusal_commands
from curation.cli_repair import repairing
from curation.cli_review import review
from curation.cli_rewards import scores
from curation.cli_status import looking
from curation.errors import CurationError, InterruptedRun
from curation.interrupts import command_hears
from curation.thread_starts import limit_waits

__all__ = ["app", "main"]


app = typer.Typer(
    name="curation",
    cls=CommandGroup,
    help="Build preference pairs, refusal data and hard negatives that carry their evidence.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # brackets in help texts are brackets
)
app.add_typer(files)
app.add_typer(pushing)
app.add_typer(forgetting)
app.add_typer(looking)
app.add_typer(repairing)
app.add_typer(scores)
app.add_typer(labels)
app.add_typer(refusal_commands)
app.add_typer(review, name="review")
console: Final = Console(highlight=False)
_state = {"debug": False}
_STOPPED: Final = (
    "stopped: give the same command again; a run goes on from what it has finished, and a file is written whole or "
    "not at all"
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        console.print(f"preference-curation {version('preference-curation')}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="show the traceback of an error")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    _state["debug"] = debug


@app.command()
def run(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="a YAML file; see examples/")],
    workspace: Annotated[
        str | None,
        typer.Option(help="where to keep everything; default: the recipe's, else workspaces/ and its name"),
    ] = None,
    engine: Annotated[
        str | None, typer.Option(help="where models run: local (here) or ray (a cluster); default: the recipe's")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="a trial on so many rows of each source, kept apart under trial/"),
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="try rows again that a model failed on")
    ] = False,
    plan: Annotated[
        bool,
        typer.Option("--plan", help="only print what a run would ask of its models, and what that can cost"),
    ] = False,
) -> None:
    """Run a recipe from its sources to its datasets and report."""
    if plan:
        from curation.pipeline import check_engine
        from curation.planning import plan as plan_run
        from curation.planning import plan_lines

        check_engine(engine)
        for line in plan_lines(plan_run(recipe, workspace=workspace, limit=limit, retry_failed=retry_failed)):
            console.print(line, markup=False, soft_wrap=True)
        return
    from curation.pipeline import run as run_pipeline
    from curation.progress import RichProgress

    run_pipeline(
        recipe,
        workspace=workspace,
        limit=limit,
        engine=engine,
        retry_failed=retry_failed,
        progress=RichProgress(),
        on_stage=_print_stage,
        on_end=_print_run,
    )


@app.command()
def demo(
    workspace: Annotated[str, typer.Option(help="where to keep it")] = "workspaces/quickstart",
) -> None:
    """Run the quickstart recipe on example data, with the bundled models."""
    from curation.demo import quickstart_recipe

    run(quickstart_recipe(), workspace=workspace)


@app.command()
def report(workspace: WorkspaceUrl) -> None:
    """Write the report of a workspace again, and print where it is."""
    from curation.stages.report import rewrite_report
    from curation.workspace import Workspace

    console.print(rewrite_report(Workspace(workspace, create=False)), soft_wrap=True)


@app.command()
def explain(
    workspace: WorkspaceUrl,
    identifier: Annotated[str, typer.Argument(metavar="ID", help="of a prompt, candidate, pair, or source#row")],
    show_text: Annotated[bool, typer.Option("--show-text", help="print prompts and answers, too")] = False,
) -> None:
    """Print all there is to know of one prompt, candidate, pair or input row."""
    from curation.explain import explain as explain_identifier
    from curation.workspace import Workspace

    for section in explain_identifier(Workspace(workspace, create=False), identifier, show_text=show_text):
        console.rule(section.title, align="left")
        for row in section.rows:
            table = Table(show_header=False, box=None, pad_edge=False)
            for name, value in row.items():
                table.add_row(name, _plain(value))
            console.print(table)
            console.print()


@app.command()
def ui(
    workspace: Annotated[
        str | None,
        typer.Argument(metavar="WORKSPACE", help="of a run, or (with --recipe) a new one; default: the recipe's"),
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(
            help="what to materialize; default: the recipe of the workspace's last run, else the quickstart"
        ),
    ] = None,
    port: Annotated[int, typer.Option(min=1, max=65535)] = 3000,
    host: Annotated[str, typer.Option(help="the address to listen on")] = "127.0.0.1",
) -> None:
    """Start the Dagster UI on a workspace; the history of its runs is kept there."""
    from curation.ui import start_ui

    start_ui(workspace=workspace, recipe=recipe, host=host, port=port)


def main() -> None:
    """The entry point: runs a command; an error of ours is one line and its exit status, and so is Ctrl-C."""
    limit_waits()
    command = command_hears()
    try:
        _run_command()
    except KeyboardInterrupt:  # a second Ctrl-C, before what the first one meant was said
        command.ends = True
        _say(InterruptedRun(_STOPPED))


def _run_command() -> None:
    try:
        app()
    except SystemExit as end:
        if end.code == InterruptedRun.exit_status:  # typer answers Ctrl-C with the bare status
            _say(InterruptedRun(_STOPPED))
        raise
    except CurationError as error:
        _say(error)
    except MemoryError:
        # Of a model's batch, its step says more; this is for all the rest.
        said = "error: memory ran out; what was finished is kept, and the same command goes on from there where "
        os.write(2, f"{said}there is more memory (or with less to do at once: see batch_rows)\n".encode())
        sys.exit(1)


def _say(error: CurationError) -> NoReturn:
    # A second Ctrl-C must not take the place of what there is to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if _state["debug"] or os.environ.get("CURATION_DEBUG"):
        raise error
    Console(stderr=True).print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
    sys.exit(error.exit_status)


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return ", ".join(_plain(v) for v in value)
    return "—" if value is None else str(value)


def _print_stage(result: Any) -> None:
    facts = "  ".join(f"{name}: {_plain(value)}" for name, value in result.facts.items())
    line = f"{result.stage:<28} {result.rows:>9,} rows"
    if result.rejected:
        line += f"  {result.rejected:,} rejected"
    console.print(f"{line}  {facts}", markup=False, soft_wrap=True)


def _print_run(result: Any) -> None:
    from curation.summary import run_summary

    for line in run_summary(result):
        console.print(line, markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()

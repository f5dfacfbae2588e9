"""What the commands' modules share: common arguments, and how groups of commands show and read them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from curation.validation_words import fault_words, shown_value

__all__ = ["CommandGroup", "CostsFile", "InputFile", "OutputFile", "WorkspaceUrl", "unless_named"]

InputFile = Annotated[str, typer.Argument(metavar="INPUT", help="a file, or hf://owner/name[/config][:split]")]
OutputFile = Annotated[Path, typer.Option("--output", "-o", help="a .parquet or .jsonl file")]
CostsFile = Annotated[
    Path | None,
    typer.Option("--costs", help="a recipe, or a YAML file with its section costs: prices of judges, and max_cost"),
]
WorkspaceUrl = Annotated[str, typer.Argument(metavar="WORKSPACE", help="a folder or URL that a run has written")]


class CommandGroup(TyperGroup):
    """A group that lists its commands in whole sentences and says what is wrong of a value in our words."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, command.get_short_help_str(limit=1_000)) for name, command in commands if command]
            )

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            from pydantic import ValidationError  # a command that is given well starts without it

            if isinstance(error.__cause__, ValidationError):
                fault = error.__cause__.errors(include_url=False)[0]
                found = "" if fault["type"] == "value_error" else f", found {shown_value(fault['input'])}"
                error.message = fault_words(fault) + found
            raise


def unless_named(default: str) -> type[TyperGroup]:
    """A group in which ``group ARGUMENTS`` means ``group default ARGUMENTS``, unless they begin with a command."""

    class Group(CommandGroup):
        def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
            if args and args[0] not in self.commands and args[0] != "--help":
                args = [default, *args]
            parsed: list[str] = super().parse_args(ctx, args)
            return parsed

        def format_epilog(self, ctx: Any, formatter: Any) -> None:
            with formatter.indentation():
                formatter.write_paragraph()
                formatter.write_text(f"Without a command it is {default}: {ctx.command_path} {default} --help")

    return Group

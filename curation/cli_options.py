"""What the commands' modules share: common arguments, and groups of which one command may be left unnamed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

__all__ = ["InputFile", "OutputFile", "WorkspaceUrl", "unless_named"]

InputFile = Annotated[str, typer.Argument(metavar="INPUT", help="a file, or hf://owner/name[/config][:split]")]
OutputFile = Annotated[Path, typer.Option("--output", "-o", help="a .parquet or .jsonl file")]
WorkspaceUrl = Annotated[str, typer.Argument(metavar="WORKSPACE", help="a folder or URL that a run has written")]


def unless_named(default: str) -> type[TyperGroup]:
    """A group in which ``group ARGUMENTS`` means ``group default ARGUMENTS``, unless they begin with a command."""

    class Group(TyperGroup):
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

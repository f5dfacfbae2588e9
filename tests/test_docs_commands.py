"""Every command and option that a guide shows exists, and every link to a heading finds one."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from curation.cli import app

ROOT = Path(__file__).resolve().parents[1]
GUIDES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
# A command in a block, with the lines that a backslash joins to it; or in running text.
IN_A_BLOCK = re.compile(r"^(?:    |\$ )(?:[A-Z_]+=\S+ )*(?:\.venv/bin/)?(curation (?:.*\\\n)*.*)$", re.MULTILINE)
IN_TEXT = re.compile(r"`(curation [^`]+)`")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]+")
TEXT_OPTION = re.compile(r"`(--[a-z][a-z0-9-]*)[^`]*`")
# Of vllm serve and of OpenRLHF.
OTHERS = {"--data", "--generation-config", "--max-model-len"}


def shown() -> Iterator[tuple[str, str]]:
    """Guide and command."""
    for guide in GUIDES:
        text = guide.read_text()
        for command in (*IN_A_BLOCK.findall(text), *IN_TEXT.findall(text)):
            yield guide.name, command.replace("\\\n", " ").split(" #")[0]


COMMANDS = sorted(set(shown()))


def words(command: str) -> list[str]:
    """Its words after ``curation``; a quotation that is not closed is one of English."""
    try:
        return shlex.split(command.replace("\n", " "))[1:]
    except ValueError:
        return command.split()[1:]


def options_of(command: Any) -> set[str]:
    """Its options, with those of the commands below it."""
    own = {name for p in command.params for name in (*p.opts, *p.secondary_opts)} | {"--help"}
    return own.union(*map(options_of, getattr(command, "commands", {}).values()))


def named(command: Any, given: list[str]) -> Any:
    """The command that the first words name.

    Raises:
        KeyError: where there is no such command.
    """
    below = getattr(command, "commands", {})
    if given and given[0] in below:
        return named(below[given[0]], given[1:])
    if command.name == "curation" and given and not given[0].startswith("-"):
        raise KeyError(given[0])
    return command  # `curation refusals FILE` is `curation refusals detect FILE`


@pytest.mark.parametrize(("guide", "command"), COMMANDS)
def test_a_command_in_a_guide_exists_with_its_options(guide: str, command: str) -> None:
    known = options_of(named(typer.main.get_command(app), words(command)))
    assert [word for word in OPTION.findall(command) if word not in known] == []


def test_the_guides_show_commands() -> None:
    assert len(COMMANDS) > 60


def test_options_in_running_text_are_of_some_command() -> None:
    known = options_of(typer.main.get_command(app)) | OTHERS
    # Scripts of benchmarks have options of their own.
    guides = [guide for guide in GUIDES if guide.parent.name != "benchmarks"]
    said = [(g.name, option) for g in guides for option in TEXT_OPTION.findall(g.read_text())]
    assert [(guide, option) for guide, option in said if option not in known] == []


def slugs(guide: Path) -> set[str]:
    """What GitHub calls the headings."""
    headings = re.findall(r"^#+ (.*)$", guide.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_to_headings_find_one() -> None:
    missing = []
    for guide in GUIDES:
        for target in re.findall(r"\]\(([^)\s]*#[^)\s]+)\)", guide.read_text()):
            file, _, heading = target.partition("#")
            if "://" not in target and heading not in slugs(guide.parent / file if file else guide):
                missing.append((guide.name, target))
    assert missing == []

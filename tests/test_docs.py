"""The documentation names every command, recipe key and public name, and its generated parts are fresh."""

from __future__ import annotations

from pathlib import Path

import typer.main

import curation
from curation.cli import app
from curation.recipe_reference import recipe_reference
from curation.stages import STAGES

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def test_every_command_is_in_the_readme() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert [name for name in commands if f"curation {name}" not in README] == []


def test_every_public_name_is_in_the_readme() -> None:
    assert [name for name in curation.__all__ if name not in README] == []


def test_the_recipe_reference_is_fresh() -> None:
    assert (ROOT / "docs" / "recipe.md").read_text() == recipe_reference() + "\n", (
        "run: python -m curation.recipe_reference > docs/recipe.md"
    )


def test_links_in_the_readme_lead_somewhere() -> None:
    targets = [part.split(")")[0] for part in README.split("](")[1:]]
    assert [t for t in targets if "://" not in t and not (ROOT / t.split("#")[0]).exists()] == []


def test_every_example_is_in_the_readme() -> None:
    assert [p.name for p in (ROOT / "examples").glob("*.yaml") if p.name not in README] == []


def test_every_asset_is_in_the_guide_to_dagster_in_its_group() -> None:
    guide = (ROOT / "docs" / "dagster.md").read_text()
    rows = {line.split("|")[1].strip(): line for line in guide.splitlines() if line.startswith("| ")}
    assert [s.name for s in STAGES if f"`{s.name}`" not in rows.get(s.group, "")] == []


def test_links_in_the_guides_lead_somewhere() -> None:
    guides = sorted((ROOT / "docs").rglob("*.md"))
    targets = [(g, part.split(")")[0].split("#")[0]) for g in guides for part in g.read_text().split("](")[1:]]
    files = [(g, target) for g, target in targets if target and "://" not in target]
    assert [(g.name, t) for g, t in files if not (g.parent / t).exists()] == []


def test_every_guide_is_in_the_readme() -> None:
    assert [p.name for p in (ROOT / "docs").glob("*.*") if p.name not in README] == []

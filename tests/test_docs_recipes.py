"""Every recipe that a guide shows is one: it loads once it has sources and something to publish."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml

from curation.recipe import Recipe, load_recipe

DOCS = Path(__file__).resolve().parents[1] / "docs"
FENCED = re.compile(r"^```yaml\n(.*?)^```", re.MULTILINE | re.DOTALL)
ANY_FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?<=\n)(?:(?:    .*|)\n)*    .*\n")
REST = {
    "name": "shown",
    "sources": [{"path": f"{name}.jsonl", "name": name, "license": "apache-2.0"} for name in ("ours", "public")],
    "publish": {"license": "apache-2.0", "datasets": ["preference"]},
}
SECTIONS = Recipe.model_fields.keys() - {"name"}  # a taxonomy has one, too


def recipes() -> list[Any]:
    found = []
    for guide in sorted(DOCS.glob("*.md")):
        text = guide.read_text()
        fenced = FENCED.findall(text)
        shown = fenced + [textwrap.dedent(block) for block in INDENTED.findall(ANY_FENCED.sub("", text))]
        for number, block in enumerate(shown):
            try:
                keys = yaml.safe_load(block)
            except yaml.YAMLError:
                continue  # of a console, or Python
            if isinstance(keys, dict) and keys.keys() & SECTIONS:
                found.append(pytest.param(keys, id=f"{guide.name}-{number}"))
    return found


RECIPES = recipes()


def test_the_guides_show_recipes() -> None:
    assert len(RECIPES) > 15


@pytest.mark.parametrize("shown", RECIPES)
def test_a_recipe_in_a_guide_loads(tmp_path: Path, shown: dict[str, Any]) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({**REST, **shown}))

    load_recipe(path)

"""What the report of a run says of its sources and models."""

from __future__ import annotations

import json
import re
from pathlib import Path

import polars as pl
import pytest

from curation.pipeline import run
from curation.publish.next_steps import next_steps
from curation.recipe import Recipe
from curation.stages.report import _bundled
from tests.stages.conftest import sentences


@pytest.mark.parametrize(("sources", "said"), [(2, "source_0, source_1"), (6, "6")])
def test_few_sources_are_named_at_the_top_and_many_counted(tmp_path: Path, sources: int, said: str) -> None:
    rows = sentences(sources)
    for number, row in enumerate(rows):
        (tmp_path / f"source_{number}.jsonl").write_text(json.dumps(row) + "\n")
    recipe = Recipe.model_validate(
        {
            "sources": [{"path": str(tmp_path / f"source_{number}.jsonl")} for number in range(sources)],
            "encoder": None, "rewards": [], "refusals": None, "policy": None,
            "publish": {"datasets": ["preference"]},
        }
    )  # fmt: skip

    html = Path(run(recipe, workspace=tmp_path / "w").workspace.report_path).read_text()

    assert f"<dt>sources</dt><dd>{said}</dd>" in html
    assert re.findall(r"<tr><td>(source_\d)</td><td>pair</td>", html) == [f"source_{n}" for n in range(sources)]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "sections rewards, policy before"),
        ({"policy": None}, "sections rewards before"),
        ({"policy": None, "rewards": [{"model": "heads"}]}, None),
    ],
)
def test_only_scores_of_bundled_models_are_warned_of(given: dict[str, object], said: str | None) -> None:
    """Heads of one's own may lie in a folder that is called heads, as the bundled ones are."""
    plain = {"sources": [{"path": "a.jsonl"}], "publish": {"datasets": ["preference"]}}
    steps = next_steps(
        pairs=pl.DataFrame(schema={"status": pl.String, "rule": pl.String}),
        bundled=_bundled(Recipe.model_validate(plain | given)),
        sources=[],
        datasets=[],
        failed=False,
    )
    assert [step.what.split("recipe's ")[1].split(" you")[0] for step in steps] == ([said] if said else [])

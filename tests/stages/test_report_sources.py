"""What the report of a run says of its sources."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from curation.pipeline import run
from curation.recipe import Recipe
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

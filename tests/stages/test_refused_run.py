"""A run in which gates refuse datasets still says what became of every row, and names all that were refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from curation.errors import GateError
from curation.pipeline import RunResult, run
from curation.recipe import Recipe
from curation.summary import run_summary
from tests.stages.conftest import sentences


def test_a_refused_run_says_what_was_dropped_and_names_every_dataset(tmp_path: Path) -> None:
    rows = sentences(4)
    rows[0]["rejected"] = rows[0]["chosen"]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = Recipe.model_validate(
        {
            "sources": [{"path": str(tmp_path / "pairs.jsonl")}],
            "encoder": None, "rewards": [], "refusals": None, "policy": None, "gates": {"min_rows": 100},
            "publish": {"datasets": ["preference", "preference_unpaired"]},
        }
    )  # fmt: skip
    ended: list[RunResult] = []

    refusal = r"preference: min_rows: 3 rows.*Not published either: preference_unpaired$"
    with pytest.raises(GateError, match=refusal):
        run(recipe, workspace=tmp_path / "w", on_end=ended.append)

    said = run_summary(ended[0])
    assert any(re.search(r"chosen_equals_rejected +-1 +3 left", line) for line in said)
    assert not any(line.startswith("dataset") for line in said)

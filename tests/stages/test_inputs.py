"""Sources as a run reads them: how is said, and one that gives nothing ends the run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from curation import run
from curation.errors import InputError
from curation.recipe import Recipe


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_a_source_of_which_no_row_can_be_used_ends_the_run(tmp_path: Path) -> None:
    good = write(tmp_path / "good.jsonl", [{"prompt": "one?", "chosen": "a", "rejected": "b"}])
    bad = write(tmp_path / "bad.jsonl", [{"prompt": "one?", "chosen": "", "rejected": "b"}] * 3)
    recipe = Recipe(sources=[{"path": good}, {"path": bad}])

    with pytest.raises(
        InputError, match=r"bad\.jsonl: none of its 3 rows can be used: 3 empty_response \(chosen is"
    ):
        run(recipe, workspace=tmp_path / "w")

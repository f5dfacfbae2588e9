"""Sources as a run reads them: how is said, and one that gives nothing ends the run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from curation import run
from curation.errors import InputError
from curation.pipeline import run_stage, stage_named
from curation.progress import SilentProgress
from curation.recipe import Recipe
from curation.stages.context import Context
from curation.workspace import Workspace


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


def read(folder: Path, rows: list[dict[str, Any]], **options: Any) -> Any:
    recipe = Recipe(sources=[{"path": write(folder / "mine.jsonl", rows), **options}])
    workspace = Workspace(folder / "w")
    return run_stage(Context(workspace, recipe, SilentProgress(), None, False), stage_named("inputs"))


def test_answers_that_a_source_no_longer_brings_end_the_run_and_prompts_that_are_meant_do_not(
    tmp_path: Path,
) -> None:
    pairs = [{"prompt": "one?", "chosen": "a", "rejected": "b"}]
    renamed = [{"prompt": "one?", "winner": "a", "loser": "b"}]
    assert read(tmp_path, pairs).facts["mine is read as"] == "pair from chosen, rejected, prompt"

    with pytest.raises(InputError, match=r"last run read it as pair, now there are no answers: .* winner, loser"):
        read(tmp_path, renamed)

    assert read(tmp_path, renamed, format="prompt").rows == 1
    assert read(tmp_path, renamed).rows == 1  # as the run before


def test_a_source_of_prompts_may_come_with_answers_later(tmp_path: Path) -> None:
    assert read(tmp_path, [{"prompt": "one?"}]).rows == 1
    assert read(tmp_path, [{"prompt": "one?", "response": "a"}]).rows == 1

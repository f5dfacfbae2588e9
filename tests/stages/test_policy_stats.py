"""Answers that the policy cannot measure: named, and tried again with their prompt when that is asked for."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import yaml

from curation.pipeline import run_stage, stage_named
from curation.recipe import load_recipe
from curation.stages.context import Context
from curation.workspace import Workspace
from tests.stages.conftest import sentences, with_rows

RECIPE = {"name": "small", "sources": [{"path": "pairs.jsonl"}], "policy": {"max_length": 128}}


def test_a_failed_answer_is_tried_again_and_keeps_its_reason(tmp_path: Path) -> None:
    rows = sentences(4)
    rows[1]["chosen"] = "Bread is made of flour and water, and of time. " * 40
    recipe = with_rows(tmp_path, rows) / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(RECIPE))
    workspace = Workspace(tmp_path / "w")
    first = Context(workspace, load_recipe(recipe))
    for name in ("inputs", "hygiene", "prompts", "candidates", "policy_stats"):
        run_stage(first, stage_named(name))

    def failures() -> pl.DataFrame:
        return workspace.read("failures").filter(pl.col("step") == "policy_stats")

    def measured() -> pl.DataFrame:
        return workspace.read("policy_stats").select("stats_id", "candidate_ids", "tokens").sort("stats_id")

    before, first_time = failures(), measured()
    assert before["rule"].to_list() == ["context_overflow"]
    assert first_time["candidate_ids"].list.len().sort().to_list() == [1, 2, 2, 2]
    again = Context(workspace, load_recipe(recipe), retry_failed=True)
    result = run_stage(again, stage_named("policy_stats"))
    assert result is not None
    assert (result.rejected, again.reports[0].computed) == (1, 1)
    assert failures().equals(before)
    assert measured().equals(first_time)

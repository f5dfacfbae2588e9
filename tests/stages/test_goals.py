"""Reward-augmented pairs in a run: a dataset of its own, made of the selected pairs without paying for anything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from curation.errors import GateError, InputError
from curation.pipeline import run
from curation.recipe import Recipe
from curation.workspace import Workspace
from tests.stages.conftest import sentences

HERE = f"python:{__name__}"


def friendly(prompts: list[Any], answers: list[str]) -> list[float]:
    """Better the longer, and knows nothing of what has a 7 in it."""
    return [float("nan") if "7" in answer else float(len(answer)) for answer in answers]


def made(folder: Path, rows: list[dict[str, Any]], **changes: Any) -> Workspace:
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    plain = {
        "sources": [{"path": str(folder / "pairs.jsonl"), "name": "source"}],
        "encoder": None, "refusals": None, "policy": None, "rewards": [],
        "publish": {"datasets": ["reward_augmented"], "license": "mit"},
        "gates": {"max_tie_rate": 1.0, "max_duplicate_rate": 1.0},
    }  # fmt: skip
    run(Recipe.model_validate(plain | changes), workspace=folder / "w")
    return Workspace(folder / "w")


def test_each_pair_is_published_under_two_goals(tmp_path: Path) -> None:
    space = made(tmp_path, sentences(10), rewards=[{"model": f"{HERE}:friendly"}])
    rows, preference = space.read("reward_augmented"), space.read("preference")
    assert preference.height == 10
    files = sorted(Path(space.dataset_path("reward_augmented"), "data").glob("*.parquet"))
    published = pl.concat(pl.read_parquet(file) for file in files)
    assert sorted(published["goal"]) == sorted(rows["goal"])
    assert rows.filter(pl.col("goal_of") == "chosen").height == 9
    assert rows.filter(pl.col("goal_of") == "rejected").height == 9
    given = {row["pair_id"]: (row["chosen"], row["rejected"]) for row in preference.iter_rows(named=True)}
    for row in rows.iter_rows(named=True):
        order = (row["chosen"], row["rejected"])
        assert given[row["pair_id"]] == (order if row["goal_of"] == "chosen" else order[::-1])
        assert f" {row['goal']} " in row["prompt"][0]["content"]
    # Longer answers are worth more here: the higher goal asks for the longer one.
    for _, pair in rows.group_by("pair_id"):
        high, low = pair.sort("goal", descending=True).iter_rows(named=True)
        assert len(high["chosen"][0]["content"]) > len(low["chosen"][0]["content"])
    rejects = space.read("rejects").filter(pl.col("table") == "reward_augmented")
    assert rejects["rule"].to_list() == ["no_goal_score"]
    assert rejects["row_id"][0] not in set(rows["pair_id"])


def test_the_sources_own_scores_can_be_the_goal(tmp_path: Path) -> None:
    rows = [
        {"prompt": r["prompt"], "responses": [r["chosen"], r["rejected"]], "scores": [9.0, 6.0]}
        for r in sentences(4)
    ]
    pairs = {"strategies": ["best_vs_worst"], "score": "provided"}
    goals = {"score": "provided", "scale": None, "instruction": "Aim at {goal}."}
    space = made(tmp_path, rows, publish={"datasets": ["reward_augmented"], "goals": goals}, pairs=pairs)
    found = space.read("reward_augmented").sort("goal")
    assert found["goal"].to_list() == [6.0] * 4 + [9.0] * 4
    assert found["rejected_goal_reward"].unique().to_list() == [-9.0]
    assert found["prompt"][0].to_list()[0] == {"role": "system", "content": "Aim at 6.0."}


def test_scores_of_each_source_are_mapped_to_the_goals_by_themselves(tmp_path: Path) -> None:
    sources = []
    for name, best, worst in (("stars", 5.0, 1.0), ("shares", 0.9, 0.1)):
        rows = [
            {
                "prompt": f"{r['prompt']} ({name})",
                "responses": [r["chosen"], r["rejected"]],
                "scores": [best, worst],
            }
            for r in sentences(3)
        ]
        sources.append({"path": str(tmp_path / f"{name}.jsonl")})
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    goals = {"score": "provided", "scale": [1, 10], "instruction": "Aim at {goal}."}
    pairs = {"strategies": ["best_vs_worst"], "score": "provided"}
    publish = {"datasets": ["reward_augmented"], "goals": goals}
    space = made(tmp_path, [], sources=sources, publish=publish, pairs=pairs)
    assert sorted(space.read("reward_augmented")["goal"]) == [1.0] * 6 + [10.0] * 6


def test_where_no_pair_is_left_the_gate_says_so(tmp_path: Path) -> None:
    rows = [
        {"prompt": r["prompt"], "responses": [r["chosen"], r["rejected"]], "scores": [2, 1]} for r in sentences(3)
    ]
    goals = {"score": "provided", "instruction": "Aim at {goal}."}
    with pytest.raises(GateError, match="reward_augmented: min_rows: 0 rows"):
        made(
            tmp_path,
            rows,
            publish={"datasets": ["reward_augmented"], "goals": goals},
            pairs={"strategies": ["best_vs_worst"], "score": "provided", "min_margin": 5},
        )


@pytest.mark.parametrize(
    ("publish", "message"),
    [
        ({}, "needs the section rewards"),
        ({"goals": {"instruction": "Be good."}}, "instruction does not say {goal}"),
        ({"goals": {"scale": [10, 1]}}, "expected a lowest and a higher number"),
    ],
)
def test_a_recipe_that_cannot_say_goals_is_refused(tmp_path: Path, publish: dict[str, Any], message: str) -> None:
    with pytest.raises((InputError, ValueError), match=message):
        made(tmp_path, sentences(2), publish={"datasets": ["reward_augmented"], **publish})

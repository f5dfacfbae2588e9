"""Nothing is computed twice, and nothing is lost: kills, additions, changed thresholds, second workspaces."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from curation.errors import GateError
from curation.pipeline import run
from curation.recipe import Recipe
from curation.workspace import Workspace
from tests.stages.conftest import SMALL_RECIPE, Place, sentences

BATCH = {"generations": 1, "embeddings": 16, "rewards": 4096, "refusals": 8, "policy_stats": 4}


@pytest.mark.parametrize("step", ["generations", "embeddings", "policy_stats"])
def test_kill_minus_9_then_rerun_equals_an_undisturbed_run(place: Place, undisturbed: Place, step: str) -> None:
    """At the second batch; rewards and refusals come by the same engine as embeddings."""
    place.write(sentences(24))
    assert place.run(step, "2").returncode == -9
    place.succeed()
    assert {n: f.rows() for n, f in place.tables().items()} == {
        n: f.rows() for n, f in undisturbed.tables().items()
    }
    assert place.published() == undisturbed.published()
    for name, size in BATCH.items():
        twice = sum(n - 1 for call_, n in place.calls().items() if call_.startswith(f"{name} "))
        assert twice <= (size if name == step else 0), name


def test_the_same_recipe_in_two_workspaces_publishes_the_same_bytes(place: Place, undisturbed: Place) -> None:
    place.write(sentences(24))
    place.succeed()
    assert place.published() == undisturbed.published()
    assert len(place.published()) >= 3


def test_a_second_run_calls_no_model_and_changes_nothing(place: Place, undisturbed: Place) -> None:
    shutil.copytree(undisturbed.folder, place.folder)
    place.forget_calls()
    before = {p: p.stat().st_mtime_ns for p in place.workspace.rglob("*.parquet")}
    place.succeed()
    assert not place.calls()
    after = {p: p.stat().st_mtime_ns for p in place.workspace.rglob("*.parquet")}
    # The copy's recipe names its sources in another folder: that alone is recorded.
    (recorded,) = after.keys() - before.keys()
    assert recorded.parent == place.workspace / "tables" / "runs"
    assert after == before | {recorded: after[recorded]}


def test_added_prompts_are_the_only_ones_computed(place: Place, undisturbed: Place) -> None:
    shutil.copytree(undisturbed.folder, place.folder)
    place.forget_calls()
    place.write([*sentences(24), *sentences(25)[24:]])
    place.succeed()
    calls = place.calls()
    per_step = {name: sum(n for call, n in calls.items() if call.startswith(f"{name} ")) for name in BATCH}
    # One prompt more: one sample; its prompt, two answers and the sample; three candidates; one policy pass.
    assert per_step == {"generations": 1, "embeddings": 4, "rewards": 3, "refusals": 3, "policy_stats": 1}


def test_a_changed_pairing_threshold_calls_no_model(place: Place, undisturbed: Place) -> None:
    shutil.copytree(undisturbed.folder, place.folder)
    place.forget_calls()
    before = undisturbed.tables()["preference"].height
    place.write(sentences(24), selection={"rules": [{"score": "ln_ches", "max_quantile": 0.5}]})
    place.succeed()
    assert not place.calls()
    assert 0 < place.tables()["preference"].height < before


def test_the_order_of_source_rows_changes_no_score(place: Place, undisturbed: Place) -> None:
    place.write(list(reversed(sentences(24))), generation=SMALL_RECIPE["generation"])
    place.succeed()
    mine, theirs = (
        place.tables()["pair_scores"].sort("pair_id"),
        undisturbed.tables()["pair_scores"].sort("pair_id"),
    )
    assert mine["pair_id"].to_list() == theirs["pair_id"].to_list()
    for column in ("ln_ches", "chosen_logp", "strength_mean"):
        assert mine[column].to_list() == pytest.approx(theirs[column].to_list(), rel=1e-4, abs=1e-5)


def test_a_recipe_that_changes_no_table_is_recorded_once(tmp_path: Path) -> None:
    rows = "".join(json.dumps(row) + "\n" for row in sentences(3))
    (tmp_path / "pairs.jsonl").write_text(rows)
    bare = {"sources": [{"path": str(tmp_path / "pairs.jsonl")}], "encoder": None, "rewards": [], "refusals": None}
    gates = {"max_tie_rate": 1.0}
    for least in (1, 1, 2, 2, 99, 2, 2):
        recipe = Recipe.model_validate(bare | {"policy": None, "gates": gates | {"min_rows": least}})
        try:
            run(recipe, workspace=tmp_path / "w")
        except GateError:
            assert least == 99
    runs = Workspace(tmp_path / "w").read("runs").sort("finished_at")
    asked = [json.loads(row)["gates"]["min_rows"] for row in runs["recipe"]]
    assert list(zip(asked, runs["status"], strict=True)) == [
        (1, "done"), (2, "done"), (99, "failed"), (2, "done")
    ]  # fmt: skip

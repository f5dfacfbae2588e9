"""Runs of the whole graph: what they write, show, check and refuse."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest

from assets.resources import CurationResource, RecipeChanges
from curation.pipeline import run, run_stage, stage_named
from curation.workspace import Workspace
from tests.assets.conftest import PLAIN, Location, metadata
from tests.stages.conftest import SMALL_RECIPE

WITH_MODELS = {name: value for name, value in SMALL_RECIPE.items() if name != "generation"}


def checks(result: dg.ExecuteInProcessResult) -> dict[tuple[str, str], dg.AssetCheckEvaluation]:
    return {(e.asset_key.to_user_string(), e.check_name): e for e in result.get_asset_check_evaluations()}


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Location, dg.ExecuteInProcessResult]]:
    """A run with every bundled model but the generator."""
    with dg.DagsterInstance.ephemeral() as instance:
        location = Location(tmp_path_factory.mktemp("scored"), instance)
        location.write(WITH_MODELS)
        yield location, location.materialize()


def test_a_run_publishes_what_the_command_line_publishes(
    scored: tuple[Location, dg.ExecuteInProcessResult],
) -> None:
    location, result = scored
    assert result.success
    by_dagster = location.published()
    run(location.recipe, workspace=location.folder / "by_hand")
    by_hand = location._replace(folder=location.folder / "by_hand").folder / "datasets"
    assert by_dagster
    for path, content in by_dagster.items():
        if path.endswith(".parquet"):
            assert content == (by_hand / path).read_bytes(), path


def test_a_recipe_with_a_prefix_is_materialized_and_checked_under_it(
    location: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CURATION_ASSET_PREFIX", "mine")
    location.write(PLAIN)
    result = location.materialize(gates={"min_rows": 1000})
    assert not result.success
    measured = checks(result)
    assert not measured["mine/preference", "min_rows"].passed
    assert metadata(result, "mine__gates")["dagster/row_count"] > 0


def test_a_second_run_calls_no_model_and_leaves_every_data_version(
    scored: tuple[Location, dg.ExecuteInProcessResult],
) -> None:
    location, first = scored
    second = location.materialize()
    assert second.success

    def versions(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
        return {
            event.asset_key.to_user_string(): event.materialization.tags["dagster/data_version"]
            for event in result.get_asset_materialization_events()
            if event.asset_key
        }

    assert versions(first) == versions(second)
    for asset in ("embeddings", "refusals"):
        assert metadata(second, asset)["computed"] == 0
        assert metadata(second, asset)["reused"] == metadata(first, asset)["computed"] > 0
    assert metadata(second, "prompts")["since the last run"] == "unchanged"


def test_counts_versions_and_previews_are_shown_without_texts(
    scored: tuple[Location, dg.ExecuteInProcessResult],
) -> None:
    _, result = scored
    shown = metadata(result, "candidates")
    assert shown["dagster/row_count"] == 24
    assert shown["table version"] == 0
    assert shown["since the last run"] == "first written: 24 added"
    assert "candidate_id" in shown["preview"]
    everything = str([metadata(result, asset) for asset in ("inputs", "prompts", "candidates", "preference")])
    assert "People have known" not in everything
    assert "Tell me something" not in everything


@pytest.mark.parametrize("asset", ["candidates", "rewards", "refusals", "pair_scores", "preference", "retrieval"])
def test_the_key_plot_is_a_picture(scored: tuple[Location, dg.ExecuteInProcessResult], asset: str) -> None:
    plot = metadata(scored[1], asset)["plot"]
    _, _, encoded = plot.partition("base64,")
    assert base64.b64decode(encoded.rstrip(")")).startswith(b"\x89PNG")


def test_every_gate_is_a_check_on_the_dataset_that_it_measures(
    scored: tuple[Location, dg.ExecuteInProcessResult],
) -> None:
    found = checks(scored[1])
    assert found["preference", "max_tie_rate"].passed
    assert found["retrieval", "min_rows"].passed
    assert found["gates", "max_leaking_prompts"].metadata["threshold"].value == 0


def test_a_run_is_recorded_with_the_models_that_it_used(
    scored: tuple[Location, dg.ExecuteInProcessResult],
) -> None:
    runs = Workspace(scored[0].workspace).read("runs")
    assert runs["status"].to_list() == ["done"]
    assert "embeddings" in runs["computed"][0]


def test_a_failed_gate_blocks_publication_and_leaves_the_last_good_dataset(location: Location) -> None:
    location.write(PLAIN)
    assert location.materialize().success
    before = location.published()
    result = location.materialize(gates={"min_rows": 1000})
    assert not result.success
    failed = {e.step_key: e.step_failure_data for e in result.all_events if e.is_step_failure}
    assert set(failed) == {"publish_preference", "publish_preference_unpaired"}
    reason = failed["publish_preference"].user_failure_data
    assert reason is not None
    assert "min_rows: 12 rows; allowed is at least 1,000" in reason.description
    assert not checks(result)["preference", "min_rows"].passed
    assert location.published() == before
    runs = Workspace(location.workspace).read("runs").sort("finished_at")
    assert runs["status"].to_list() == ["done", "failed"]


def test_a_dataset_is_not_published_on_what_the_gates_said_of_other_rows(location: Location) -> None:
    location.write(PLAIN | {"gates": {"min_rows": 10, "max_size_change": 1.0}})
    assert location.materialize().success
    before = location.published()
    location.write(PLAIN | {"gates": {"min_rows": 10, "max_size_change": 1.0}}, rows=6)
    job = location.definitions().resolve_job_def("everything")
    names = ("inputs", "hygiene", "prompts", "candidates", "pairs", "pair_scores", "pair_labels", "preference")
    result = job.execute_in_process(
        instance=location.instance,
        raise_on_error=False,
        asset_selection=[dg.AssetKey(name) for name in (*names, "publish_preference")],
    )
    assert {e.step_key for e in result.all_events if e.is_step_failure} == {"publish_preference"}
    assert location.published() == before


def test_a_stage_that_was_tried_again_with_success_is_no_failure_of_the_run(location: Location) -> None:
    location.write(PLAIN)
    curation = CurationResource(
        workspace=str(location.workspace), recipe=str(location.recipe), changes=RecipeChanges()
    )
    log = dg.build_asset_context().log
    with pytest.raises(ConnectionError), curation.stage(log, "inputs"):
        raise ConnectionError
    with curation.stage(log, "inputs") as opened:
        run_stage(opened, stage_named("inputs"))
    curation.teardown_after_execution(dg.build_init_resource_context())
    assert Workspace(location.workspace).read("runs")["status"].to_list() == ["done"]


def test_changes_of_the_launchpad_hold_for_one_run(location: Location) -> None:
    location.write(PLAIN)
    assert not location.materialize(gates={"min_rows": 1000}).success
    assert location.materialize().success


def test_a_misspelt_change_says_which_keys_there_are(location: Location) -> None:
    location.write(PLAIN)
    result = location.materialize(gates={"max_tie_rat": 0.1})
    reason = next(e.step_failure_data for e in result.all_events if e.is_step_failure).user_failure_data
    assert reason is not None
    assert "unknown key 'gates.max_tie_rat' (did you mean 'max_tie_rate'?)" in reason.description


def test_a_stage_that_the_recipe_leaves_out_says_so(location: Location) -> None:
    location.write(PLAIN)
    assert "left out" in metadata(location.materialize(), "rewards")


def test_what_changed_since_the_last_run_is_counted(location: Location) -> None:
    location.write(PLAIN, rows=12)
    location.materialize()
    location.write(PLAIN, rows=15)
    assert metadata(location.materialize(), "prompts")["since the last run"].startswith("3 added")


def test_a_source_that_vanished_leaves_the_last_good_datasets(location: Location) -> None:
    location.write(PLAIN)
    location.materialize()
    before = location.published()
    (location.folder / "pairs.jsonl").unlink()
    result = location.materialize()
    assert not result.success
    (failure,) = [e.step_failure_data for e in result.all_events if e.is_step_failure]
    assert failure.user_failure_data is not None
    assert "pairs.jsonl" in failure.user_failure_data.description
    assert location.published() == before


def test_a_workspace_in_use_by_another_run_is_left_alone(location: Location) -> None:
    location.write(PLAIN)
    with Workspace(location.workspace).lock():
        result = location.materialize()
    assert not result.success
    assert not location.published()


def test_rejects_by_rule_and_gates_are_shown_beside_those_of_the_last_run(location: Location) -> None:
    location.write(PLAIN)
    first = location.materialize()
    assert "rejected by rule" not in metadata(first, "inputs")
    assert metadata(first, "gates")["gates that changed"] == "none"
    location.write(PLAIN, rows=14)
    lines = [json.loads(line) for line in (location.folder / "pairs.jsonl").read_text().splitlines()]
    lines[0]["rejected"] = lines[0]["chosen"]
    (location.folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    second = location.materialize(gates={"min_rows": 1000})
    assert "| chosen_equals_rejected | 0 | 1 |" in metadata(second, "inputs")["rejected by rule"]
    assert metadata(second, "prompts")["since the last run"].endswith("(12 rows before, 13 now)")
    changed = metadata(second, "gates")["gates that changed"].splitlines()
    assert changed[2] == "| preference | min_rows | 12 | 13 | 1 | 1000 | True | False |"

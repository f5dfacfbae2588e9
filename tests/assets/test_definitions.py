"""What Dagster loads: without warnings, quickly, and all of it described."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
import yaml

from assets.definitions import build_defs, defs
from curation.stages import STAGES

ROOT = Path(__file__).resolve().parents[2]
LOADED = "import sys; from assets.definitions import defs; defs(); print(*sys.modules)"


def test_the_definitions_are_loadable() -> None:
    dg.Definitions.validate_loadable(defs())


def test_dagster_validates_the_code_location_that_pyproject_names(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "dagster", "definitions", "validate", "-m", "assets.definitions"]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"DAGSTER_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'code_location_target_module = "assets.definitions"' in (ROOT / "pyproject.toml").read_text()


def test_loading_leaves_heavy_packages_alone() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", LOADED], cwd=ROOT, capture_output=True, text=True, check=True
    )
    heavy = {"torch", "transformers", "sentence_transformers", "datasets", "faiss", "sklearn", "altair"}
    assert heavy.isdisjoint(done.stdout.split())


def test_every_stage_is_an_asset_with_a_group_a_description_and_kinds() -> None:
    graph = build_defs().resolve_asset_graph()
    assert {key.to_user_string() for key in graph.materializable_asset_keys} == {stage.name for stage in STAGES}
    for key in graph.materializable_asset_keys:
        node = graph.get(key)
        assert node.description, key
        assert node.group_name != "default", key
        assert node.kinds, key
        assert not node.owners, key


def test_assets_depend_on_what_their_stages_need() -> None:
    graph = build_defs().resolve_asset_graph()
    for stage in STAGES:
        parents = {key.to_user_string() for key in graph.get(dg.AssetKey(stage.name)).parent_keys}
        assert parents == set(stage.needs)


def test_two_recipes_of_one_dagster_have_no_key_in_common(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = build_defs().resolve_asset_graph()
    monkeypatch.setenv("CURATION_ASSET_PREFIX", "mine")
    prefixed = build_defs()
    dg.Definitions.validate_loadable(prefixed)
    graph = prefixed.resolve_asset_graph()
    assert {key.to_user_string() for key in graph.get_all_asset_keys()} == {f"mine/{s.name}" for s in STAGES}
    for check in (plain.asset_check_keys, graph.asset_check_keys):
        assert check
    assert plain.asset_check_keys.isdisjoint(graph.asset_check_keys)
    for stage in STAGES:
        parents = {key.to_user_string() for key in graph.get(dg.AssetKey(["mine", stage.name])).parent_keys}
        assert parents == {f"mine/{name}" for name in stage.needs}


def test_assets_that_load_a_model_are_in_the_gpu_pool() -> None:
    pools = {asset.key.to_user_string(): asset.op.pool for asset in build_defs().assets or []}
    assert {name for name, pool in pools.items() if pool == "gpu"} == {s.name for s in STAGES if s.uses_model}


def test_the_schedule_is_daily_and_off() -> None:
    (schedule,) = build_defs().schedules or []
    assert schedule.cron_schedule == "0 4 * * *"
    assert schedule.default_status is dg.DefaultScheduleStatus.STOPPED


def test_the_sensor_is_off() -> None:
    (sensor,) = build_defs().sensors or []
    assert sensor.default_status is dg.DefaultSensorStatus.STOPPED


def test_one_job_materializes_and_checks_everything() -> None:
    job = build_defs().resolve_job_def("everything")
    assert {key.to_user_string() for key in job.asset_layer.executable_asset_keys} == {s.name for s in STAGES}
    checks = {key.name for node in job.asset_layer.asset_graph.asset_check_keys for key in [node]}
    assert "max_tie_rate" in checks


def test_the_production_example_is_valid_but_for_the_postgres_extra(tmp_path: Path) -> None:
    example = yaml.safe_load((ROOT / "docs" / "dagster-production.yaml").read_text())
    assert list(example.pop("storage")) == ["postgres"]
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(example))
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert instance.run_monitoring_enabled
        assert instance.run_retries_enabled

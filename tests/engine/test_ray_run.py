"""Whole runs with ``engine: ray`` on a Ray of their own: the same tables and datasets, and a clean end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
import yaml

from curation.demo import quickstart_recipe
from curation.engine import run_local
from curation.engine_ray import RayEngine
from curation.errors import EngineError, MissingExtraError, RecipeError
from curation.ledger import Ledger
from curation.pipeline import run
from curation.recipe import Ray, RayWorkers, Recipe, Reward, Source, load_recipe
from curation.stages.context import Context
from curation.stages.rewards import RewardStep
from curation.workspace import Workspace
from schemas import TABLES
from tests.engine.steps import Thirds, contents, items
from tests.stages.conftest import SMALL_RECIPE, sentences, with_rows

ROOT = Path(__file__).resolve().parents[2]
pytest.importorskip("ray")


def tables(workspace: Path) -> dict[str, pl.DataFrame]:
    """Every table but the record of the runs; a ledger's rows may lie in any order."""
    place = Workspace(workspace, create=False)
    found = {name: place.read(name) for name in TABLES if name != "runs"}
    return {name: table.sort(_texts(table)) for name, table in found.items()}


def _texts(table: pl.DataFrame) -> list[str]:
    return [name for name, dtype in table.schema.items() if dtype == pl.String]


def datasets(workspace: Path) -> dict[str, bytes]:
    folder = workspace / "datasets"
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.parquet"))}


def _run(recipe: Path, workspace: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """With as many threads as a worker of Ray has: sums of floats depend on it in their last digit."""
    code = "from curation.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "run", str(recipe), "--workspace", str(workspace), *options],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=1200,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.slow
def test_a_run_gives_the_same_tables_and_datasets_and_says_nothing_of_ray(tmp_path: Path) -> None:
    """With the models that pass something on: vectors, rewards made of them, and the policy. Each worker's start
    costs seconds; the whole quickstart is in ``benchmarks/ray_engine.py``."""
    changes = {"generation": [], "refusals": None, "ray": {"object_store_gb": 0.08}}
    folder = with_rows(tmp_path, sentences(24))
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(SMALL_RECIPE | changes))
    here, there = tmp_path / "here", tmp_path / "there"
    _run(recipe, here)
    done = _run(recipe, there, "--engine", "ray")
    assert " ray" not in (done.stdout + done.stderr).lower().replace("--engine ray", "")
    expected = tables(here)
    assert expected["preference"].height > 10
    for name, table in tables(there).items():
        assert table.equals(expected[name]), name
    assert datasets(there) == datasets(here)


def test_ctrl_c_keeps_what_was_under_way_and_ends_the_cluster(tmp_path: Path) -> None:
    log, workspace = tmp_path / "log", tmp_path / "w"
    command = [sys.executable, "-m", "tests.engine.test_ray_run", str(log), str(workspace)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True)
    step = Thirds(str(log))
    while len(step.begun()) < 3:
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of Ray's processes, too
    said, _ = process.communicate(timeout=600)
    assert "stopped in rewards after" in said
    ledger = Ledger(Workspace(workspace))
    assert ledger.workspace.read("rewards").height == 4 * len(set(step.begun())) < 400
    assert len(step.begun()) == len(set(step.begun()))
    run_local(step, items(range(400)), ledger)
    assert len(step.begun()) == len(set(step.begun())) == 100
    alone = Ledger(Workspace(tmp_path / "alone"))
    run_local(Thirds(str(tmp_path / "other")), items(range(400)), alone)
    assert contents(ledger).equals(contents(alone))


@pytest.mark.parametrize(
    ("address", "error", "said"),
    [
        ("127.0.0.1:1", EngineError, "nobody answers there"),
        ("ray://127.0.0.1:10001", RecipeError, "ray job submit"),
        ("somewhere", RecipeError, "expected host:port"),
    ],
)
def test_a_cluster_that_is_not_there_is_one_line(
    tmp_path: Path, address: str, error: type[Exception], said: str
) -> None:
    engine = RayEngine(Ray(address=address))
    with pytest.raises(error, match=said):
        engine.run(Thirds(str(tmp_path / "log")), items(range(4)), Ledger(Workspace(tmp_path / "w")))


def test_what_a_server_answers_stays_with_the_run(tmp_path: Path) -> None:
    nowhere = RayEngine(Ray(address="127.0.0.1:1"))
    context = Context(Workspace(tmp_path / "w"), Recipe(sources=(Source(path="nowhere.jsonl"),)), engine=nowhere)
    assert RewardStep(Reward(model="http://127.0.0.1:9/v1/score#m")).is_remote
    assert RewardStep(Reward(model="judge:http://127.0.0.1:9/v1#m")).is_remote
    assert not RewardStep(Reward()).is_remote
    step = Thirds(str(tmp_path / "log"))
    with pytest.raises(EngineError, match="nobody answers there"):
        context.compute(step, items(range(4)))
    object.__setattr__(step, "is_remote", True)
    assert context.compute(step, items(range(4))).computed == 4


def test_without_ray_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'preference-curation\[ray\]'"):
        RayEngine().run(Thirds(str(tmp_path / "log")), items(range(4)), Ledger(Workspace(tmp_path / "w")))


def test_an_engine_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="engine 'dask' is not there: expected one of local, ray"):
        run(quickstart_recipe(), workspace=tmp_path / "w", engine="dask")


def test_where_a_recipe_runs_is_no_part_of_its_hash() -> None:
    recipe = load_recipe(quickstart_recipe())
    elsewhere = load_recipe(quickstart_recipe(), changes={"engine": "ray", "ray": {"address": "10.0.0.1:6379"}})
    assert elsewhere.ray.address == "10.0.0.1:6379"
    assert elsewhere.content_hash == recipe.content_hash


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"workers": {"min": 3, "max": 2}}, "max may not be less"),
        ({"workers": {"cpus": 0}}, "a worker needs some of one"),
        ({"workers": {"gpus": 1.5}}, "above 1 it must be a whole number"),
        ({"steps": {"pairs": {"max": 2}}}, "ray.steps.pairs"),
    ],
)
def test_a_section_ray_that_cannot_be(section: dict[str, object], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        load_recipe(quickstart_recipe(), changes={"ray": section})


def main() -> None:
    """A run that a test interrupts."""
    log, workspace = sys.argv[1:]
    with RayEngine(Ray(workers=RayWorkers(max=1), cpus=2, object_store_gb=0.08)) as engine:
        try:
            engine.run(Thirds(log, pause=0.3), items(range(400)), Ledger(Workspace(workspace)))
        except BaseException as error:
            print(error)  # noqa: T201 - for the test
            raise


if __name__ == "__main__":
    main()

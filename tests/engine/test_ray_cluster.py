"""The Ray engine on two nodes, real processes here: the same as local, whatever goes wrong on the way."""

from __future__ import annotations

import os
import pickle
import random
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import psutil
import pytest

from curation.engine import run_local
from curation.engine_ray import RayEngine
from curation.errors import EngineError, ModelError
from curation.hygiene.duplicates import deduplicate
from curation.ledger import Ledger
from curation.models.judging import ReadBefore, reading
from curation.progress import LogProgress
from curation.ray_flow import _UNDER_WAY
from curation.ray_worker import Gate
from curation.recipe import (
    Encoder,
    Generation,
    Policy,
    Ray,
    RayWorkers,
    Recipe,
    RefusalDetection,
    Reward,
    Source,
)
from curation.stages.asked import requests
from curation.stages.context import Context
from curation.stages.embeddings import EmbeddingStep
from curation.stages.generations import GenerationStep
from curation.stages.head_features import StoredVectors
from curation.stages.policy_stats import PolicyStep
from curation.stages.refusal_step import RefusalStep
from curation.stages.requests import RequestStep
from curation.stages.rewards import RewardStep
from curation.streaming_batches import InBatches
from curation.text import prompt_id
from curation.workspace import Workspace
from tests.assets.conftest import PLAIN, Location
from tests.engine.steps import AllCut, Thirds, contents, items

os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_AUTO_CONNECT": "0"}
pytest.importorskip("ray")
# A thread of Ray Data's that still waits when its cluster goes ends with SystemExit; Python says nothing of those.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception in thread StreamingExecutor:pytest.PytestUnhandledThreadExceptionWarning"
)

_STORE = 80_000_000


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    """A cluster of two nodes with a CPU each; the first one is also the run's."""
    from ray.cluster_utils import Cluster

    # A node is given up after some seconds instead of half a minute, also on a machine that is busy.
    health = {
        "health_check_initial_delay_ms": 1000,
        "health_check_period_ms": 500,
        "health_check_failure_threshold": 6,
    }
    head = {"num_cpus": 1, "object_store_memory": _STORE, "include_dashboard": False, "_system_config": health}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    cluster.add_node(num_cpus=1, object_store_memory=_STORE)
    yield cluster
    cluster.shutdown()


@pytest.fixture(scope="module")
def engine(nodes: Any) -> Iterator[RayEngine]:
    with RayEngine(Ray(address=nodes.address, workers=RayWorkers(min=2, max=2), retries=1)) as opened:
        yield opened


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(Workspace(tmp_path / "workspace"))


def undisturbed(step: Thirds, inputs: pl.DataFrame, folder: Path) -> pl.DataFrame:
    """What a local run leaves."""
    local = Ledger(Workspace(folder / "local"))
    run_local(Thirds(str(folder / "local.log"), step.batch_rows, 0.0, step.failing, step.infinite), inputs, local)
    return contents(local)


def test_rows_failures_report_and_progress_are_those_of_a_local_run(
    engine: RayEngine, ledger: Ledger, tmp_path: Path
) -> None:
    step = Thirds(str(tmp_path / "log"), failing=(3, 17), infinite=(5, 90), together=2)
    said: list[str] = []
    report = engine.run(step, items(range(101)), ledger, progress=LogProgress(said.append))
    assert contents(ledger).equals(undisturbed(step, items(range(101)), tmp_path))
    assert (report.computed, report.reused, report.failed, report.tokens) == (97, 0, 4, 101)
    assert sorted(step.begun()) == list(range(0, 101, 4))
    assert len(step.workers()) == 2
    assert any("101 of 101 rows" in line for line in said)


def test_only_what_is_missing_is_computed_and_nothing_is_asked_of_the_cluster_when_nothing_is(
    engine: RayEngine, ledger: Ledger, tmp_path: Path
) -> None:
    step = Thirds(str(tmp_path / "log"), failing=(3,))
    run_local(step, items(range(20)), ledger)
    report = engine.run(step, items(range(24)), ledger)
    assert (report.computed, report.reused) == (4, 20)
    assert step.begun()[-1] == 20
    nowhere = RayEngine(Ray(address="127.0.0.1:1"))
    assert nowhere.run(step, items(range(24)), ledger).computed == 0
    assert nowhere.run(step, items([]), ledger).computed == 0


def test_a_worker_gets_options_and_no_model(tmp_path: Path) -> None:
    vectors = StoredVectors(Workspace(tmp_path / "w"), Encoder())
    vectors.encode(["a text that nobody has encoded before"])
    steps: list[Any] = [
        RewardStep(Reward(), vectors),
        EmbeddingStep(Encoder()),
        RefusalStep(RefusalDetection()),
        RequestStep(RefusalDetection()),
        PolicyStep(Policy()),
        InBatches(GenerationStep(Generation(), 0)),
    ]
    for step in steps:
        sent = pickle.dumps(step)
        assert len(sent) < 3_000, step.name
        assert pickle.loads(sent).key == step.key  # noqa: S301 - our own


def test_an_error_of_ours_in_a_worker_is_raised_as_it_is(engine: RayEngine, ledger: Ledger, tmp_path: Path) -> None:
    step = Thirds(str(tmp_path / "log"), broken="model")
    with pytest.raises(ModelError, match=r"^the weights are not there$"):
        engine.run(step, items(range(40)), ledger)


def test_a_judge_whose_replies_are_all_cut_is_asked_no_further_unless_it_was_read_before(
    engine: RayEngine, ledger: Ledger, tmp_path: Path
) -> None:
    step = AllCut(str(tmp_path / "log"), batch_rows=20)
    with pytest.raises(ModelError, match="the judge's first 20 replies were cut after 32 tokens"):
        engine.run(step, items(range(20)), ledger)
    with reading(ReadBefore(known=True)):
        assert engine.run(step, items(range(20)), ledger).computed == 20


def test_what_one_worker_could_read_all_know() -> None:
    gate = Gate(1)
    gate.can_be("judge")
    assert [gate.could_be(name) for name in ("judge", "sorter")] == [True, False]
    assert Gate(1, ReadBefore(known=True)).could_be("sorter")


def test_another_error_in_a_worker_is_one_line_that_names_it(
    engine: RayEngine, ledger: Ledger, tmp_path: Path
) -> None:
    step = Thirds(str(tmp_path / "log"), broken="bug")
    with pytest.raises(
        ModelError, match=r"rewards: a worker failed with ZeroDivisionError \(steps.py:\d+: a bug in a step\)"
    ):
        engine.run(step, items(range(40)), ledger)


def test_a_batch_that_takes_too_long_is_tried_once_and_the_rest_is_kept(
    nodes: Any, ledger: Ledger, tmp_path: Path
) -> None:
    log = str(tmp_path / "log")
    options = Ray(address=nodes.address, workers=RayWorkers(min=2, max=2), retries=1)
    with (
        RayEngine(options, batch_timeout_seconds=3) as engine,
        pytest.raises(ModelError, match=r"rewards: a batch of 4 rows was not done in 3 s, .*section rewards"),
    ):
        engine.run(Thirds(log, hanging=22), items(range(32)), ledger)
    assert Counter(Thirds(log).begun())[20] == 1
    kept = ledger.workspace.read("rewards").height
    assert kept >= 4
    assert run_local(Thirds(log), items(range(32)), ledger).computed == 32 - kept


@pytest.mark.parametrize("fault", ["deadly", "out_of_memory"])
def test_a_batch_that_ends_its_worker_is_tried_a_few_times_and_the_rest_is_kept(
    engine: RayEngine, ledger: Ledger, tmp_path: Path, fault: str
) -> None:
    log = str(tmp_path / "log")
    with pytest.raises(
        ModelError, match="a batch of 4 rows ended its worker 2 times, most often for lack of memory"
    ):
        engine.run(Thirds(log, pause=0.05, **{fault: 22}), items(range(32)), ledger)
    assert Counter(Thirds(log).begun())[20] == 2
    kept = ledger.workspace.read("rewards").height
    report = engine.run(Thirds(log), items(range(32)), ledger)
    assert (report.reused, report.computed) == (kept, 32 - kept)
    assert contents(ledger).equals(undisturbed(Thirds(log), items(range(32)), tmp_path))


def test_no_node_is_large_enough(nodes: Any, engine: RayEngine, ledger: Ledger, tmp_path: Path) -> None:
    engine.cluster.connected()
    large = RayEngine(Ray(address=nodes.address, steps={"rewards": RayWorkers(gpus=0.5)}))
    with pytest.raises(
        EngineError, match=r"large enough for a worker with 1 CPU, 0.5 GPU: its 2 nodes have at most"
    ):
        large.run(Thirds(str(tmp_path / "log")), items(range(8)), ledger)


def test_a_cluster_without_room_is_waited_for_so_long_and_no_longer(
    nodes: Any, engine: RayEngine, ledger: Ledger, tmp_path: Path
) -> None:
    engine.cluster.connected()
    busy = RayEngine(Ray(address=nodes.address, workers=RayWorkers(gpus=1, max=1), wait_seconds=0.5))
    with pytest.raises(EngineError, match=r"no room for a worker for \d+ s; it needs 1 CPU, 1 GPU, and free are"):
        busy.run(Thirds(str(tmp_path / "log")), items(range(8)), ledger)


def test_a_model_in_process_answers_on_the_cluster_as_it_does_here(engine: RayEngine, tmp_path: Path) -> None:
    prompts = items(range(6)).select("messages")
    prompts = prompts.with_columns(prompt_id=pl.Series([prompt_id(m) for m in prompts["messages"].to_list()]))
    recipe = Recipe(sources=(Source(path="nowhere.jsonl"),))
    step = GenerationStep(Generation(samples=2, max_new_tokens=6, batch_rows=4), 0)
    asked = requests(prompts, 2)
    answers = []
    for name, where in (("here", None), ("there", engine)):
        context = Context(Workspace(tmp_path / name), recipe, engine=where)
        report = context.compute_stream(step, asked)
        assert (report.computed, report.failed) == (12, 0)
        answers.append(context.workspace.read("generations").sort("request_id"))
        assert context.compute_stream(step, asked).computed == 0
    assert answers[0].equals(answers[1])


def test_near_duplicates_are_the_same_when_workers_make_the_signatures(
    engine: RayEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("curation.engine_ray.TEXTS_IN_A_BATCH", 150)
    draw = random.Random(0)
    texts = [" ".join(draw.choices(["a", "bc", "def", "ghij", "k"], k=12)) for _ in range(200)]
    copies = [text.replace("bc", "cb", 1) for text in draw.sample(texts, 100)]
    frame = pl.DataFrame({"text": [*texts, *copies]})
    there = deduplicate(frame, column="text", method="minhash", threshold=0.5, keys=engine.band_keys)
    here = deduplicate(frame, column="text", method="minhash", threshold=0.5)
    assert there.rejects.height > 50
    assert there.rejects.equals(here.rejects)
    assert there.kept.equals(here.kept)


def test_a_run_of_dagster_computes_on_the_cluster_of_its_recipe(
    nodes: Any, engine: RayEngine, tmp_path: Path
) -> None:
    engine.cluster.connected()
    with dg.DagsterInstance.ephemeral() as instance:
        location = Location(tmp_path / "place", instance)
        process = [{"model": "python:tests.engine.steps:process_number", "batch_rows": 4}]
        ray = {"address": nodes.address}
        location.write(PLAIN | {"rewards": process, "engine": "ray", "ray": ray, "gates": {"max_tie_rate": 1.0}})
        assert location.materialize().success
        processes = set(Workspace(location.workspace).read("rewards")["rewards"].explode())
        assert processes
        assert os.getpid() not in processes


def test_a_node_that_is_killed_costs_the_batches_that_it_had(
    nodes: Any, engine: RayEngine, ledger: Ledger, tmp_path: Path
) -> None:
    """The last test: it leaves the cluster with one node."""
    step = Thirds(str(tmp_path / "log"), pause=0.1, failing=(7,), infinite=(200,), together=2)
    victim = nodes.list_all_nodes()[1]
    raylet = psutil.Process(victim.all_processes["raylet"][0].process.pid)
    over, killed = threading.Event(), threading.Event()

    def kill() -> None:
        on_victim: set[int] = set()
        while not on_victim or len(step.begun()) < 20:
            if over.wait(0.05):
                return
            on_victim = {p.pid for p in raylet.children(recursive=True)} & step.workers()
        for process in [raylet, *raylet.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):  # a worker ends by itself when its raylet is gone
                process.send_signal(signal.SIGKILL)
        killed.set()

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        report = engine.run(step, items(range(300)), ledger)
    finally:
        over.set()
        killer.join()
    assert killed.is_set()
    begun = Counter(step.begun())
    assert contents(ledger).equals(undisturbed(step, items(range(300)), tmp_path))
    assert (report.computed, report.failed, report.twice) == (298, 2, 0)
    assert len(step.workers()) >= 2
    assert set(begun) == set(range(0, 300, 4))
    assert begun.total() - len(begun) <= 2 * _UNDER_WAY

"""A model that hangs, or for which there is no memory: one line, what was finished is kept, the process ends."""

from __future__ import annotations

import ctypes
import errno
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from curation.batch_limits import each_watched, is_out_of_memory, opening, watched
from curation.engine import Batch, failures_frame, run_local
from curation.errors import ModelError
from curation.ledger import Ledger, LedgerKey
from curation.recipe import Recipe
from curation.text import content_hash
from curation.workspace import Workspace
from tests.forgetting.test_forget import BARE, Place
from tests.stages.conftest import ROOT, sentences

ROWS = 12
_MUTEX_BYTES = 64


def items() -> pl.DataFrame:
    return pl.DataFrame({"candidate_id": [content_hash("row", str(n)) for n in range(ROWS)], "number": range(ROWS)})


@dataclass(frozen=True)
class Breaking:
    """A real step without a model; in the batch that holds row 8 something goes wrong."""

    goes_wrong: Callable[[], object]
    batch_rows: int = 4
    name: str = "rewards"

    @property
    def key(self) -> LedgerKey:
        return LedgerKey("rewards", "candidate_id", "model", "breaking@1")

    def open(self) -> Breaking:
        return self

    def __call__(self, batch: pl.DataFrame) -> Batch:
        if 8 in batch["number"]:
            self.goes_wrong()
        return Batch(
            batch.select("candidate_id", rewards=pl.concat_list(pl.col("number") * 2.0)), failures_frame([])
        )


def nothing() -> None:
    """Nothing goes wrong."""


def waits_in_python() -> None:
    while True:
        time.sleep(60)


def waits_until_its_time_is_over() -> None:
    """However much it has, which passes at once: batches that end well may take theirs on any machine."""
    assert signal.getitimer(signal.ITIMER_REAL)[0] > 0
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    waits_in_python()


def waits_in_c() -> None:
    _deadlock(ctypes.CDLL(None))


def waits_with_the_lock_of_python() -> None:
    _deadlock(ctypes.PyDLL(None))


def _deadlock(library: Any) -> None:
    """A lock that is taken twice: no signal gets through, as in a driver that waits for a lost device."""
    mutex = ctypes.create_string_buffer(_MUTEX_BYTES)
    library.pthread_mutex_lock(mutex)
    library.pthread_mutex_lock(mutex)


def raises(error: BaseException) -> Callable[[], object]:
    def now() -> None:
        raise error

    return now


def kept(workspace: Workspace) -> int:
    return workspace.read("rewards").height


def test_a_batch_that_takes_too_long_ends_the_run_and_the_rest_is_kept(tmp_path: Path) -> None:
    space = Workspace(tmp_path)
    with pytest.raises(ModelError, match=r"rewards: a batch of 4 rows was not done in 600 s.*section rewards"):
        run_local(Breaking(waits_until_its_time_is_over), items(), Ledger(space), timeout=600)
    assert kept(space) == 8
    report = run_local(Breaking(nothing), items(), Ledger(space), timeout=60)
    assert (report.computed, report.reused) == (4, 8)


@pytest.mark.parametrize("hanging", ["waits_in_c", "waits_with_the_lock_of_python"])
def test_a_process_that_hangs_for_good_ends_with_status_1_and_lets_its_workspace_go(
    tmp_path: Path, hanging: str
) -> None:
    # On a busy machine the two batches that end well may take longer, and the last end come before the one that is
    # gentler.
    code = f"""
import tests.test_batch_limits as t
from curation import batch_limits, engine
from curation.ledger import Ledger
from curation.workspace import Workspace
batch_limits.GRACE, watched, hangs = 0.3, engine.watched, iter([False, False, True])
engine.watched = lambda step, rows, seconds: watched(step, rows, seconds if next(hangs) else None)
if {hanging == "waits_in_c"}:
    batch_limits.faulthandler.dump_traceback_later = lambda *_, **__: None
space = Workspace({str(tmp_path)!r})
with space.lock():
    engine.run_local(t.Breaking(t.{hanging}), t.items(), Ledger(space), timeout=1)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False, timeout=900
    )
    assert done.returncode == 1
    if hanging == "waits_in_c":
        (line,) = (line for line in done.stderr.splitlines() if line)
        assert line.startswith("error: rewards: a batch of 4 rows was not done in 1 s")
    else:
        assert "Timeout" in done.stderr
        assert "_deadlock" in done.stderr
    space = Workspace(tmp_path)
    assert kept(space) == 8
    with space.lock():
        assert run_local(Breaking(nothing), items(), Ledger(space)).computed == 4


@dataclass(frozen=True)
class NeverLoaded(Breaking):
    """Its model never comes, as from a device that is lost."""

    def open(self) -> Breaking:
        self.goes_wrong()
        return self


def test_a_model_that_is_never_loaded_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("curation.batch_limits.OPENING_AT_LEAST", 0.2)
    with pytest.raises(ModelError, match=r"rewards: the model was not loaded in 0.4 s.*batch_timeout_seconds"):
        run_local(NeverLoaded(waits_in_python), items(), Ledger(Workspace(tmp_path)), timeout=0.1)
    assert run_local(NeverLoaded(nothing), items(), Ledger(Workspace(tmp_path)), timeout=60).computed == ROWS


def test_loading_may_take_an_hour_however_short_a_batch_is(monkeypatch: pytest.MonkeyPatch) -> None:
    allowed: list[float] = []
    monkeypatch.setattr(signal, "setitimer", lambda which, seconds: allowed.append(seconds))
    for seconds in (1.0, 3600.0):
        with opening("rewards", seconds):
            pass
    with opening("rewards", None):
        pass
    assert [one for one in allowed if one] == [3600.0, 14400.0]


def test_a_batch_that_is_done_leaves_no_watch_behind() -> None:
    before = set(threading.enumerate())
    for _ in range(20):
        with watched("rewards", 1, 600):
            pass
    for thread in set(threading.enumerate()) - before:
        thread.join(300)
        assert not thread.is_alive()


def test_a_model_that_draws_its_own_batches_may_wait_so_long_for_each_result() -> None:
    def drawn() -> Iterator[int]:
        yield from range(3)
        waits_until_its_time_is_over()

    found = each_watched(drawn(), "generations", 600.0)
    assert [next(found) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ModelError, match="generations: no result came in 600 s"):
        next(found)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"
        ),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
)
def test_no_memory_is_one_line_that_names_the_setting_to_lower(tmp_path: Path, error: Exception) -> None:
    space = Workspace(tmp_path)
    with pytest.raises(ModelError) as found:
        run_local(Breaking(raises(error)), items(), Ledger(space))
    assert "rewards: memory ran out on a batch of 4 rows. Lower batch_rows of section rewards" in str(found.value)
    assert kept(space) == 8
    assert run_local(Breaking(nothing, batch_rows=1), items(), Ledger(space)).computed == 4


def test_what_torch_says_without_memory_is_known() -> None:
    import torch

    with pytest.raises(RuntimeError) as found:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(found.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_any_other_error_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="shapes"):
        run_local(Breaking(raises(RuntimeError("shapes"))), items(), Ledger(Workspace(tmp_path)))


def test_a_run_from_the_command_line_whose_reward_model_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck = tmp_path / "stuck"
    stuck.touch()
    reward = {"rewards": [{"model": "python:tests.faults.place:reward", "batch_rows": 4}], "mutations": None}
    place = Place(tmp_path / "place", **reward)
    place.write(sentences(6))
    place.recipe.write_text(yaml.safe_dump(BARE | reward | {"batch_timeout_seconds": 1}))
    monkeypatch.setenv("FAULTS_STUCK", str(stuck))
    command = [
        sys.executable,
        "-m",
        "curation.cli",
        "run",
        str(place.recipe),
        "--workspace",
        str(place.folder / "w"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 1
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert "rewards: a batch of 4 rows was not done in 1 s, the recipe's batch_timeout_seconds" in line
    assert "Traceback" not in done.stderr
    assert place.workspace.read("runs")["status"].to_list() == ["failed"]
    stuck.unlink()
    place.recipe.write_text(yaml.safe_dump(BARE | reward))
    place.run()
    assert sorted(place.workspace.read("runs")["status"]) == ["done", "failed"]


def test_the_time_out_is_no_part_of_what_decides_a_result() -> None:
    one, other = (Recipe.model_validate(BARE | {"batch_timeout_seconds": seconds}) for seconds in (5, None))
    assert one.content_hash == other.content_hash

"""How numbered batches flow through a pool of Ray actors and back, until all are there or the run is to stop.

Ray Data starts the actors, feeds them, moves them off nodes that die, and holds its output back when the run is
slower. Here is what it leaves open: a stop that waits for what is under way, an end to a batch that kills every
worker, and a message instead of a wait without end when there is no room.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from curation import errors
from curation.batch_limits import too_long
from curation.engine import Batch, Mapped
from curation.errors import KEPT, CurationError, EngineError, ModelError
from curation.models.identity import named_commits
from curation.ray_cluster import Cluster
from curation.ray_worker import Caught, Result, StepWorker, result_from
from curation.recipe.ray import Ray

__all__ = ["Flow", "Numbered"]

_UNDER_WAY: Final = 2
"""Batches that a worker has: one that it computes, and one that waits so that the worker never does."""
_LOOK_EVERY: Final = 0.1
_LOOK_AT_CLUSTER_EVERY: Final = 2.0
_TOGETHER: Final = 64
_SECONDS_TO_END: Final = 10.0
_GB: Final = 1e9


class Numbered(NamedTuple):
    """A batch that is done."""

    number: int
    height: int
    """rows that went in."""
    batch: Batch


@dataclass
class Flow:
    """Batches of one step through one pool of workers."""

    step: Mapped
    cluster: Cluster
    gate: Any
    options: Ray
    interrupted: Callable[[], bool]
    timeout: float | None = None
    """Seconds that a batch may take."""
    _waiting: dict[int, int] = field(default_factory=dict)
    _stopping: bool = False
    _began: bool = False
    _error: CurationError | None = None

    def results(self, window: Sequence[Mapping[str, Any]]) -> Iterator[list[Numbered]]:
        """What comes back, as many at a time as are there.

        Raises:
            EngineError, ModelError: when everything that was under way has come back.
        """
        self._waiting = {item["number"]: item["height"] for item in window}
        with _Reader(self._dataset(window)) as reader:
            started = looked = time.monotonic()
            while self._waiting:
                if self.interrupted() or self._error is not None:
                    self._stop()
                found = list(self._done(reader.take()))
                if found:
                    yield found
                elif reader.over and self._waiting:
                    raise self._ended_early(reader.caught.error)
                elif time.monotonic() - looked > _LOOK_AT_CLUSTER_EVERY:
                    looked = time.monotonic()
                    self._watch(looked - started)
        if self._error is not None:
            raise self._error

    def _dataset(self, window: Sequence[Mapping[str, Any]]) -> Any:
        """Ray Data's side: its rows are results. Blocks are made here, so reading takes no CPU of the cluster."""
        ray = self.cluster.connected()
        workers = self.options.workers_of(self.step.name)
        most = workers.max or self.cluster.most_workers(workers)
        rows = [{"number": item["number"], "rows": item["rows"]} for item in window]
        return ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            StepWorker,
            fn_constructor_args=(self.step, self.gate, self.timeout, named_commits()),
            batch_size=1,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(
                min_size=min(workers.min, most), max_size=most, max_tasks_in_flight_per_actor=_UNDER_WAY
            ),
            num_cpus=workers.cpus,
            num_gpus=workers.gpus or None,
            memory=None if workers.memory_gb is None else workers.memory_gb * _GB,
        )

    def _done(self, results: Iterable[Result]) -> Iterator[Numbered]:
        for result in results:
            height = self._waiting.pop(result.number, None)
            if height is None:
                continue
            self._began = True
            if result.batch is not None:
                yield Numbered(result.number, height, result.batch)
            elif result.status == "gave_up":
                self._error = self._error or self._gave_up(height)
            elif result.status == "too_long":
                self._error = self._error or ModelError(too_long(self.step.name, height, self.timeout or 0))
            elif result.error is not None:
                self._error = self._error or self._raised(*result.error)

    def _stop(self) -> None:
        """Begin no more batches, and wait for no others than those that have been begun."""
        if not self._stopping:
            self._stopping = True
            begun = set(self.cluster.connected().get(self.gate.stop.remote()))
            self._waiting = {number: rows for number, rows in self._waiting.items() if number in begun}

    def _watch(self, seconds: float) -> None:
        """Whether anything is going to happen at all."""
        ray = self.cluster.connected()
        workers = self.options.workers_of(self.step.name)
        if not self._began:
            self._began = ray.get(self.gate.begun.remote()) > 0
        if not self._began and seconds > self.options.wait_seconds:
            raise EngineError(
                f"{self.step.name}: the Ray cluster had no room for a worker for {seconds:.0f} s; it needs "
                f"{self.cluster.needed(workers)}, and free are {self.cluster.free()}. Wait for other work to end, "
                f"ask for less under ray.workers or ray.steps, or raise ray.wait_seconds; what is finished is kept"
            )
        if workers.max is None:
            self.cluster.most_workers(workers)

    def _raised(self, name: str, message: str) -> CurationError:
        """What a worker raised: an error of ours as it is, any other by its name."""
        kind = getattr(errors, name, None)
        if kind is None:
            return ModelError(f"{self.step.name}: a worker failed with {name} ({message}). {KEPT}")
        error: CurationError = kind.__new__(kind)
        Exception.__init__(error, message)
        return error

    def _gave_up(self, height: int) -> ModelError:
        tries = 1 + self.options.retries
        return ModelError(
            f"{self.step.name}: a batch of {height:,} rows ended its worker {tries} times, most often for lack of "
            f"memory: lower the step's batch_rows, or give its workers more memory_gb or fewer a node under "
            f"ray.steps. {KEPT}"
        )

    def _ended_early(self, error: BaseException | None) -> CurationError:
        if error is None:
            return EngineError(
                f"{self.step.name}: Ray gave {len(self._waiting):,} batches back without a result. {KEPT}"
            )
        root = _root(error)
        found = " ".join(str(root).split())[:300]
        return EngineError(f"{self.step.name}: Ray ended with {type(root).__name__}: {found}. {KEPT}")


class _Reader(threading.Thread):
    """Reads results in a thread, so that the run can look at Ctrl-C and at the cluster meanwhile."""

    def __init__(self, dataset: Any) -> None:
        super().__init__(name="ray-results", daemon=True)
        self.caught = Caught()
        self._dataset = dataset
        self._left = threading.Event()
        self._found: queue.Queue[Result] = queue.Queue(_TOGETHER)

    @property
    def over(self) -> bool:
        """Whether nothing is to come any more."""
        return not self.is_alive() and self._found.empty()

    def take(self) -> list[Result]:
        """What is there; waits a moment for something."""
        try:
            found = [self._found.get(timeout=_LOOK_EVERY)]
        except queue.Empty:
            return []
        with contextlib.suppress(queue.Empty):
            while len(found) < _TOGETHER:
                found.append(self._found.get_nowait())
        return found

    def run(self) -> None:
        with self.caught:
            for packed in self._dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                for result in result_from(packed):
                    if not self._put(result):
                        return

    def _put(self, result: Result) -> bool:
        while not self._left.is_set():
            with contextlib.suppress(queue.Full):
                self._found.put(result, timeout=_LOOK_EVERY)
                return True
        return False

    def __enter__(self) -> _Reader:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        """End the workers, also those of batches that nobody waits for any more."""
        self._left.set()
        executor = getattr(self._dataset, "_current_executor", None)
        if executor is not None:
            executor.shutdown(force=True)
            # It asks Ray for results until it notices; once Ray is gone, that is an error in a thread of Ray's.
            executor.join(_SECONDS_TO_END)
        self.join(_SECONDS_TO_END)


def _root(error: BaseException) -> BaseException:
    """What happened in the worker, under Ray's wrappers; one that only says whose fault it is is not looked at."""
    while (cause := getattr(error, "cause", None) or error.__cause__) is not None:
        if type(cause).__name__ == "SystemException":
            break
        error = cause
    return error

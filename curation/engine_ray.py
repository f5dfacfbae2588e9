"""The engine on Ray: missing rows go through Ray Data's actor pools, and results to the same ledger as ever.

A worker is an actor that gets the step (options, no model) and loads the model once. Each batch that comes back is
kept at once, so a run that is killed loses only what was under way; a node that dies costs the batches that it had.
Paid answers of servers are not sent from workers: they stay with :mod:`curation.sender` on the run's own machine,
where a run that is killed still gets them. How one window of batches flows is in :mod:`curation.ray_flow`, what
runs on the nodes in :mod:`curation.ray_worker`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from curation.engine import Batch, Done, Mapped, Step, StepReport, run_step
from curation.hygiene.band_step import BandStep
from curation.hygiene.bands import Bands, band_keys
from curation.interrupts import interrupts
from curation.ledger import Ledger
from curation.models.judging import read_elsewhere
from curation.progress import ProgressSink
from curation.ray_cluster import Cluster
from curation.ray_flow import Flow, Numbered
from curation.ray_worker import Gate, frame_bytes
from curation.recipe.ray import Ray

__all__ = ["RayEngine"]

TEXTS_IN_A_BATCH = 20_000
"""For MinHash, which has no section of its own in the recipe."""
_WINDOW_BYTES: Final = 512 * 2**20
_WINDOW_BATCHES: Final = 10_000
"""Of what is in Ray's shared memory at a time: what a run needs there does not grow with its table."""


@dataclass
class RayEngine:
    """Runs steps on a cluster. One is opened for a run and closed at its end; it starts nothing before its use."""

    options: Ray = field(default_factory=Ray)
    batch_timeout_seconds: float | None = None
    cluster: Cluster = field(init=False)

    def __post_init__(self) -> None:
        self.cluster = Cluster(self.options)

    def __enter__(self) -> RayEngine:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the cluster; what this run started is ended."""
        self.cluster.close()

    def run(
        self,
        step: Step,
        inputs: pl.DataFrame,
        ledger: Ledger,
        *,
        progress: ProgressSink | None = None,
        again: pl.DataFrame | None = None,
    ) -> StepReport:
        """:func:`curation.engine.run_local`, on the cluster: the same rows, failures, report and errors.

        Raises:
            EngineError: when the cluster cannot be used.
            ModelError: when one batch ended its worker again and again; what is finished is kept.
        """

        def mapping(step: Step, missing: pl.DataFrame, interrupted: Callable[[], bool]) -> Iterator[Done]:
            with contextlib.closing(self._results(step, missing, interrupted)) as results:
                for together in results:
                    yield _joined(together)

        return run_step(step, inputs, ledger, mapping=mapping, progress=progress, again=again)

    def band_keys(self, texts: pl.Series, *, plan: Bands, n: int, seed: int) -> npt.NDArray[np.uint64]:
        """:func:`curation.hygiene.bands.band_keys` on the cluster; here, where one batch would hold all texts."""
        step = BandStep(plan, n, seed, batch_rows=TEXTS_IN_A_BATCH)
        if len(texts) <= step.batch_rows:
            return band_keys(texts, plan=plan, n=n, seed=seed)
        keys: npt.NDArray[np.uint64] = self.map(step, texts.to_frame("text"))["keys"].to_numpy()
        return keys

    def map(self, step: Mapped, frame: pl.DataFrame) -> pl.DataFrame:
        """The rows that a step makes of a frame, in its order, without a ledger. The step may not fail on rows."""
        with interrupts() as interrupted, contextlib.closing(self._results(step, frame, interrupted)) as results:
            found = sorted((numbered for together in results for numbered in together), key=lambda one: one.number)
        if interrupted():
            raise KeyboardInterrupt
        return pl.concat([one.batch.rows for one in found])

    def _results(
        self, step: Mapped, frame: pl.DataFrame, interrupted: Callable[[], bool]
    ) -> Generator[Sequence[Numbered], None, None]:
        """Batches that came back, as many as are there at a time, in any order."""
        ray = self.cluster.connected()
        timeout = self.batch_timeout_seconds
        flow = Flow(step, self.cluster, self._gate(ray), self.options, interrupted, timeout)
        for window in _windows(frame, step.batch_rows):
            yield from flow.results(window)
            if interrupted():
                return

    def _gate(self, ray: Any) -> Any:
        """On the run's own node: when that is gone, so is the run."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        gate = ray.remote(Gate).options(num_cpus=0, scheduling_strategy=here)
        return gate.remote(1 + self.options.retries, read_elsewhere())


def _windows(frame: pl.DataFrame, batch_rows: int) -> Iterator[list[dict[str, Any]]]:
    """Numbered batches as bytes, so many at a time as may lie in Ray's memory."""
    window: list[dict[str, Any]] = []
    size = 0
    for number, batch in enumerate(frame.iter_slices(batch_rows)):
        rows = frame_bytes(batch)
        window.append({"number": number, "rows": rows, "height": batch.height})
        size += len(rows)
        if size >= _WINDOW_BYTES or len(window) >= _WINDOW_BATCHES:
            yield window
            window, size = [], 0
    if window:
        yield window


def _joined(together: Sequence[Numbered]) -> Done:
    """Batches that are there together, to be kept in one commit."""
    batches = [one.batch for one in together]
    rows = pl.concat([b.rows for b in batches], how="vertical_relaxed")
    failures = pl.concat([b.failures for b in batches], how="vertical_relaxed")
    height = sum(one.height for one in together)
    return Done(height, Batch(rows, failures, sum(b.tokens for b in batches), sum(b.cost for b in batches)))

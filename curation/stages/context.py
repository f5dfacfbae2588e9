"""What every stage gets and gives back. No stage is here."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import polars as pl

from curation.engine import Step, StepReport, run_local
from curation.engine_ray import RayEngine
from curation.hygiene.bands import BandKeys
from curation.ledger import Ledger
from curation.models.judging import ReadBefore, reading
from curation.progress import ProgressSink, SilentProgress
from curation.recipe import Recipe
from curation.sender import RemoteStep, run_apart
from curation.stages.spending import served
from curation.streaming import Budget, run_stream
from curation.streaming_batches import InBatches, is_limited
from curation.tables import concat_rejects, empty_rejects, validated
from curation.workspace import Workspace
from schemas import TABLES

__all__ = ["Context", "Stage", "StageResult"]


class StageResult(NamedTuple):
    """What a stage did: for the terminal, the report and the Dagster UI."""

    stage: str
    rows: int
    rejected: int
    facts: Mapping[str, Any]
    """plain values by name; keys read well as labels."""


@dataclass
class Context:
    """Where a stage reads and writes, and how it is set up.

    Attributes:
        limit: read only so many rows of each source.
        reports: what each model step of this run did; stages add to it.
    """

    workspace: Workspace
    recipe: Recipe
    progress: ProgressSink = field(default_factory=SilentProgress)
    limit: int | None = None
    retry_failed: bool = False
    reports: list[StepReport] = field(default_factory=list)
    engine: RayEngine | None = None
    """Where models run; None for this process."""
    gates_measured: bool = False
    """Whether stage ``gates`` has looked at the tables of this run."""
    run_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    """Of this run in table ``runs``; one that is in no record where nobody records it."""

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.workspace)

    @property
    def band_keys(self) -> BandKeys | None:
        """Who computes MinHash band keys: the cluster, or None for this process."""
        return None if self.engine is None else self.engine.band_keys

    def compute(self, step: Step, inputs: pl.DataFrame, *, again: pl.DataFrame | None = None) -> StepReport:
        """Bring a step's ledger up to date with its inputs.

        Args:
            again: rows of the ledger that are out of date; with ``retry_failed``, so are those that failed in part.
        """
        again = self.out_of_date(step, inputs, again)
        if self.retry_failed:
            self.ledger.forget_failures(step.key)
        options: dict[str, Any] = {"progress": self.progress, "again": again}
        with reading(ReadBefore(self.ledger.has_rows(step.key))):
            report = self._computed(step, inputs, options)
        self.reports.append(report)
        return report

    def out_of_date(self, step: Step, inputs: pl.DataFrame, again: pl.DataFrame | None) -> pl.DataFrame | None:
        """The rows of the ledger that :meth:`compute` replaces."""
        if not self.retry_failed:
            return again
        partial = self.ledger.partial(step.key, inputs[step.key.id_column])
        if again is None:
            return partial
        return pl.concat([again, partial]).unique(step.key.id_column, maintain_order=True)

    def _computed(self, step: Step, inputs: pl.DataFrame, options: dict[str, Any]) -> StepReport:
        if getattr(step, "is_remote", False):
            # A server does the work, and its answers are paid for: they stay with this process.
            with served(self, step) as ours:
                report = run_local(ours, inputs, self.ledger, **options)
            return report._replace(estimated=ours.paid.estimated)
        if self.engine is not None:
            return self.engine.run(step, inputs, self.ledger, **options)
        return run_local(step, inputs, self.ledger, timeout=self.recipe.batch_timeout_seconds, **options)

    def compute_stream(self, step: RemoteStep, inputs: pl.DataFrame, *, budget: Budget | None = None) -> StepReport:
        """:meth:`compute` for a step whose results are paid for one by one."""
        if self.engine is not None and not step.is_remote and not is_limited(step, inputs, budget):
            report = self._compute_batches(step, inputs)
            self.reports.append(report)
            return report
        options: dict[str, Any] = {"progress": self.progress, "retry_failed": self.retry_failed, "budget": budget}
        if step.is_remote:
            report = run_apart(step, inputs, self.ledger, **options)
        else:
            report = run_stream(step, inputs, self.ledger, timeout=self.recipe.batch_timeout_seconds, **options)
        self.reports.append(report)
        return report

    def _compute_batches(self, step: RemoteStep, inputs: pl.DataFrame) -> StepReport:
        """A streaming step whose model runs on the cluster. What a run without one has left over is kept first."""
        assert self.engine is not None
        options: dict[str, Any] = {"progress": self.progress}
        run_stream(step, inputs.clear(), self.ledger, retry_failed=self.retry_failed, **options)
        return self.engine.run(InBatches(step), inputs, self.ledger, **options)

    def write(
        self,
        stage: str,
        table: str,
        frame: pl.DataFrame,
        *,
        rejects: pl.DataFrame | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> StageResult:
        """Validate a table, write it, and replace this stage's rejects by the present ones."""
        kept, invalid = validated(table, frame, stage=stage)
        self.workspace.overwrite(table, kept)
        rejected = self.write_rejects(stage, invalid, rejects)
        return StageResult(stage, kept.height, rejected, dict(facts or {}))

    def write_rejects(self, stage: str, *rejects: pl.DataFrame | None) -> int:
        """Replace the rejects of a stage; returns how many there are."""
        given = concat_rejects(*(r for r in rejects if r is not None))
        ours = given.with_columns(stage=pl.lit(stage))
        kept, invalid = validated(
            "rejects", ours.unique(["table", "row_id", "rule"], maintain_order=True), stage=stage
        )
        assert invalid.is_empty(), "a reject that is not valid itself"
        self.workspace.overwrite("rejects", kept, where=("stage", stage))
        return kept.height

    def clear(self, stage: str) -> None:
        """Forget the rejects and the waterfall of a stage that the recipe leaves out."""
        self.workspace.overwrite("rejects", empty_rejects(), where=("stage", stage))
        none = pl.DataFrame(TABLES["waterfall"].create_empty())
        self.workspace.overwrite("waterfall", none, where=("dataset", stage))


@dataclass(frozen=True)
class Stage:
    """One node of the graph.

    Attributes:
        name: of the stage, its asset and its table or dataset.
        group: where the UI shows it.
        needs: the stages whose results it reads.
        run: does it.
        table: the table that it writes; None for a stage that writes files.
        version: raised when its logic changes.
        enabled: whether a recipe asks for it.
        uses_model: whether it may load a model, and so wants the ``gpu`` pool.
    """

    name: str
    group: str
    description: str
    needs: tuple[str, ...]
    run: Callable[[Context], StageResult]
    table: str | None
    version: int = 1
    enabled: Callable[[Recipe], bool] = lambda recipe: True
    uses_model: bool = False

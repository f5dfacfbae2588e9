"""A run's context whose models are not called: what each is asked is noted. See ``curation.planning.plan``."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from curation.engine import Step, StepReport, with_known
from curation.journal import entries_of, journal_path
from curation.journal_to_ledger import cost_of, id_of, not_in_ledger
from curation.ledger import FORGOTTEN, LedgerKey
from curation.pipeline import run_stage, stage_named
from curation.sender import RemoteStep
from curation.stages.context import Context
from curation.stages.embeddings import EmbeddingStep
from curation.streaming import Budget
from curation.text import content_hash
from curation.workspace import LEDGER_TABLES, Workspace

if TYPE_CHECKING:
    from deltalake import DeltaTable

__all__ = ["Asked", "Beside", "NotEmbedded", "PlanContext"]

_READ: Final = LEDGER_TABLES - {"rewrites"}
_COMPARE: Final = ("hygiene", "constructed", "candidates")
"""Stages that compare embeddings, and need them at once."""


class Beside(Workspace):
    """A workspace in a folder of its own, which reads the ledger of another one and leaves it alone."""

    def __init__(self, folder: str, ledger: Workspace) -> None:
        super().__init__(folder)
        self._ledger = ledger

    def _open(self, name: str, *, version: int | None = None) -> DeltaTable | None:
        return self._ledger._open(name, version=version) if name in _READ else super()._open(name, version=version)

    def _current(self, name: str) -> DeltaTable | None:
        return self._ledger._current(name) if name in _READ else super()._current(name)


class NotEmbedded(Exception):
    """A stage compares embeddings that are not there."""

    def __init__(self, rows: int) -> None:
        super().__init__(f"{rows} texts are not embedded")
        self.rows = rows


@dataclass
class Asked:
    """What one step is asked."""

    stage: str
    step: Any
    ids: pl.Series
    missing: pl.DataFrame
    """The rows of it that the ledger lacks, as the step's worker would get them."""
    unanswered: pl.DataFrame
    """These, and those that lie in the journal of a run that broke off, where no stage reads them yet."""
    failed: int = 0
    at_most: bool = False

    @property
    def is_remote(self) -> bool:
        """Whether a server does the work."""
        return bool(getattr(self.step, "is_remote", False))


@dataclass
class PlanContext(Context):
    """See :class:`curation.stages.context.Context`.

    Attributes:
        place: the workspace of the run, whose journals hold what a run that broke off has paid for.
        asked: by step; of one that answers, by stage as well, for each asks it something else.
        at_most: whether what is asked from now on depends on what is not there yet.
        left_over: what answers in the journals have cost.
    """

    place: Workspace = field(kw_only=True)
    stage: str = ""
    asked: dict[Hashable, Asked] = field(default_factory=dict)
    at_most: bool = False
    left_over: float = 0.0
    _in_journals: dict[LedgerKey, list[str]] = field(default_factory=dict)

    def through(self, name: str) -> None:
        """Go through a stage."""
        self.stage = name
        run_stage(self, stage_named(name))

    def compute(self, step: Step, inputs: pl.DataFrame, *, again: pl.DataFrame | None = None) -> StepReport:
        """Note what is missing."""
        again = self.out_of_date(step, inputs, again)
        missing = self._missing(step.key, inputs)
        if again is not None and not again.is_empty():
            missing = with_known(step, inputs, missing, again)
        report = self._noted(step, inputs, missing)
        if self.stage in _COMPARE and isinstance(step, EmbeddingStep) and not missing.is_empty():
            raise NotEmbedded(missing.height)
        return report

    def compute_stream(
        self, step: RemoteStep, inputs: pl.DataFrame, *, budget: Budget | None = None, at_most: bool = False
    ) -> StepReport:
        """Note what is missing."""
        unanswered = self._missing(step.key, inputs)
        missing = unanswered.filter(~pl.col(step.key.id_column).is_in(self._left_over(step.key)))
        return self._noted(step, inputs, missing, unanswered, at_most=at_most)

    def requests_made_in(self, stage: str) -> pl.DataFrame:
        """The requests of a stage that have no answer yet.

        Returns:
            name, like no other's; for_prompt; max_new_tokens; sampled: whether ``sampling`` chooses among them.
        """
        kinds = {"name": pl.String, "for_prompt": pl.String, "max_new_tokens": pl.Int64, "sampled": pl.Boolean}
        found = [pl.DataFrame(schema=kinds)]
        rewrites = self.workspace.read("rewrites")
        for asked in self.asked.values():
            if asked.stage == stage and asked.step.key.table == "generations":
                # Two models are asked the same request by one identifier.
                by, options = content_hash("asked", asked.step.key.producer)[:16], asked.step.options
                rows = asked.unanswered.select("prompt_id", name=pl.format(f"{by}-{{}}", "request_id"))
                if stage == "generations":
                    rows = rows.with_columns(for_prompt="prompt_id")
                else:
                    rows = rows.join(rewrites, on="prompt_id", maintain_order="left")
                most = pl.lit(options.max_new_tokens, dtype=pl.Int64)
                sampled = pl.lit(stage == "generations" and not options.only_as_rejected)
                found.append(rows.select("name", "for_prompt", max_new_tokens=most, sampled=sampled))
        return pl.concat(found)

    def _missing(self, key: LedgerKey, inputs: pl.DataFrame) -> pl.DataFrame:
        missing = self.ledger.missing(key, inputs).unique(key.id_column, keep="first", maintain_order=True)
        if not self.retry_failed:
            return missing
        failed = self._failed(key, inputs[key.id_column])
        whole = failed.filter(~failed.is_in(self.ledger.fetch(key, failed)[key.id_column].implode()))
        again = inputs.filter(pl.col(key.id_column).is_in(whole.implode()))
        return pl.concat([missing, again.unique(key.id_column, keep="first", maintain_order=True)])

    def _failed(self, key: LedgerKey, ids: pl.Series) -> pl.Series:
        failures = self.ledger.failures(key, ids).filter(pl.col("rule") != FORGOTTEN)
        return failures["row_id"].unique(maintain_order=True)

    def _left_over(self, key: LedgerKey) -> list[str]:
        """The rows that a run has left in its journal, which the next one takes from there."""
        if key not in self._in_journals:
            entries = entries_of(journal_path(self.place, key))
            self.left_over += cost_of(not_in_ledger(entries, self.ledger, key))
            # A failure that is to be tried again is asked for again.
            kept = [entry for entry in entries if entry.get("row") or not self.retry_failed]
            self._in_journals[key] = [id_of(entry, key) for entry in kept]
        return self._in_journals[key]

    def _noted(
        self,
        step: Any,
        inputs: pl.DataFrame,
        missing: pl.DataFrame,
        unanswered: pl.DataFrame | None = None,
        *,
        at_most: bool = False,
    ) -> StepReport:
        key, lacking = step.key, missing.height
        unanswered = missing if unanswered is None else unanswered
        ids = inputs[key.id_column].unique(maintain_order=True)
        wanted, stage = len(ids), self.stage
        place = (key, stage, step.options.only_as_rejected) if key.table == "generations" else key
        before = self.asked.get(place)
        if before is not None:
            # A step may be asked in several stages, and a stage be gone through twice.
            ids = pl.concat([before.ids, ids]).unique(maintain_order=True)
            missing = _both(before.missing, missing, key)
            unanswered = _both(before.unanswered, unanswered, key)
            at_most, stage = at_most or before.at_most, before.stage
        failed = 0 if self.retry_failed else len(self._failed(key, ids))
        self.asked[place] = Asked(stage, step, ids, missing, unanswered, failed, at_most or self.at_most)
        return StepReport(step.name, key.producer, 0, wanted - lacking, 0, 0, 0.0, 0)


def _both(before: pl.DataFrame, now: pl.DataFrame, key: LedgerKey) -> pl.DataFrame:
    return pl.concat([before, now], how="diagonal").unique(key.id_column, keep="last", maintain_order=True)

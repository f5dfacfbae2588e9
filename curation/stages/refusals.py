"""Stage ``refusals``: tell refusals from answers among the candidates."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from curation.engine import Batch, Worker, failures_frame
from curation.ledger import LedgerKey
from curation.models.protocols import RefusalDetector
from curation.models.refusals import open_refusal_detector, refusal_fingerprint
from curation.recipe import RefusalDetection
from curation.stages.answered import answered
from curation.stages.context import Context, Stage, StageResult
from curation.text import messages_text
from schemas import TABLES

__all__ = ["STAGE", "RefusalStep", "candidate_refusals", "refusal_step"]

_STEP_VERSION = 1


@dataclass(frozen=True)
class RefusalStep:
    """Detection with one detector."""

    options: RefusalDetection

    @property
    def name(self) -> str:
        return "refusals"

    @property
    def batch_rows(self) -> int:
        return self.options.batch_rows

    @property
    def key(self) -> LedgerKey:
        producer = refusal_fingerprint(self.options.model)
        return LedgerKey("refusals", "candidate_id", "detector", f"{producer} step{_STEP_VERSION}")

    def open(self) -> Worker:
        return _Detecting(open_refusal_detector(self.options.model))


@dataclass
class _Detecting:
    detector: RefusalDetector

    def __call__(self, batch: pl.DataFrame) -> Batch:
        prompts = [messages_text(messages) for messages in batch["messages"].to_list()]
        found = self.detector.detect(prompts, batch["response"].to_list())
        rows = pl.DataFrame(
            {
                "candidate_id": batch["candidate_id"],
                "refusal_probability": found.probability,
                "refusal_class": found.refusal_class,
            }
        )
        null = pl.lit(None, dtype=pl.String)
        return Batch(rows.with_columns(refusal_kind=null, refusal_category=null), failures_frame([]))


def refusal_step(context: Context) -> RefusalStep:
    """The step that a recipe asks for; its detector must be set."""
    assert context.recipe.refusals is not None
    return RefusalStep(context.recipe.refusals)


def candidate_refusals(context: Context, candidates: pl.Series) -> pl.DataFrame:
    """candidate_id, refusal_probability, refusal_class; no rows where the recipe detects no refusals."""
    if context.recipe.refusals is None:
        return TABLES["refusals"].create_empty()
    return context.ledger.fetch(refusal_step(context).key, candidates)


def run(context: Context) -> StageResult:
    candidates = answered(context)
    report = context.compute(refusal_step(context), candidates)
    found = candidate_refusals(context, candidates["candidate_id"])
    facts = {"computed": report.computed, "detector": report.producer}
    facts |= dict(found["refusal_class"].value_counts(sort=True).iter_rows())
    return StageResult("refusals", candidates.height, report.failed, facts)


STAGE = Stage(
    name="refusals",
    group="scores",
    description="Whether each candidate refuses: its probability and class.",
    needs=("prompts", "candidates"),
    run=run,
    table="refusals",
    enabled=lambda recipe: recipe.refusals is not None,
    uses_model=True,
)

"""Stage ``refusals``: tell refusals from answers among the candidates."""

from __future__ import annotations

import polars as pl

from curation.engine import StepReport
from curation.recipe import RefusalDetection
from curation.refusals.calibrated import load_calibration
from curation.refusals.taxonomy import open_taxonomy
from curation.stages.answered import answered
from curation.stages.context import Context, Stage, StageResult
from curation.stages.refusal_step import (
    RAW,
    SORTED,
    VERDICT,
    RefusalStep,
    sorts_all_requests,
    uncalibrated_fingerprint,
)
from curation.stages.requests import judges_requests, prompt_requests
from curation.stages.sorting import unsorted_facts
from schemas import TABLES

__all__ = ["STAGE", "candidate_refusals", "compute_refusals", "refusal_step"]


def refusal_step(context: Context) -> RefusalStep:
    """The step that a recipe asks for; its detector must be set."""
    assert context.recipe.refusals is not None
    return RefusalStep(context.recipe.refusals)


def candidate_refusals(context: Context, candidates: pl.Series) -> pl.DataFrame:
    """candidate_id, refusal_probability, refusal_class, refusal_kind, refusal_category; no rows where the recipe
    detects no refusals."""
    if context.recipe.refusals is None:
        return TABLES["refusals"].create_empty()
    return context.ledger.fetch(refusal_step(context).key, candidates)


def compute_refusals(context: Context, candidates: pl.DataFrame) -> StepReport:
    """Verdicts on answers, in the ledger; what the detector was asked.

    Its own verdicts are kept, whether they are calibrated then or not: another calibration asks for none again.

    Args:
        candidates: ``candidate_id``, ``prompt_id``, ``messages``, ``response``.
    """
    step, options = refusal_step(context), context.recipe.refusals
    assert options is not None
    inputs = _with_categories(context, candidates)
    if options.calibration is None:
        return context.compute(step, inputs, again=_sorted_since(context, inputs))
    plain = RefusalStep(options.model_copy(update={"calibration": None}))
    alone = RefusalStep(plain.options.model_copy(update={"taxonomy": None, "sorting": None}))
    before = context.ledger.fetch(plain.key, candidates["candidate_id"])
    asked = context.compute(alone, candidates.join(before, on="candidate_id", how="anti", maintain_order="left"))
    now = context.ledger.fetch(alone.key, candidates["candidate_id"])
    raw = pl.concat([before, now]).unique("candidate_id", keep="first", maintain_order=True)
    raw = raw.select("candidate_id", pl.col(VERDICT).name.prefix(RAW))
    # What has no verdict that can be read has none to calibrate.
    inputs = inputs.join(raw, on="candidate_id", how="inner", maintain_order="left")
    context.compute(step, inputs, again=_sorted_since(context, inputs))
    return asked


def _with_categories(context: Context, candidates: pl.DataFrame) -> pl.DataFrame:
    """The answers with the category of their request, where stage ``requests`` has sorted every one of them."""
    options = context.recipe.refusals
    if options is None or options.taxonomy is None or not judges_requests(context.recipe):
        return candidates
    judged = prompt_requests(context, candidates["prompt_id"].unique(maintain_order=True))
    known = judged.select("prompt_id", pl.col("refusal_category").alias(SORTED))
    if candidates.join(known, on="prompt_id", how="anti").height:
        return candidates
    return candidates.join(known, on="prompt_id", how="left", maintain_order="left")


def _sorted_since(context: Context, inputs: pl.DataFrame) -> pl.DataFrame | None:
    """Verdicts without the category that their request has by now: a judge's reply could not be read before."""
    options = context.recipe.refusals
    assert options is not None
    if SORTED not in inputs.columns or options.sorting is None or options.sorting.judge is None:
        return None
    found = candidate_refusals(context, inputs["candidate_id"]).filter(pl.col("refusal_category").is_null())
    refuses = pl.lit(sorts_all_requests(options)) | (pl.col("refusal_class") != "compliance")
    late = (
        inputs.select("candidate_id", SORTED)
        .join(found, on="candidate_id")
        .filter(pl.col(SORTED).is_not_null() & refuses)
    )
    return found.join(late, on="candidate_id", how="semi", maintain_order="left")


def run(context: Context) -> StageResult:
    candidates = answered(context)
    step = refusal_step(context)
    report = compute_refusals(context, candidates)
    found = candidate_refusals(context, candidates["candidate_id"])
    facts: dict[str, int | str] = {"computed": report.computed, "detector": step.key.producer}
    facts |= dict(found["refusal_class"].value_counts(sort=True).iter_rows())
    facts |= unsorted_facts(context, step.key, candidates["candidate_id"])
    facts |= _thresholds(step.options)
    if cut := int(found["refusal_truncated"].sum()):
        facts["too long, read at both ends"] = cut
    if unknown := found["refusal_truncated"].null_count():
        facts["not recorded whether read whole"] = unknown
    return StageResult("refusals", candidates.height, min(report.failed, candidates.height - found.height), facts)


def _thresholds(options: RefusalDetection) -> dict[str, int | str]:
    if options.calibration is None:
        return {}
    names = [c.name for c in open_taxonomy(options.taxonomy).categories] if options.taxonomy else []
    detector = uncalibrated_fingerprint(options)
    return {"thresholds": load_calibration(options.calibration).in_words(detector, names)}


STAGE = Stage(
    name="refusals",
    group="scores",
    description="Whether each candidate refuses: its probability, class, kind, and the category of the request.",
    needs=("prompts", "candidates", "requests"),
    run=run,
    table="refusals",
    enabled=lambda recipe: recipe.refusals is not None,
    uses_model=True,
)

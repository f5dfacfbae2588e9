"""Stage ``report``: one HTML file on what went in, what came out, what was dropped, and why."""

from __future__ import annotations

import json
from typing import Any, Final

import polars as pl

from curation.errors import InputError
from curation.models.identity import EMBEDDED
from curation.publish.refusing import (
    BuiltSummary,
    RefusalSummary,
    summarise_built,
    summarise_confusion,
    summarise_refusals,
)
from curation.publish.report import ReportData, render_report
from curation.recipe import Recipe
from curation.refusals.calibrated import StoredCalibration, load_calibration
from curation.stages.context import Context, Stage, StageResult
from curation.stages.evidence import pair_evidence
from curation.stages.facts import gate_results, package_versions, table_versions, thresholds_used
from curation.stages.forms import split_sizes
from curation.stages.label_facts import label_facts
from curation.stages.paid import token_facts
from curation.stages.pairs import ches_aware_facts
from curation.stages.quotas import as_named
from curation.stages.refusal_step import sorts_all_requests
from curation.stages.refusals import candidate_refusals
from curation.stages.requests import category_confusion, confusion_in_words, judges_requests, prompt_requests
from curation.text import canonical_json, content_hash
from curation.workspace import Workspace

__all__ = ["STAGE", "rewrite_report"]

_VERSION: Final = 10
_NAMED: Final = 5
"""More sources are counted at the top of the page; the table below names them all."""


def run(context: Context) -> StageResult:
    """Write the report, unless the one that is there is about the very same tables and recipe."""
    workspace, recipe = context.workspace, context.recipe
    gates = canonical_json([gate._asdict() for gate in gate_results(workspace)])
    key = content_hash(
        "report", str(_VERSION), recipe.content_hash, canonical_json(table_versions(workspace)), gates,
        canonical_json(package_versions()),
    )  # fmt: skip
    marker = f"<!-- {key} -->"
    before = workspace.read_text(*workspace.report_parts)
    if before is None or not before.endswith(marker):
        models = [report._asdict() | {"step": report.name} for report in context.reports]
        html = render_report(_data(context, models)) + marker
        workspace.write_bytes(html.encode(), *workspace.report_parts)
    pairs = workspace.scan("pairs").select(pl.len()).collect().item() if recipe.builds_pairs else 0
    return StageResult("report", pairs, 0, {"file": workspace.report_path})


def rewrite_report(workspace: Workspace) -> str:
    """Write the report of the last run again; returns where it is.

    Raises:
        InputError: when no run has been recorded in the workspace.
    """
    runs = workspace.read("runs").sort("finished_at")
    if runs.is_empty():
        raise InputError(f"{workspace.url} holds no run: start one with `curation run RECIPE --workspace DIR`")
    last = runs.row(-1, named=True)
    models = [report | {"step": report["name"]} for report in json.loads(last["computed"])]
    context = Context(workspace, Recipe.model_validate_json(last["recipe"]))
    html = render_report(_data(context, models))
    workspace.write_bytes(html.encode(), *workspace.report_parts)
    return workspace.report_path


def _data(context: Context, models: list[dict[str, Any]]) -> ReportData:
    workspace, recipe = context.workspace, context.recipe
    counts = {
        name: workspace.scan(name).select(pl.len()).collect().item() for name in ("inputs", "prompts", "candidates")
    }
    names = [source.name for source in recipe.sources]
    facts = {
        "recipe": recipe.name,
        "sources": ", ".join(names) if len(names) <= _NAMED else f"{len(names):,}",
        "input rows": f"{counts['inputs']:,}",
        "prompts": f"{counts['prompts']:,}",
        "candidates": f"{counts['candidates']:,}",
        "seed": str(recipe.seed),
        **{name: f"{value:,.6g}" for name, value in ches_aware_facts(context).items()},
        **token_facts(context),
    }
    evidence = _with_dangerous(context, pair_evidence(context))
    confused = category_confusion(context)
    return ReportData(
        name=recipe.name,
        facts=facts,
        waterfall=workspace.read("waterfall"),
        pairs=evidence if recipe.builds_pairs else evidence.clear(),
        rejects=workspace.read("rejects"),
        refusals=_refusals(context),
        calibration=_calibration(context),
        labels=label_facts(context) | _categories(confused),
        refusal_dataset=_built(context),
        confusion=summarise_confusion(confused),
        searches=workspace.read("searches").to_dicts() if "retrieval" in recipe.publish.tables else (),
        models=models,
        bundled=_bundled(recipe),
        sources=_sources(workspace),
        gates=gate_results(workspace),
        thresholds=thresholds_used(workspace, recipe),
        versions=package_versions() | {f"table {name}": str(v) for name, v in table_versions(workspace).items()},
        datasets={name: split_sizes(context, name) for name in recipe.publish.datasets},
    )


def _bundled(recipe: Recipe) -> list[str]:
    """The sections whose scores are of the small models of the package, not of the user's own."""
    rewards = any(reward.model == EMBEDDED for reward in recipe.rewards)
    policy = recipe.policy is not None and recipe.policy.model == EMBEDDED
    return ["rewards"] * rewards + ["policy"] * policy


def _sources(workspace: Workspace) -> list[dict[str, Any]]:
    """Of each source how it was read, and how many of its rows; the order is the recipe's."""
    inputs = workspace.scan("inputs")
    read = (
        inputs.group_by("source", "kind", maintain_order=True)
        .agg(
            rows=pl.len(),
            answers=pl.col("candidate_ids").list.len().sum(),
            scored=pl.col("scores").is_not_null().sum(),
        )
        .collect()
    )
    rejects = workspace.scan("rejects").filter((pl.col("stage") == "inputs") & (pl.col("table") == "inputs"))
    name = pl.col("row_id").str.replace(r"#\d+$", "")
    rejected = (
        rejects.select(source=name, row=pl.col("row_id")).unique().group_by("source").len("rejected").collect()
    )
    rows = read.join(rejected, on="source", how="left", maintain_order="left").with_columns(
        pl.col("rejected").fill_null(0)
    )
    return rows.to_dicts()


def _with_dangerous(context: Context, pairs: pl.DataFrame) -> pl.DataFrame:
    """The pairs with ``dangerous``, where prompts are judged: whether the prompt is rather one to refuse."""
    if not judges_requests(context.recipe):
        return pairs
    judged = prompt_requests(context, pairs["prompt_id"].unique(maintain_order=True))
    harmful = judged.filter(pl.col("refuse_probability") >= 0.5)["prompt_id"]
    return pairs.with_columns(dangerous=pl.col("prompt_id").is_in(harmful.implode()))


def _refusals(context: Context) -> RefusalSummary | None:
    """Verdicts on all candidates, beside what was expected of them."""
    workspace = context.workspace
    candidates = workspace.scan("candidates").select("candidate_id", "prompt_id", "generator").collect()
    prompts = workspace.scan("prompts").select("prompt_id", "source", "category", "expected_behaviour").collect()
    verdicts = candidate_refusals(context, candidates["candidate_id"]).select(
        "candidate_id", "refusal_class", "refusal_kind", "refusal_category", "refusal_truncated"
    )
    judged = prompt_requests(context, prompts["prompt_id"]).select("prompt_id", _judged="refusal_category")
    prompts = prompts.join(judged, on="prompt_id", how="left")
    answers = candidates.join(prompts, on="prompt_id", how="left").join(verdicts, on="candidate_id", how="inner")
    options = context.recipe.refusals
    if options is None or not sorts_all_requests(options):
        # Only answers that refuse have a category then, and every rate by it would be one.
        answers = answers.with_columns(refusal_category=pl.lit(None, dtype=pl.String))
    answers = answers.with_columns(as_named(context, answers["category"]))
    category = pl.coalesce("category", "_judged", "refusal_category")
    return summarise_refusals(answers.with_columns(category=category).sort("candidate_id"))


def _categories(table: pl.DataFrame) -> dict[str, str]:
    """Of the categories that sources give, how many the sorting of the prompts found again."""
    return {"categories of prompts": confusion_in_words(table)} if table.height else {}


def _calibration(context: Context) -> StoredCalibration | None:
    """What the detector's thresholds come from."""
    options = context.recipe.refusals
    return load_calibration(options.calibration) if options and options.calibration else None


def _built(context: Context) -> BuiltSummary | None:
    """What the refusal dataset holds, and which of its quotas are not met."""
    if "refusal" not in context.recipe.publish.tables:
        return None
    workspace = context.workspace
    return summarise_built(workspace.read("refusal"), workspace.read("refusal_quotas"))


STAGE = Stage(
    name="report",
    group="publication",
    description="One HTML file: what was dropped and why, distributions of every score, and a sample of pairs.",
    needs=(
        "gates",
        "preference",
        "preference_unpaired",
        "refusal",
        "refusals",
        "requests",
        "retrieval",
        "pair_scores",
    ),
    run=run,
    table=None,
)

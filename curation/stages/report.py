"""Stage ``report``: one HTML file on what went in, what came out, what was dropped, and why."""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import Any, Final

import polars as pl

from curation.errors import InputError
from curation.publish.gates import GateResult
from curation.publish.report import ReportData, Threshold, render_report
from curation.recipe import Recipe
from curation.stages.context import Context, Stage, StageResult
from curation.stages.evidence import pair_evidence
from curation.text import canonical_json, content_hash
from curation.workspace import LEDGER_TABLES, Workspace
from schemas import TABLES

__all__ = ["STAGE", "rewrite_report", "table_versions"]

_VERSION: Final = 1
_PACKAGES: Final = ("preference-curation", "polars", "deltalake", "torch", "transformers", "sentence-transformers")


def run(context: Context) -> StageResult:
    """Write the report, unless the one that is there is about the very same tables and recipe."""
    workspace = context.workspace
    key = content_hash(
        "report", str(_VERSION), context.recipe.content_hash, canonical_json(table_versions(workspace))
    )
    marker = f"<!-- {key} -->"
    before = workspace.read_text(*workspace.report_parts)
    if before is None or not before.endswith(marker):
        models = [report._asdict() | {"step": report.name} for report in context.reports]
        html = render_report(_data(workspace, context.recipe, models)) + marker
        workspace.write_bytes(html.encode(), *workspace.report_parts)
    pairs = workspace.scan("pairs").select(pl.len()).collect().item() if context.recipe.builds_pairs else 0
    return StageResult("report", pairs, 0, {"file": workspace.report_path})


def rewrite_report(workspace: Workspace) -> str:
    """Write the report of the last run again; returns where it is.

    Raises:
        InputError: when no run has been recorded in the workspace.
    """
    runs = workspace.read("runs").sort("finished_at")
    if runs.is_empty():
        raise InputError(
            f"{workspace.url} holds no run: start one with `curation run RECIPE --workspace {workspace.url}`"
        )
    last = runs.row(-1, named=True)
    models = [report | {"step": report["name"]} for report in json.loads(last["computed"])]
    html = render_report(_data(workspace, Recipe.model_validate_json(last["recipe"]), models))
    workspace.write_bytes(html.encode(), *workspace.report_parts)
    return workspace.report_path


def table_versions(workspace: Workspace) -> dict[str, int]:
    """The version of every table that holds results of a run, or feeds them; ``runs`` itself is left out."""
    found = {name: workspace.version(name) for name in TABLES if name != "runs"}
    return {name: number for name, number in found.items() if number is not None and name not in LEDGER_TABLES}


def _data(workspace: Workspace, recipe: Recipe, models: list[dict[str, Any]]) -> ReportData:
    counts = {
        name: workspace.scan(name).select(pl.len()).collect().item() for name in ("inputs", "prompts", "candidates")
    }
    facts = {
        "recipe": recipe.name,
        "sources": ", ".join(source.name for source in recipe.sources),
        **{f"rows of {name}": f"{count:,}" for name, count in counts.items()},
        "seed": str(recipe.seed),
    }
    gates = [GateResult(*row) for row in workspace.read("gates").select(GateResult._fields).iter_rows()]
    datasets = {
        name: dict(workspace.scan(name).group_by("split").len().sort("split").collect().iter_rows())
        for name in recipe.publish.datasets
    }
    versions = {package: version(package) for package in _PACKAGES}
    return ReportData(
        name=recipe.name,
        facts=facts,
        waterfall=workspace.read("waterfall"),
        pairs=pair_evidence(workspace) if recipe.builds_pairs else pair_evidence(workspace).clear(),
        rejects=workspace.read("rejects"),
        models=models,
        gates=gates,
        thresholds=_thresholds(workspace, recipe),
        versions=versions | {f"table {name}": str(v) for name, v in table_versions(workspace).items()},
        datasets=datasets,
    )


def _thresholds(workspace: Workspace, recipe: Recipe) -> list[Threshold]:
    """The selection's rules with the values that they came to, read from the pairs that they dropped."""
    used = (
        workspace.scan("rejects")
        .filter((pl.col("stage") == "preference") & pl.col("threshold").is_not_null())
        .select("rule", "threshold")
        .unique()
        .collect()
    )
    values = dict(used.iter_rows())
    found = []
    for rule in recipe.selection.rules:
        for side, bound, quantile in (("min", rule.min, rule.min_quantile), ("max", rule.max, rule.max_quantile)):
            if bound is None and quantile is None:
                continue
            word = "below" if side == "min" else "above"
            name = f"{rule.score}_{word}_{'bound' if quantile is None else 'quantile'}"
            value = bound if quantile is None else values.get(name)
            if value is not None:
                note = "" if quantile is None else f"quantile {quantile:g}"
                found.append(Threshold(rule.score, side, float(value), note))
    return found


STAGE = Stage(
    name="report",
    group="publication",
    description="One HTML file: what was dropped and why, distributions of every score, and a sample of pairs.",
    needs=("gates", "preference", "preference_unpaired", "refusal", "retrieval", "pair_scores"),
    run=run,
    table=None,
)

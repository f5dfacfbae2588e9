"""Stage ``gates``: measure what must hold of the datasets before any of them is published."""

from __future__ import annotations

import polars as pl

from curation.publish.gates import check_gates
from curation.stages.context import Context, Stage, StageResult
from schemas import TABLES

__all__ = ["STAGE"]


def run(context: Context) -> StageResult:
    workspace, gates = context.workspace, context.recipe.gates
    prompts = workspace.scan("prompts").select("prompt_id", "family_id", "category").collect()
    results = check_gates(
        {dataset: workspace.read(dataset) for dataset in context.recipe.publish.datasets},
        gates.thresholds,
        families=prompts.select("prompt_id", "family_id"),
        categories=prompts["category"].drop_nulls().unique().sort().to_list(),
        warn_only=gates.warn_only,
    )
    frame = pl.DataFrame(results, schema=TABLES["gates"].create_empty().schema, orient="row")
    failed = [r for r in results if not r.passed]
    facts = {
        ("blocked by " if r.blocking else "warning of ") + f"{r.dataset} {r.name}": r.message.split(": ", 2)[-1]
        for r in failed
    }
    return context.write("gates", "gates", frame, facts=facts)


STAGE = Stage(
    name="gates",
    group="publication",
    description="What must hold of the datasets before they are published: each gate, its value and threshold.",
    needs=("preference", "preference_unpaired", "refusal", "retrieval", "prompts"),
    run=run,
    table="gates",
)

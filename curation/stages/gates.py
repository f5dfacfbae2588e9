"""Stage ``gates``: measure what must hold of the datasets before any of them is published."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from curation.candidates.checks import CUT_OFF
from curation.publish.drift import DRIFT_COLUMNS, NOTHING_BEFORE
from curation.publish.gates import check_gates
from curation.recipe import MADE_FROM
from curation.stages.contamination import contaminated_prompts
from curation.stages.context import Context, Stage, StageResult
from curation.stages.pair_labels import labelled_pairs
from curation.stages.published import published_columns
from curation.stages.quotas import as_named
from schemas import TABLES

__all__ = ["STAGE"]


def run(context: Context) -> StageResult:
    workspace, gates = context.workspace, context.recipe.gates
    prompts = workspace.scan("prompts").select("prompt_id", "group_id", "category").collect()
    tables = {table: workspace.read(table) for table in context.recipe.publish.tables}
    results = check_gates(
        tables,
        gates.thresholds,
        families=prompts.select("prompt_id", family_id="group_id"),
        categories=_categories(context, prompts["category"].drop_nulls().unique(), tables),
        warn_only=gates.warn_only,
        previous=_published(context, tables),
        contaminated=contaminated_prompts(context),
        truncated=_truncated(context),
    )
    frame = pl.DataFrame(results, schema=TABLES["gates"].create_empty().schema, orient="row")
    context.gates_measured = True
    failed = [r for r in results if not r.passed]
    facts = {
        ("blocked by " if r.blocking else "warning of ") + f"{r.dataset} {r.name}": r.message.split(": ", 2)[-1]
        for r in failed
    }
    first = sorted({r.dataset for r in results if r.message.endswith(NOTHING_BEFORE)})
    if first:
        facts["no drift to measure"] = ", ".join(first)
    return context.write("gates", "gates", frame, facts=facts)


def _categories(context: Context, given: pl.Series, tables: Mapping[str, pl.DataFrame]) -> list[str]:
    """The sources' categories, each under the taxonomy's name where a dataset has rows under that one."""
    there = {
        name for table in tables.values() if "category" in table.columns for name in table["category"].unique()
    }
    both = zip(given.to_list(), as_named(context, given).to_list(), strict=True)
    return sorted({named if named in there else name for name, named in both})


def _published(context: Context, tables: Mapping[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
    """The rows that were published last: table to the columns that drift is measured on.

    A table whose rows are published already is left out: a run that changes nothing has nothing to say of drift,
    and leaves the results of the gates as they are.
    """
    found: dict[str, pl.DataFrame] = {}
    for table, now in tables.items():
        forms = [table, *(form for form, made_from in MADE_FROM.items() if made_from == table)]
        for form in (form for form in forms if form in context.recipe.publish.datasets):
            rows = published_columns(context.workspace, form, DRIFT_COLUMNS)
            if rows is not None:
                if not _same_rows(rows, now):
                    found[table] = rows
                break
    return found


def _truncated(context: Context) -> pl.DataFrame | None:
    """pair_id and truncated of the pairs whose chosen answer was generated and says how it ended."""
    if not context.recipe.builds_pairs:
        return None
    ends = context.workspace.scan("candidates").select("candidate_id", "finish_reason").drop_nulls().collect()
    pairs = labelled_pairs(context).select("pair_id", candidate_id="chosen_id")
    known = pairs.join(ends, on="candidate_id", maintain_order="left")
    return known.select("pair_id", truncated=pl.col("finish_reason").is_in(CUT_OFF))


def _same_rows(published: pl.DataFrame, table: pl.DataFrame) -> bool:
    """Whether both hold the same rows in any order, as far as the columns of both tell."""
    columns = [c for c in published.columns if c in table.columns]
    if published.height != table.height or not columns:
        return False
    return published.select(columns).hash_rows().sort().equals(table.select(columns).hash_rows().sort())


STAGE = Stage(
    name="gates",
    group="publication",
    description="What must hold of the datasets before they are published: each gate, its value and threshold.",
    needs=(
        "preference",
        "preference_unpaired",
        "reward_augmented",
        "refusal",
        "retrieval",
        "prompts",
        "hygiene",
        "candidates",
    ),
    run=run,
    table="gates",
)

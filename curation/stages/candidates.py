"""Stage ``candidates``: all distinct answers to every prompt, from the sources and from the generators."""

from __future__ import annotations

import polars as pl

from curation.stages.context import Context, Stage, StageResult
from curation.stages.duplicates import distinct_answers
from curation.stages.generations import generation_steps, requests
from curation.stages.hygiene import prompted_inputs
from curation.tables import concat_rejects, empty_rejects, rejects_frame
from curation.text import canonical_json, response_id
from schemas import TABLES

__all__ = ["STAGE"]


def run(context: Context) -> StageResult:
    provided = _provided(prompted_inputs(context)).collect()
    generated, rejects = _generated(context)
    columns = TABLES["candidates"].column_names()
    found = pl.concat([provided.select(columns), generated.select(columns)], how="vertical")
    # A provided answer comes first, so it keeps its origin when a model says the same.
    first = [pl.col(c).first() for c in columns if c not in ("candidate_id", "occurrences", "provided_score")]
    candidates = found.group_by("candidate_id", maintain_order=True).agg(
        *first, pl.col("occurrences").sum(), pl.col("provided_score").mean()
    )
    merged = found.height - candidates.height
    distinct = distinct_answers(context, candidates)
    candidates, rejects = distinct.kept, concat_rejects(rejects, distinct.rejects)
    facts = {f"{origin}": n for origin, n in candidates["origin"].value_counts(sort=True).iter_rows()}
    facts |= {"repeated answers merged": merged} | distinct.facts
    return context.write("candidates", "candidates", candidates, rejects=rejects, facts=facts)


def _provided(inputs: pl.LazyFrame) -> pl.LazyFrame:
    """The answers that the sources bring."""
    scores = pl.when(pl.col("scores").is_null()).then(
        pl.lit(None, dtype=pl.Float64).repeat_by(pl.col("responses").list.len())
    )
    exploded = (
        inputs.filter(pl.col("responses").list.len() > 0)
        .select("prompt_id", "responses", "candidate_ids", scores=scores.otherwise(pl.col("scores")))
        .explode("responses", "candidate_ids", "scores")
    )
    empty = TABLES["candidates"].create_empty().schema
    return exploded.select(
        "prompt_id",
        candidate_id=pl.col("candidate_ids"),
        response=pl.col("responses"),
        origin=pl.lit("provided"),
        occurrences=pl.lit(1, dtype=pl.Int64),
        provided_score=pl.col("scores"),
        **{c: pl.lit(None, dtype=empty[c]) for c in _GENERATED_ONLY},
    )


def _generated(context: Context) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The answers that the recipe's generators gave, and what became of the rest."""
    prompts = context.workspace.read("prompts")
    frames: list[pl.DataFrame] = [TABLES["candidates"].create_empty()]
    rejects = [empty_rejects()]
    for step in generation_steps(context):
        asked = requests(prompts, step.options.samples)["request_id"]
        answers = context.ledger.fetch(step.key, asked)
        blank = pl.col("response").str.strip_chars().str.len_bytes() == 0
        kept = answers.filter(~blank)
        ids = [response_id(p, r) for p, r in kept.select("prompt_id", "response").iter_rows()]
        parameters = canonical_json(step.options.model_dump(mode="json", exclude={"batch_rows"}))
        frames.append(
            kept.with_columns(
                candidate_id=pl.Series(ids, dtype=pl.String),
                origin=pl.lit("generated"),
                parameters=pl.lit(parameters),
                parent_id=pl.lit(None, dtype=pl.String),
                occurrences=pl.lit(1, dtype=pl.Int64),
                provided_score=pl.lit(None, dtype=pl.Float64),
            ).select(TABLES["candidates"].column_names())
        )
        rejects.append(
            rejects_frame(
                answers.filter(blank),
                table="candidates",
                stage="candidates",
                row_id=pl.col("request_id"),
                rule="empty_response",
                reason="the generator answered with nothing",
            )
        )
        rejects.append(
            rejects_frame(
                context.ledger.failures(step.key, asked),
                table="candidates",
                stage="candidates",
                row_id=pl.col("row_id"),
                rule=pl.col("rule"),
                value=pl.col("value"),
                reason=pl.col("reason"),
            )
        )
    return pl.concat(frames, how="vertical"), concat_rejects(*rejects)


_GENERATED_ONLY = (
    "generator",
    "parameters",
    "sample_index",
    "finish_reason",
    "prompt_tokens",
    "completion_tokens",
    "cost",
    "parent_id",
)

STAGE = Stage(
    name="candidates",
    group="candidates",
    description="All distinct answers to every prompt, with where each came from.",
    needs=("inputs", "hygiene", "prompts", "generations"),
    run=run,
    table="candidates",
)

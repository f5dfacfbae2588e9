"""Stage ``candidates``: all distinct answers to every prompt: given, generated, constructed."""

from __future__ import annotations

import polars as pl

from curation.stages.base_candidates import base_candidates
from curation.stages.constructed import constructed_rows
from curation.stages.context import Context, Stage, StageResult
from schemas import TABLES

__all__ = ["STAGE"]


def run(context: Context) -> StageResult:
    base = base_candidates(context)
    constructed = _constructed(context)
    columns = TABLES["candidates"].column_names()
    # What is constructed and an answer all the same stays an answer.
    made = constructed.join(base.kept, on="candidate_id", how="anti", maintain_order="left")
    candidates = pl.concat([base.kept.select(columns), made.select(columns)], how="vertical")
    facts = {f"{origin}": n for origin, n in candidates["origin"].value_counts(sort=True).iter_rows()}
    return context.write("candidates", "candidates", candidates, rejects=base.rejects, facts=facts | base.facts)


def _constructed(context: Context) -> pl.DataFrame:
    """The rows of ``constructed`` as candidates."""
    types = TABLES["candidates"].create_empty().schema
    rest = {"sample_index": None, "provided_score": None, "occurrences": 1}
    return constructed_rows(context).with_columns(
        **{name: pl.lit(value, dtype=types[name]) for name, value in rest.items()}
    )


STAGE = Stage(
    name="candidates",
    group="candidates",
    description="All distinct answers to every prompt, with where each came from.",
    needs=("inputs", "hygiene", "prompts", "generations", "constructed"),
    run=run,
    table="candidates",
    version=6,
)

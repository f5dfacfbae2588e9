"""Stage ``prompts``: each distinct prompt once, with its split."""

from __future__ import annotations

import polars as pl

from curation.stages.context import Context, Stage, StageResult
from curation.stages.hygiene import kept_inputs
from curation.stages.splitting import split_prompts

__all__ = ["STAGE"]


def run(context: Context) -> StageResult:
    inputs = kept_inputs(context)
    prompts = (
        inputs.group_by("prompt_id", maintain_order=True)
        .agg(
            pl.col("messages").first(),
            pl.col("source").first(),
            pl.col("category").drop_nulls().first(),
            # A prompt of which one source says "refuse" is not to be complied with.
            pl.col("expected_behaviour").drop_nulls().sort(descending=True).first(),
        )
        .with_columns(family_id=pl.col("prompt_id"))
        .collect()
    )
    split = split_prompts(context, prompts)
    return context.write("prompts", "prompts", split.prompts, rejects=split.rejects, facts=split.facts)


STAGE = Stage(
    name="prompts",
    group="sources",
    description="Each distinct prompt once, with its category, what is expected of an answer, and its split.",
    needs=("inputs", "hygiene"),
    run=run,
    table="prompts",
)

"""Stage ``prompts``: each distinct prompt once, with its split."""

from __future__ import annotations

import polars as pl

from curation.hygiene.splits import assign_splits
from curation.stages.context import Context, Stage, StageResult

__all__ = ["STAGE"]


def run(context: Context) -> StageResult:
    inputs = context.workspace.scan("inputs")
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
    splits = context.recipe.splits
    fractions = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    prompts = assign_splits(prompts, fractions=fractions, seed=context.recipe.seed, group_columns=["family_id"])
    facts = {f"in {name}": n for name, n in prompts["split"].value_counts(sort=True).iter_rows()}
    return context.write("prompts", "prompts", prompts, facts=facts)


STAGE = Stage(
    name="prompts",
    group="sources",
    description="Each distinct prompt once, with its category, what is expected of an answer, and its split.",
    needs=("inputs",),
    run=run,
    table="prompts",
)

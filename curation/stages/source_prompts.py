"""Each distinct prompt of the sources, and the families that mutations make of them. No stage is here."""

from __future__ import annotations

import polars as pl

from curation.hygiene.groups import UnionFind
from curation.stages.context import Context
from curation.stages.hygiene import kept_inputs
from schemas import TABLES

__all__ = ["mutated_prompts", "source_prompts", "with_families"]


def source_prompts(context: Context) -> pl.DataFrame:
    """prompt_id, messages, source, category, expected_behaviour: each prompt once, as it was first seen."""
    found: pl.DataFrame = (
        kept_inputs(context)
        .group_by("prompt_id", maintain_order=True)
        .agg(
            pl.col("messages").first(),
            pl.col("source").first(),
            pl.col("category").drop_nulls().first(),
            # A prompt of which one source says "refuse" is not to be complied with.
            pl.col("expected_behaviour").drop_nulls().sort(descending=True).first(),
        )
        .collect()
    )
    return found


def mutated_prompts(context: Context) -> pl.DataFrame:
    """The table ``mutations``; nothing where the recipe makes none."""
    if context.recipe.mutations is None:
        return pl.DataFrame(TABLES["mutations"].create_empty())
    return context.workspace.read("mutations")


def with_families(prompts: pl.DataFrame, mutations: pl.DataFrame) -> pl.DataFrame:
    """Prompts of the sources and mutated ones, with ``parent_id``, ``mutation`` and ``family_id``.

    A family is a prompt with all that was made from it. A mutated prompt that a source brings, too, stays the
    source's and joins the family; one that two prompts lead to joins their families into one.
    """
    columns = ["prompt_id", "messages", "source", "category", "expected_behaviour", "parent_id", "mutation"]
    own = prompts.with_columns(parent_id=pl.lit(None, dtype=pl.String), mutation=pl.lit(None, dtype=pl.String))
    new = (
        mutations.join(prompts, on="prompt_id", how="anti", maintain_order="left")
        .sort("expected_behaviour", descending=True, nulls_last=True, maintain_order=True)
        .unique("prompt_id", keep="first", maintain_order=True)
        .sort("prompt_id")
    )
    every = pl.concat([own.select(columns), new.select(columns)])
    place = {name: row for row, name in enumerate(every["prompt_id"])}
    groups = UnionFind(every.height)
    for child, parent in mutations.select("prompt_id", "parent_id").iter_rows():
        if parent in place:
            groups.join(place[parent], place[child])
    roots = pl.Series("_group", groups.labels().tolist(), dtype=pl.Int64)
    named = every.with_columns(roots)
    of_source = pl.when(pl.col("parent_id").is_null()).then("prompt_id")
    return named.with_columns(family_id=of_source.min().over("_group")).drop("_group")

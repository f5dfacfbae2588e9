"""Which source brought what. No stage is here.

A prompt may stand in several sources; table ``prompts`` names the first.
"""

from __future__ import annotations

from collections.abc import Collection

import polars as pl

from curation.pairs.source_scores import source_scores
from curation.stages.context import Context
from curation.stages.hygiene import kept_inputs, prompted_inputs
from curation.stages.source_prompts import mutated_prompts
from curation.workspace import Workspace

__all__ = ["answers_of", "pair_sources", "prompts_of", "score_scales", "scores_of_sources"]


def prompts_of(context: Context, sources: Collection[str]) -> pl.Series:
    """The prompts that one of these sources brings, and those that were mutated from them."""
    brought = kept_inputs(context).filter(pl.col("source").is_in(list(sources))).select("prompt_id").collect()
    made = mutated_prompts(context).filter(pl.col("parent_id").is_in(brought["prompt_id"].implode()))
    return pl.concat([brought, made.select("prompt_id")])["prompt_id"].unique(maintain_order=True)


def answers_of(context: Context, sources: Collection[str]) -> pl.Series:
    """The answers that one of these sources brings."""
    rows = kept_inputs(context).filter(pl.col("source").is_in(list(sources))).select("candidate_ids").collect()
    return rows["candidate_ids"].explode().drop_nulls().unique(maintain_order=True)


def scores_of_sources(context: Context) -> pl.DataFrame:
    """The sources' own scores of their answers, and which may be compared: see ``pairs.source_scores``."""
    columns = ("source", "prompt_id", "candidate_ids", "scores")
    return source_scores(prompted_inputs(context).select(columns).collect(), score_scales(context))


def score_scales(context: Context) -> dict[str, str | None]:
    """Of each source the scale of its scores that the recipe names; None for one of its own."""
    return {source.name: source.score_scale for source in context.recipe.sources}


def pair_sources(workspace: Workspace, pairs: pl.DataFrame, *, named: Collection[str] = ()) -> pl.Series:
    """The source of each pair, row by row beside ``pairs`` (prompt_id, chosen_id, rejected_id).

    Of several sources that bring the prompt it is the one that brings most of the two answers; then one of
    ``named``, those of a mixture; then the first.
    """
    prompts = workspace.scan("prompts").select("prompt_id", first="source")
    several = (
        workspace.scan("inputs")
        .join(pairs.lazy(), on="prompt_id", how="semi")
        .filter(pl.col("source").n_unique().over("prompt_id") > 1)
        .select("prompt_id", "source", "candidate_ids")
        .collect()
    )
    answers = several.explode("candidate_ids").select("prompt_id", "source", answer="candidate_ids").unique()
    claims = several.with_row_index("_at").group_by("prompt_id", "source").agg(pl.col("_at").min())
    found = (
        pairs.select("prompt_id", "chosen_id", "rejected_id").with_row_index("_row").join(claims, on="prompt_id")
    )
    key = ["prompt_id", "source"]
    for side in ("chosen", "rejected"):
        said = answers.select(*key, pl.col("answer").alias(f"{side}_id"), pl.lit(1).alias(f"_{side}"))
        found = found.join(said, on=[*key, f"{side}_id"], how="left")
    brought = pl.col("_chosen").fill_null(0) + pl.col("_rejected").fill_null(0)
    ranked = found.with_columns(_brought=brought, _named=pl.col("source").is_in(list(named)))
    ranked = ranked.sort("_row", "_brought", "_named", "_at", descending=[False, True, True, False])
    best = ranked.unique("_row", keep="first", maintain_order=True).select("_row", "source")
    rows = pairs.select("prompt_id").with_row_index("_row").join(prompts.collect(), on="prompt_id", how="left")
    rows = rows.join(best, on="_row", how="left").sort("_row")
    return rows.select(pl.coalesce("source", "first").alias("source")).to_series()

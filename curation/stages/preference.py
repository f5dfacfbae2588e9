"""Stage ``preference``: select pairs by their evidence, and put them into the form that trainers read."""

from __future__ import annotations

import polars as pl

from curation.pairs.selection import select_pairs
from curation.publish.formats import preference_frame
from curation.stages.arrangement import arranged_pairs
from curation.stages.context import Context, Stage, StageResult
from curation.stages.waterfall import pair_waterfall, write_waterfall
from curation.tables import concat_rejects
from schemas import TABLES

__all__ = ["STAGE", "kept_pairs"]


def run(context: Context) -> StageResult:
    workspace, options = context.workspace, context.recipe.selection
    pairs, scores = workspace.read("pairs"), workspace.read("pair_scores")
    scored = pairs.select("pair_id").join(scores, on="pair_id", how="left", maintain_order="left")
    selected = select_pairs(scored, options.rules, drop_refusal_pairs=options.drop_refusal_pairs)
    frame = preference_frame(
        pairs=pairs.join(selected.kept, on="pair_id", how="semi", maintain_order="left"),
        prompts=workspace.read("prompts"),
        candidates=workspace.read("candidates"),
        pair_scores=scores,
    )
    facts = {f"threshold of {t['rule']}": t["threshold"] for t in selected.thresholds.iter_rows(named=True)}
    arranged = arranged_pairs(context, frame)
    rejects = concat_rejects(selected.rejects, arranged.rejects)
    result = context.write("preference", "preference", arranged.kept, rejects=rejects, facts=facts | arranged.facts)
    # A row of a source is a pair only where the sources bring the pairs.
    tables = ("inputs", "pairs") if context.recipe.pairs.strategies == ("provided",) else ("pairs",)
    write_waterfall(
        context, "preference", pair_waterfall(workspace.read("rejects"), kept=result.rows, tables=tables)
    )
    return result


def kept_pairs(context: Context) -> pl.DataFrame:
    """The pairs that were selected: rows of table ``pairs``; none where the recipe builds none."""
    if not context.recipe.builds_pairs:
        return pl.DataFrame(TABLES["pairs"].create_empty())
    kept = context.workspace.scan("preference").select("pair_id")
    pairs = context.workspace.scan("pairs")
    selected: pl.DataFrame = pairs.join(kept, on="pair_id", how="semi", maintain_order="left").collect()
    return selected


STAGE = Stage(
    name="preference",
    group="datasets",
    description="The selected pairs with their evidence, in TRL's explicit conversational form.",
    needs=("pairs", "pair_scores", "prompts", "candidates"),
    run=run,
    table="preference",
    enabled=lambda recipe: recipe.builds_pairs,
)

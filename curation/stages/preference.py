"""Stage ``preference``: select pairs by their evidence, and put them into the form that trainers read."""

from __future__ import annotations

import polars as pl

from curation.pairs.margin_scales import scale_count, with_one_scale_of_margins
from curation.pairs.refusing import limit_refusal_pairs
from curation.pairs.selection import select_pairs
from curation.publish.formats import preference_frame, strength_column
from curation.stages.arrangement import arranged_pairs
from curation.stages.brought import pair_sources
from curation.stages.context import Context, Stage, StageResult
from curation.stages.duplicates import distinct_pairs
from curation.stages.pair_labels import labelled_pairs, labelled_scores
from curation.stages.waterfall import pair_waterfall, write_waterfall
from curation.tables import concat_rejects
from schemas import TABLES

__all__ = ["STAGE", "kept_pairs"]


def run(context: Context) -> StageResult:
    workspace, options = context.workspace, context.recipe.selection
    pairs, scores = with_one_scale_of_margins(labelled_pairs(context)), labelled_scores(context)
    scored = pairs.select("pair_id").join(scores, on="pair_id", how="left", maintain_order="left")
    selected = select_pairs(scored, options.rules, drop_refusal_pairs=options.drop_refusal_pairs)
    limited = limit_refusal_pairs(selected.kept, share=options.max_refusal_pair_share)
    chosen = pairs.join(limited.kept, on="pair_id", how="semi", maintain_order="left")
    named = options.mixture.sources if options.mixture else ()
    frame = preference_frame(
        pairs=chosen.with_columns(pair_sources(workspace, chosen, named=named)),
        prompts=workspace.read("prompts"),
        candidates=workspace.read("candidates"),
        pair_scores=scores,
    )
    facts = {f"threshold of {t['rule']}": t["threshold"] for t in selected.thresholds.iter_rows(named=True)}
    if (count := scale_count(pairs)) > 1 and strength_column(frame) == "margin":
        facts["scales of the margins"] = f"{count}, each margin is over the spread of its scale"
    distinct = distinct_pairs(context, frame)
    arranged = arranged_pairs(context, distinct.kept)
    rejects = concat_rejects(selected.rejects, limited.rejects, distinct.rejects, arranged.rejects)
    facts |= distinct.facts | arranged.facts
    result = context.write("preference", "preference", arranged.kept, rejects=rejects, facts=facts)
    # A row of a source is a pair only where the sources bring the pairs.
    tables = ("inputs", "pairs") if context.recipe.pairs.strategies == ("provided",) else ("pairs",)
    write_waterfall(
        context, "preference", pair_waterfall(workspace.read("rejects"), kept=result.rows, tables=tables)
    )
    return result


def kept_pairs(context: Context) -> pl.DataFrame:
    """The selected pairs, flipped ones turned round: rows of table ``pairs``; none where the recipe builds none."""
    if not context.recipe.builds_pairs:
        return pl.DataFrame(TABLES["pairs"].create_empty())
    kept = context.workspace.scan("preference").select("pair_id")
    pairs = labelled_pairs(context)
    return pairs.join(kept.collect(), on="pair_id", how="semi", maintain_order="left")


STAGE = Stage(
    name="preference",
    group="datasets",
    description="The selected pairs with their evidence, in TRL's explicit conversational form.",
    needs=("pairs", "pair_scores", "pair_labels", "prompts", "candidates"),
    run=run,
    table="preference",
    enabled=lambda recipe: recipe.builds_pairs,
)

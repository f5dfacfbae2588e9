"""What becomes of the selected pairs as a whole: a cap per prompt, a mixture, a curriculum. No stage is here."""

from __future__ import annotations

from typing import Any, NamedTuple

import polars as pl

from curation.pairs.curriculum import arrange
from curation.pairs.flipping import was_flipped
from curation.pairs.margin_scales import with_one_scale_of_margins
from curation.pairs.mixture import cap_per_prompt, mix_pairs
from curation.pairs.refusing import limit_refusal_pairs
from curation.publish.formats import strength_column
from curation.recipe.pairs import CurriculumOrder, Mixture, Selection
from curation.stages.context import Context
from curation.tables import concat_rejects, empty_rejects

__all__ = ["Arranged", "arranged_pairs"]


class Arranged(NamedTuple):
    """The pairs that are published, in order."""

    kept: pl.DataFrame
    rejects: pl.DataFrame
    facts: dict[str, Any]


def arranged_pairs(context: Context, frame: pl.DataFrame) -> Arranged:
    """Cap, mix and order the selected pairs, as the recipe's section ``selection`` says.

    Each step may take other pairs than those of two refusals, so that their share is limited after each again.

    Args:
        frame: rows of table ``preference``.
    """
    options = context.recipe.selection
    kept, rejects = _limited(options, frame, empty_rejects())
    facts: dict[str, Any] = {}
    if options.max_per_prompt is not None:
        capped = cap_per_prompt(kept, limit=options.max_per_prompt, by=strength_column(kept))
        kept, rejects = _limited(options, capped.kept, concat_rejects(rejects, capped.rejects))
    if options.mixture is not None:
        kept, gone, facts = _mixed(options.mixture, kept, context.recipe.seed)
        drawn = kept.height
        kept, rejects = _limited(options, kept, concat_rejects(rejects, gone))
        if drawn > kept.height:
            facts["pairs of two refusals above their share of the mixture"] = drawn - kept.height
    if options.curriculum is not None:
        kept, found = _ordered(context, options.curriculum, kept)
        facts |= found
    return Arranged(kept, rejects, facts)


def _limited(options: Selection, pairs: pl.DataFrame, rejects: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The pairs without those of two refusals above their share, and the rejects with them."""
    limited = limit_refusal_pairs(pairs, share=options.max_refusal_pair_share)
    return limited.kept, concat_rejects(rejects, limited.rejects)


def _mixed(options: Mixture, pairs: pl.DataFrame, seed: int) -> tuple[pl.DataFrame, pl.DataFrame, dict[str, Any]]:
    mixed = mix_pairs(pairs, sources=options.sources, categories=options.categories, rows=options.rows, seed=seed)
    facts = {}
    for row in mixed.shares.iter_rows(named=True):
        name = " / ".join(part for part in (row["source"], row["category"]) if part is not None)
        short = f", {row['short']:,} short" if row["short"] else ""
        facts[f"mixture: {name}"] = f"{row['kept']:,} of {row['wanted']:,} wanted{short}; {row['found']:,} there"
    return mixed.kept, mixed.rejects, facts


def _ordered(
    context: Context, options: CurriculumOrder, pairs: pl.DataFrame
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """The pairs in the order of training, and how many lack the score that it goes by."""
    given = pairs
    if options.by == "margin":
        built = context.workspace.scan("pairs")
        if "margin" in built.collect_schema().names():
            margins = with_one_scale_of_margins(built.collect()).select("pair_id", _margin="margin")
            given = pairs.join(margins, on="pair_id", how="left", maintain_order="left")
            # It is of the pair as it was built: a flip turns it round.
            margin = pl.when(was_flipped(given)).then(-pl.col("_margin")).otherwise("_margin")
            given = given.with_columns(margin=margin).drop("_margin")
    found = arrange(
        given,
        by=options.by,
        hardest_first=options.hardest_first,
        tiers=options.tiers,
        within_prompt=options.within_prompt,
    )
    columns = ("curriculum_order", "curriculum_tier", "curriculum_score")
    order = found.pairs.select("pair_id", *columns)
    ordered = order.join(pairs, on="pair_id", maintain_order="left").select(*pairs.columns, *columns)
    tiers = found.pairs["curriculum_tier"].value_counts().sort("curriculum_tier")
    facts: dict[str, Any] = {f"curriculum tier {tier}": rows for tier, rows in tiers.iter_rows()}
    if found.missing:
        facts[f"pairs without {options.by}, put last"] = found.missing
    return ordered, facts

"""What each rule removed on the way to a dataset. No stage is here; the dataset stages call it."""

from __future__ import annotations

from typing import Final

import polars as pl

from curation.stages.context import Context
from curation.tables import validated
from schemas import TABLES

__all__ = ["pair_waterfall", "write_waterfall"]

_ORDER: Final = ("inputs", "hygiene", "prompts", "candidates", "pairs", "pair_labels", "preference")


def pair_waterfall(rejects: pl.DataFrame, *, kept: int, tables: tuple[str, ...]) -> pl.DataFrame:
    """The waterfall of pairs, from the rejects that name them.

    Args:
        rejects: rows of table ``rejects``, in the order in which the rules ran within a stage.
        kept: the pairs that are left at the end.
        tables: whose rejects are counted.

    Returns:
        Columns stage, rule, removed, left: one row a rule, or one that removes nothing.
    """
    counted = rejects.filter(pl.col("table").is_in(tables) & pl.col("stage").is_in(_ORDER))
    order = pl.col("stage").replace_strict(list(_ORDER), list(range(len(_ORDER))), return_dtype=pl.Int64)
    rules = (
        counted.with_columns(_order=order)
        .sort("_order", maintain_order=True)
        .group_by("stage", "rule", maintain_order=True)
        .agg(removed=pl.len().cast(pl.Int64))
    )
    start = kept + int(rules["removed"].sum())
    if rules.is_empty():
        rules = pl.DataFrame({"stage": ["pairs"], "rule": ["nothing_dropped"], "removed": [0]}, schema=rules.schema)
    return rules.with_columns(left=start - pl.col("removed").cum_sum())


def write_waterfall(context: Context, dataset: str, rules: pl.DataFrame) -> pl.DataFrame:
    """Keep a dataset's waterfall: columns stage, rule, removed, left, in order.

    Where it is known, also threshold, anchors_short, and what one step's looser threshold would give:
    next_threshold, next_left, next_anchors_short.
    """
    known = TABLES["waterfall"].create_empty().schema
    frame = rules.select(
        pl.lit(dataset).alias("dataset"),
        pl.int_range(pl.len(), dtype=pl.Int64).alias("position"),
        *(
            pl.col(name).cast(kind) if name in rules.columns else pl.lit(None, dtype=kind).alias(name)
            for name, kind in known.items()
            if name not in ("dataset", "position")
        ),
    )
    kept = validated("waterfall", frame, stage=dataset).kept
    context.workspace.overwrite("waterfall", kept, where=("dataset", dataset))
    return kept

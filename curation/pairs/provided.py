"""The pairs that the sources bring. Pairs that are built from candidates are in ``construction``."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from curation.pairs.construction import PAIR_KEY, BuiltPairs, pair_ids
from curation.pairs.margin_scales import scale_of_source
from curation.tables import concat_rejects, rejects_frame

__all__ = ["provided_pairs"]


def provided_pairs(inputs: pl.DataFrame, scales: Mapping[str, str | None]) -> BuiltPairs:
    """The pairs that the sources bring, each once.

    Args:
        inputs: rows of table ``inputs``; those of kind ``pair`` are used.
        scales: of each source the scale that the recipe names, or None for one of its own.

    Returns:
        The pairs, with margin null or the difference of the row's own scores; and as rejects the rows
        that repeat a pair (``duplicate_pair``, naming the row that was kept).
    """
    rows = (
        inputs.filter(pl.col("kind") == "pair")
        .select(
            "input_id",
            "prompt_id",
            chosen_id=pl.col("candidate_ids").list.get(pl.col("chosen_index")),
            rejected_id=pl.col("candidate_ids").list.get(pl.col("rejected_index")),
            margin=pl.col("scores").list.get(pl.col("chosen_index"))
            - pl.col("scores").list.get(pl.col("rejected_index")),
            margin_scale=scale_of_source(scales),
        )
        .with_columns(margin_scale=pl.when(pl.col("margin").is_not_null()).then("margin_scale"))
    )
    same = rows.filter(pl.col("chosen_id") == pl.col("rejected_id"))
    rows = rows.filter(pl.col("chosen_id") != pl.col("rejected_id"))
    first = pl.col("input_id").first().over(PAIR_KEY)
    repeated = rows.with_columns(_first=first).filter(pl.col("_first") != pl.col("input_id"))
    kept = rows.unique(subset=PAIR_KEY, keep="first", maintain_order=True)
    rejects = concat_rejects(
        rejects_frame(
            same,
            table="inputs",
            stage="pairs",
            row_id=pl.col("input_id"),
            rule="chosen_equals_rejected",
            reason="chosen and rejected are the same text once normalised",
        ),
        rejects_frame(
            repeated,
            table="inputs",
            stage="pairs",
            row_id=pl.col("input_id"),
            rule="duplicate_pair",
            value=pl.col("_first"),
            reason=pl.format("the same pair stands in row {}, which was kept", "_first"),
        ),
    )
    return BuiltPairs(
        pair_ids(kept.select(*PAIR_KEY, "margin", "margin_scale", strategy=pl.lit("provided"))), rejects
    )

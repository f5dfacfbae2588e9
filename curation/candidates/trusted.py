"""Which answers of the sources are taken for right, and which for wrong: what constructed answers start from."""

from __future__ import annotations

import polars as pl

__all__ = ["source_verdicts"]


def source_verdicts(inputs: pl.DataFrame) -> pl.DataFrame:
    """What the sources say of their answers.

    Right are a pair's chosen answer, an answer that is labelled good, the single best of a row with several scores,
    and the answer of a row that has only one and says nothing of it: one score says neither. Wrong are a pair's
    rejected answer and an answer that is labelled bad. An answer of which sources say both is neither.

    Args:
        inputs: rows of table ``inputs``.

    Returns:
        ``prompt_id``, ``candidate_id``, ``right`` (true or false): one row an answer, in the order of the input.
    """
    rows = inputs.filter(pl.col("candidate_ids").list.len() > 0).select(
        "prompt_id",
        "kind",
        "chosen_index",
        "rejected_index",
        candidate_id="candidate_ids",
        score=_filled("scores", pl.Float64),
        label=_filled("labels", pl.Boolean),
        place=pl.int_ranges(0, pl.col("candidate_ids").list.len()),
        n=pl.col("candidate_ids").list.len(),
        scored=pl.col("scores").list.drop_nulls().list.len(),
        best=pl.col("scores").list.max(),
    )
    each = rows.with_row_index("row").explode("candidate_id", "score", "label", "place")
    top = (pl.col("score") == pl.col("best")) & ((pl.col("score") == pl.col("best")).sum().over("row") == 1)
    right = (
        pl.when(pl.col("kind") == "pair")
        .then(
            pl.when(pl.col("place") == pl.col("chosen_index"))
            .then(True)
            .when(pl.col("place") == pl.col("rejected_index"))
            .then(False)
        )
        .when(pl.col("label").is_not_null())
        .then("label")
        .when((pl.col("scored") > 1) & top.fill_null(value=False))
        .then(True)
        .when((pl.col("n") == 1) & pl.col("score").is_null())
        .then(True)
    )
    said = each.with_columns(right=right).drop_nulls("right")
    agreed = said.group_by("prompt_id", "candidate_id", maintain_order=True).agg(
        pl.col("right").first(), _both=pl.col("right").n_unique() > 1
    )
    return agreed.filter(~pl.col("_both")).drop("_both")


def _filled(column: str, dtype: type[pl.DataType]) -> pl.Expr:
    """A list column, with as many nulls as there are answers where it is null."""
    nulls = pl.lit(None, dtype=dtype).repeat_by(pl.col("candidate_ids").list.len())
    return pl.when(pl.col(column).is_null()).then(nulls).otherwise(pl.col(column))

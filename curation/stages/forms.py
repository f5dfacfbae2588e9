"""The rows of each dataset that is published, from its own table or from another. No stage is here."""

from __future__ import annotations

import polars as pl

from curation.publish.derived import reward_frame, sft_frame, triplets_frame
from curation.recipe import MADE_FROM
from curation.stages.context import Context

__all__ = ["published_rows", "split_sizes", "table_of"]


def table_of(dataset: str) -> str:
    """The table whose rows, gates and rejects are the dataset's."""
    return MADE_FROM.get(dataset, dataset)


def published_rows(context: Context, dataset: str) -> pl.DataFrame:
    """The rows of a dataset."""
    rows = context.workspace.read(table_of(dataset))
    if dataset == "reward":
        return reward_frame(rows)
    if dataset == "sft":
        return sft_frame(rows)
    return triplets_frame(rows) if dataset == "retrieval_triplets" else rows


def split_sizes(context: Context, dataset: str) -> dict[str, int]:
    """Rows by split."""
    rows = context.workspace.scan(table_of(dataset))
    if dataset == "sft":
        rows = rows.filter("label")
    each = 1
    if dataset == "retrieval_triplets":
        each = sum(c.removeprefix("negative_").isdecimal() for c in rows.collect_schema().names())
    counts: pl.DataFrame = rows.group_by("split").len().sort("split").collect()
    return {split: rows * each for split, rows in counts.iter_rows()}

"""``embeddings``: the vector of each distinct text under each encoder."""

from __future__ import annotations

import dataframely as dy
import polars as pl

from schemas.columns import identifier

__all__ = ["Embeddings"]


class Embeddings(dy.Schema):
    """Ledger of encoder passes."""

    text_id = identifier()
    model = dy.String(primary_key=True)
    vector = dy.List(dy.Float32(), min_length=1)
    truncated = dy.Bool(description="the encoder read only the beginning of the text")

    @dy.rule()
    def one_width_per_model(cls) -> pl.Expr:
        width = cls.vector.col.list.len()
        return width == width.first().over("model")

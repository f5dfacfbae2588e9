"""An encoder whose vectors are kept in the ledger, for stages that compare texts. No stage is here."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from curation.models.protocols import Encoded
from curation.recipe import Encoder as EncoderOptions
from curation.scores.similarity import vector_matrix
from curation.stages.context import Context
from curation.stages.embeddings import EmbeddingStep, embedding_step, text_ids

__all__ = ["LedgerEncoder"]


class LedgerEncoder:
    """The recipe's encoder, or another one; a text is encoded once, in whatever stage it is met first.

    A text that the model failed on has a zero vector, which is like nothing.
    """

    def __init__(
        self, context: Context, options: EncoderOptions | None = None, *, prompt: str | None = None
    ) -> None:
        self._context = context
        self._step = EmbeddingStep(embedding_step(context).options if options is None else options, prompt)
        self.fingerprint = self._step.key.producer
        self.dimension = 0
        """Known once something has been encoded."""

    def encode(self, texts: Sequence[str]) -> Encoded:
        asked = pl.DataFrame({"text": pl.Series(texts, dtype=pl.String)})
        asked = asked.with_columns(text_ids(asked["text"]).alias("text_id"))
        distinct = asked.unique("text_id", maintain_order=True).select("text_id", "text")
        self._context.compute(self._step, distinct)
        rows = self._context.ledger.fetch(self._step.key, distinct["text_id"])
        rows = rows.select("text_id", "vector", "truncated").with_row_index("at")
        vectors = vector_matrix(rows["vector"]) if rows.height else np.zeros((0, self.dimension), np.float32)
        self.dimension = vectors.shape[1]
        found = asked.join(
            rows.select("text_id", "at", "truncated"), on="text_id", how="left", maintain_order="left"
        )
        at = found["at"].fill_null(rows.height).to_numpy()
        padded = np.concatenate((vectors, np.zeros((1, vectors.shape[1]), np.float32)))
        return Encoded(padded[at], found["truncated"].fill_null(False).to_numpy())

"""The encoder under reward heads: vectors come from the ledger where the recipe's encoder is the same one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from curation.ledger import Ledger
from curation.models.encoder import encoder_fingerprint, open_encoder
from curation.models.identity import EMBEDDED
from curation.models.protocols import Encoded, Encoder
from curation.recipe import Encoder as EncoderOptions
from curation.scores.similarity import vector_matrix
from curation.stages.context import Context
from curation.stages.embeddings import EmbeddingStep, text_ids
from curation.workspace import Workspace

__all__ = ["StoredVectors", "encoder_for_heads", "shares_vectors"]


class StoredVectors:
    """An encoder that reads the ledger first; what is not there it encodes, and does not keep.

    It holds no model until a text is missing, and can be sent to another process.
    """

    def __init__(self, workspace: Workspace, options: EncoderOptions) -> None:
        self._workspace, self._options = workspace, options
        self._model: Encoder | None = None
        self._dimension: int | None = None
        self.fingerprint = encoder_fingerprint(options.model, max_length=options.max_length)

    def __getstate__(self) -> dict[str, Any]:
        """Where the vectors are, and how the model is set up; never the model."""
        return self.__dict__ | {"_model": None}

    @property
    def dimension(self) -> int:
        if self._dimension is None:
            self._dimension = self._loaded().dimension
        return self._dimension

    def encode(self, texts: Sequence[str]) -> Encoded:
        """The vectors of n texts, in the order given."""
        asked = pl.DataFrame({"text": pl.Series(texts, dtype=pl.String)})
        asked = asked.with_columns(text_ids(asked["text"]).alias("text_id"))
        distinct = asked.unique("text_id", maintain_order=True)
        stored = Ledger(self._workspace).fetch(EmbeddingStep(self._options).key, distinct["text_id"])
        missing = distinct.join(stored, on="text_id", how="anti", maintain_order="left")
        vectors, truncated = _matrix(stored), stored["truncated"].to_numpy()
        if missing.height:
            encoded = self._loaded().encode(missing["text"].to_list())
            vectors = np.concatenate((vectors, encoded.vectors)) if stored.height else encoded.vectors
            truncated = np.concatenate((truncated, encoded.truncated))
        if len(vectors):
            self._dimension = vectors.shape[1]
        known = pl.concat([stored["text_id"], missing["text_id"]])
        place = pl.DataFrame({"text_id": known, "at": np.arange(len(known))})
        at = asked.join(place, on="text_id", how="left", maintain_order="left")["at"].to_numpy()
        return Encoded(vectors[at], truncated[at])

    def _loaded(self) -> Encoder:
        if self._model is None:
            self._model = open_encoder(self._options.model, max_length=self._options.max_length)
        return self._model


def _matrix(stored: pl.DataFrame) -> npt.NDArray[np.float32]:
    return vector_matrix(stored["vector"]) if stored.height else np.zeros((0, 0), dtype=np.float32)


def shares_vectors(context: Context, fingerprint: str) -> bool:
    """Whether an encoder is the recipe's: the same weights, revision and length."""
    options = context.recipe.encoder
    return options is not None and fingerprint == encoder_fingerprint(options.model, max_length=options.max_length)


def encoder_for_heads(context: Context) -> Encoder:
    """The recipe's encoder, reading the ledger; the bundled one where the recipe has none."""
    options = context.recipe.encoder
    return open_encoder(EMBEDDED) if options is None else StoredVectors(context.workspace, options)

"""Text-pair scorers for ``RescoreFilter``: a cross-encoder. Reward models are asked in ``stages.rescoring``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from curation.errors import InputError
from curation.models.identity import resolve_model
from curation.negatives.inputs import Int64

__all__ = ["RowScorer", "TextScorer", "cross_encoder_fingerprint", "open_cross_encoder"]

TextScorer = Callable[[Sequence[str], Sequence[str]], npt.NDArray[Any]]
"""(anchors, documents), equally long, to a score of each pair; higher is more relevant."""


def cross_encoder_fingerprint(model: str) -> str:
    """What a cross-encoder's scores depend on: its files, or its commit.

    Raises:
        InputError: when ``model`` names nothing.
    """
    return resolve_model(model, embedded="encoder").fingerprint


def open_cross_encoder(model: str, *, batch_size: int = 32, device: str | None = None) -> TextScorer:
    """A sentence-transformers cross-encoder with one output, from a folder or the Hub.

    Raises:
        InputError: when ``model`` names nothing, was not trained to score, or (once it scores) has several outputs.
    """
    from sentence_transformers import CrossEncoder

    ref = resolve_model(model, embedded="encoder")
    loaded = CrossEncoder(ref.location, revision=ref.commit, device=device, model_kwargs={"use_safetensors": True})
    _check_scores(model, loaded)

    def score(anchors: Sequence[str], documents: Sequence[str]) -> npt.NDArray[Any]:
        pairs = list(zip(anchors, documents, strict=True))
        scores = np.asarray(loaded.predict(pairs, batch_size=batch_size, show_progress_bar=False))
        if scores.ndim > 1:
            raise InputError(
                f"{model}: gives {scores.shape[1]} scores for a pair, expected one: name a cross-encoder that was "
                "trained to rank, not to classify"
            )
        return scores

    return score


def _check_scores(model: str, loaded: Any) -> None:
    """An encoder has no layer that scores, and would get one of random numbers; rerankers of several modules bring
    their own."""
    if len(loaded) > 1:
        return
    made = (loaded[0].auto_model.config.architectures or [""])[0]
    if made and not made.endswith(("ForSequenceClassification", "ForCausalLM")):
        raise InputError(
            f"{model}: is a {made}, which scores nothing; name a cross-encoder that was trained to rank"
        )


class RowScorer:
    """A ``PairScorer`` over texts: row numbers become texts. Without a score a candidate is not trusted."""

    def __init__(self, scorer: TextScorer, anchors: Sequence[str], corpus: Sequence[str]) -> None:
        self._scorer, self._anchors, self._corpus = scorer, anchors, corpus

    def score(self, anchors: Int64, documents: Int64) -> npt.NDArray[Any]:
        if not len(anchors):
            return np.empty(0)
        given = self._scorer([self._anchors[i] for i in anchors], [self._corpus[j] for j in documents])
        return np.asarray(given, dtype=np.float64)

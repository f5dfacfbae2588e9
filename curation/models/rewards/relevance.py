"""R3, the relevance reward: does an open-ended answer speak of the question, at length, without repetition?

r = relevance × (tokens / 100) × (unique trigrams / trigrams) (Kim et al. 2024, R3; the last two factors keep
an answer from copying the question). Relevance here is the encoder's cosine of prompt and answer; tokens
are words. For open-ended prompts only: where an answer is right or wrong, use a model that knows.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from curation.models.encoder import encoder_fingerprint, open_encoder
from curation.models.identity import EMBEDDED
from curation.models.protocols import Encoder
from curation.text import Message, last_user_text

__all__ = ["RelevanceReward", "open_relevance", "relevance_fingerprint", "relevance_reward", "unique_trigrams"]

FloatArray = npt.NDArray[np.float64]
_WORD: Final = re.compile(r"\w+")
_TOKENS_PER_UNIT: Final = 100


def relevance_reward(relevance: npt.ArrayLike, tokens: npt.ArrayLike, unique: npt.ArrayLike) -> FloatArray:
    """relevance × tokens / 100 × unique-trigram ratio, elementwise."""
    return np.asarray(
        np.asarray(relevance, dtype=np.float64) * np.asarray(tokens) / _TOKENS_PER_UNIT * np.asarray(unique)
    )


def unique_trigrams(words: Sequence[str]) -> float:
    """The share of a text's word trigrams that are different; 1 where there are fewer than three words."""
    trigrams = list(zip(words, words[1:], words[2:], strict=False))
    return len(set(trigrams)) / len(trigrams) if trigrams else 1.0


def relevance_fingerprint(
    model: str = "relevance", *, encoder: str = EMBEDDED, max_tokens: int = 400, device: str | None = None
) -> str:
    """The encoder and the length beyond which words count no more."""
    return f"relevance/{max_tokens}+{encoder_fingerprint(encoder)}"


def open_relevance(
    model: str = "relevance", *, encoder: str = EMBEDDED, max_tokens: int = 400, device: str | None = None
) -> RelevanceReward:
    """R3 over any encoder.

    Args:
        max_tokens: the length incentive stops growing here (ours; the paper has no limit).
    """
    fingerprint = relevance_fingerprint(encoder=encoder, max_tokens=max_tokens)
    return RelevanceReward(open_encoder(encoder, device=device), fingerprint=fingerprint, max_tokens=max_tokens)


class RelevanceReward:
    """See ``curation.models.protocols.RewardModel``."""

    outputs = ("relevance",)

    def __init__(self, encoder: Encoder, *, fingerprint: str, max_tokens: int) -> None:
        self._encoder = encoder
        self._max_tokens = max_tokens
        self.fingerprint = fingerprint

    def score(self, prompts: Sequence[Sequence[Message]], responses: Sequence[str]) -> FloatArray:
        """(n, 1) rewards."""
        count = len(responses)
        vectors = self._encoder.encode([*(last_user_text(prompt) for prompt in prompts), *responses]).vectors
        cosine = np.einsum("nd,nd->n", vectors[:count], vectors[count:], dtype=np.float64)
        words = [_WORD.findall(response.lower()) for response in responses]
        tokens = np.minimum([len(w) for w in words], self._max_tokens) if count else np.zeros(0)
        unique = np.array([unique_trigrams(w) for w in words])
        return relevance_reward(cosine, tokens, unique).reshape(count, 1)

"""R3, the relevance reward: does an answer speak of the question, at length, without repetition, or as one known?

Open-ended prompts: r = relevance × (tokens / 100) × (unique trigrams / trigrams) (Kim et al. 2024; the last two
keep an answer from copying the question). Relevance here is the encoder's cosine of prompt and answer; tokens are
words. Constrained prompts, which have a known answer: its relevance to the answer, stretched over the range of the
other reward, × (unique trigrams / trigrams), and nothing for length. The published code stretches 0 to 3.5, inner
products of its encoder, to 0 to the longest answer's reward; a cosine ends at 1. An answer near the known one is
not proved right: "17" and "71" are near.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from curation.errors import InputError
from curation.files import ROW, open_input
from curation.models.encoder import encoder_fingerprint, open_encoder
from curation.models.identity import EMBEDDED
from curation.models.protocols import Encoder
from curation.prompts.texts import cells, refuse_json_columns
from curation.text import Message, as_messages, canonical_json, content_hash, last_user_text, normalise, prompt_id

__all__ = [
    "RelevanceReward",
    "factuality_map",
    "open_relevance",
    "read_references",
    "relevance_fingerprint",
    "relevance_reward",
    "unique_trigrams",
]

FloatArray = npt.NDArray[np.float64]
_WORD: Final = re.compile(r"\w+")
_TOKENS_PER_UNIT: Final = 100
_COLUMNS: Final = ("prompt", "reference")


def relevance_reward(relevance: npt.ArrayLike, tokens: npt.ArrayLike, unique: npt.ArrayLike) -> FloatArray:
    """relevance × tokens / 100 × unique-trigram ratio, elementwise."""
    return np.asarray(
        np.asarray(relevance, dtype=np.float64) * np.asarray(tokens) / _TOKENS_PER_UNIT * np.asarray(unique)
    )


def factuality_map(relevance: npt.ArrayLike, unique: npt.ArrayLike, *, max_tokens: int) -> FloatArray:
    """Relevance to the known answer, from 0 to 1, on 0 to max_tokens / 100, × unique-trigram ratio, elementwise."""
    top = max_tokens / _TOKENS_PER_UNIT
    return np.asarray(np.asarray(relevance, dtype=np.float64) * top * np.asarray(unique))


def unique_trigrams(words: Sequence[str]) -> float:
    """The share of a text's word trigrams that are different; 1 where there are fewer than three words."""
    trigrams = list(zip(words, words[1:], words[2:], strict=False))
    return len(set(trigrams)) / len(trigrams) if trigrams else 1.0


def read_references(path: str | Path) -> dict[str, str]:
    """The known answer of each prompt, by ``prompt_id``; a row without one says nothing.

    Args:
        path: a file with ``prompt`` (text or messages) and ``reference``.

    Raises:
        InputError: when it cannot be read, lacks a column, has a prompt or an answer that is none, or two answers
            to one prompt.
    """
    return dict(_references(path).answers)


class _References(NamedTuple):
    """The known answers by ``prompt_id``, and what they are in a fingerprint."""

    answers: Mapping[str, str]
    key: str


def _references(path: str | Path | None) -> _References:
    if path is None:
        return _References({}, "")
    try:
        found = os.stat(path)
    except OSError:  # not of this machine, or not there: reading says so
        return _keyed(str(path), 0, 0)
    return _keyed(str(path), found.st_mtime_ns, found.st_size)


@lru_cache(maxsize=4)
def _keyed(path: str, changed: int, size: int) -> _References:
    """Read and hashed once, for a run asks for fingerprints many times; again when the file has changed."""
    known = _read(path)
    key = f"+references@{content_hash(canonical_json(sorted(known.items())))}" if known else ""
    return _References(known, key)


def _read(path: str) -> dict[str, str]:
    source = open_input(path)
    for name in _COLUMNS:
        if name not in source.schema:
            found = ", ".join(source.schema)
            raise InputError(f"{path}: column {name!r} is missing: found {found}; expected prompt and reference")
    refuse_json_columns(source, _COLUMNS)
    frame = source.whole()
    if source.rejects:
        raise InputError(f"{path}, row {source.rejects[0].row}: {source.rejects[0].reason}")
    known: dict[str, str] = {}
    columns = (cells(frame, name, mixed=source.mixed) for name in _COLUMNS)
    for row, prompt, answer in zip(frame[ROW], *columns, strict=True):
        if answer is None:
            continue
        try:
            key = prompt_id(as_messages(prompt))
        except ValueError as error:
            raise InputError(f"{path}, row {row}, prompt: {error}") from error
        if not isinstance(answer, str) or not answer.strip():
            raise InputError(
                f"{path}, row {row}: reference is empty or no text, expected the known answer, or null"
            )
        if normalise(known.setdefault(key, answer)) != normalise(answer):
            raise InputError(f"{path}, row {row}: a second reference for this prompt, expected one a prompt")
    return known


def relevance_fingerprint(
    model: str = "relevance",
    *,
    encoder: str = EMBEDDED,
    references: str | None = None,
    max_tokens: int = 400,
    device: str | None = None,
) -> str:
    """The encoder, the length beyond which words count no more, and the known answers."""
    return _fingerprint(_references(references), encoder, max_tokens)


def _fingerprint(known: _References, encoder: str, max_tokens: int) -> str:
    return f"relevance/{max_tokens}+{encoder_fingerprint(encoder)}{known.key}"


def open_relevance(
    model: str = "relevance",
    *,
    encoder: str = EMBEDDED,
    references: str | None = None,
    max_tokens: int = 400,
    device: str | None = None,
) -> RelevanceReward:
    """R3 over any encoder.

    Args:
        references: a file with the known answers of constrained prompts (:func:`read_references`); None for none.
        max_tokens: the length incentive stops growing here (ours; the paper has no limit).
    """
    known = _references(references)
    return RelevanceReward(
        open_encoder(encoder, device=device),
        fingerprint=_fingerprint(known, encoder, max_tokens),
        max_tokens=max_tokens,
        references=known.answers,
    )


class RelevanceReward:
    """See ``curation.models.protocols.RewardModel``.

    Attributes:
        compared, scored: how many answers had a known one beside them so far, and how many there were.
    """

    outputs = ("relevance",)

    def __init__(
        self, encoder: Encoder, *, fingerprint: str, max_tokens: int, references: Mapping[str, str] | None = None
    ) -> None:
        self._encoder = encoder
        self._max_tokens = max_tokens
        self._references = references or {}
        self.fingerprint = fingerprint
        self.compared = self.scored = 0

    def score(self, prompts: Sequence[Sequence[Message]], responses: Sequence[str]) -> FloatArray:
        """(n, 1) rewards."""
        count = len(responses)
        known = [self._references.get(prompt_id(prompt)) if self._references else None for prompt in prompts]
        asked = [last_user_text(prompt) if one is None else one for prompt, one in zip(prompts, known, strict=True)]
        vectors = self._encoder.encode([*asked, *responses]).vectors
        cosine = np.einsum("nd,nd->n", vectors[:count], vectors[count:], dtype=np.float64)
        words = [_WORD.findall(response.lower()) for response in responses]
        tokens = np.minimum([len(w) for w in words], self._max_tokens) if count else np.zeros(0)
        unique = np.array([unique_trigrams(w) for w in words])
        constrained = np.array([one is not None for one in known], dtype=bool)
        self.compared += int(constrained.sum())
        self.scored += count
        factual = factuality_map(cosine, unique, max_tokens=self._max_tokens)
        return np.where(constrained, factual, relevance_reward(cosine, tokens, unique)).reshape(count, 1)

    @property
    def note(self) -> str:
        """How many answers were held against a known one; empty without any known."""
        if not self._references:
            return ""
        return f"{self.compared:,} of {self.scored:,} answers were held against the reference of their prompt"

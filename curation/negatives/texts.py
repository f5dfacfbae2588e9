"""Hard negatives for texts: duplicates merged, embedded once, mined. Files are read by the command."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, Unpack

import numpy as np

from curation.errors import InputError
from curation.models.protocols import Encoded
from curation.negatives.inputs import Int64
from curation.negatives.mining import MinedNegatives, MiningOptions, mine_hard_negatives
from curation.text import normalise

__all__ = ["Corpus", "MinedTexts", "TextEncoder", "build_corpus", "mine_text_negatives"]


class TextEncoder(Protocol):
    """What mining needs of an encoder: ``curation.models.protocols.Encoder`` has it."""

    def encode(self, texts: Sequence[str]) -> Encoded: ...


class Corpus(NamedTuple):
    """Distinct documents, and where each positive is among them."""

    texts: list[str]
    """The documents in order of first appearance: the corpus that was given, then its missing positives."""
    positives: list[list[int]]
    """Per row of the input, the documents that are its positives."""
    duplicates: int
    """How many documents of the given corpus repeat an earlier one (after ``curation.text.normalise``)."""
    added: int
    """How many positives were not in the given corpus and were added to it."""


class MinedTexts(NamedTuple):
    """The negatives of n rows; rows with the same anchor share positives and negatives."""

    corpus: list[str]
    mined: MinedNegatives
    """Per distinct anchor; its row numbers point into ``corpus``."""
    anchor_of_row: Int64
    """(n,) the distinct anchor of each row."""
    truncated: int
    """How many distinct texts the encoder read only the beginning of."""
    duplicates: int
    added: int

    def negatives(self, row: int) -> list[str]:
        """The negatives of a row, nearest first."""
        return [self.corpus[at] for at in self.mined.negatives[self.anchor_of_row[row]] if at >= 0]

    def scores(self, row: int) -> list[float]:
        """Their similarities to the anchor."""
        scores = self.mined.scores[self.anchor_of_row[row]]
        return [float(s) for s in scores[~np.isnan(scores)]]

    def positive_score(self, row: int) -> float:
        return float(self.mined.positive_scores[self.anchor_of_row[row]])


def build_corpus(positives: Sequence[Sequence[str]], corpus: Sequence[str] | None) -> Corpus:
    """The documents to search: each once, every positive among them.

    Args:
        positives: per row, the texts of its positives.
        corpus: the documents, None for the positives alone.
    """
    place: dict[str, int] = {}
    texts: list[str] = []

    def put(text: str) -> int:
        at = place.setdefault(normalise(text), len(texts))
        if at == len(texts):
            texts.append(text)
        return at

    given = len(corpus or ())
    for text in corpus or ():
        put(text)
    distinct = len(texts)
    rows = [[put(text) for text in own] for own in positives]
    added = len(texts) - distinct if corpus is not None else 0
    return Corpus(texts, rows, given - distinct, added)


def mine_text_negatives(
    *,
    anchors: Sequence[str],
    positives: Sequence[Sequence[str]],
    encoder: TextEncoder,
    corpus: Sequence[str] | None = None,
    **options: Unpack[MiningOptions],
) -> MinedTexts:
    """Embeds anchors and documents and mines negatives for each row.

    Texts that are equal after ``curation.text.normalise`` are one text. Rows with the same anchor share
    all their positives, and the document that is the anchor itself never becomes its negative.

    Args:
        anchors: n texts.
        positives: n lists of texts.
        encoder: gives L2-normalised vectors.
        corpus: the documents to mine in, None for all positives. Positives it lacks are added.
        **options: of :func:`mine_hard_negatives`.

    Raises:
        InputError: when the counts differ, or there is no document at all.
    """
    if len(anchors) != len(positives):
        raise InputError(
            f"positives: found {len(positives)} lists for {len(anchors)} anchors, expected as many"
        )
    documents = build_corpus(positives, corpus)
    distinct: dict[str, int] = {}
    first: list[str] = []
    for text in anchors:
        if distinct.setdefault(normalise(text), len(first)) == len(first):
            first.append(text)
    anchor_of_row = np.array([distinct[normalise(text)] for text in anchors], dtype=np.int64)
    shared: list[list[int]] = [[] for _ in first]
    for anchor, own in zip(anchor_of_row, documents.positives, strict=True):
        shared[anchor].extend(own)
    place = {normalise(text): row for row, text in enumerate(documents.texts)}
    itself = [[place[key]] if key in place else [] for key in distinct]
    embedded = encoder.encode(documents.texts)
    queries = encoder.encode(first)
    mined = mine_hard_negatives(
        anchor_embeddings=queries.vectors,
        corpus_embeddings=embedded.vectors,
        positives=shared,
        exclude=itself if any(itself) else None,
        **options,
    )
    truncated = int(embedded.truncated.sum() + queries.truncated.sum())
    return MinedTexts(documents.texts, mined, anchor_of_row, truncated, documents.duplicates, documents.added)

"""Hard negatives for texts: duplicates merged, embedded once, mined. Files are read by the command."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, Unpack

import numpy as np

from curation.errors import InputError
from curation.models.protocols import Encoded
from curation.negatives.false_negatives import (
    AgreementFilter,
    GuideFilter,
    NearPositiveFilter,
    RescoreFilter,
)
from curation.negatives.filters import CandidateFilter
from curation.negatives.inputs import Int64
from curation.negatives.mining import MinedNegatives, MiningOptions, mine_hard_negatives
from curation.negatives.rescoring import RowScorer, TextScorer
from curation.text import normalise

__all__ = ["Corpus", "Doubts", "MinedTexts", "TextEncoder", "build_corpus", "mine_text_negatives"]


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


class Doubts(NamedTuple):
    """What casts doubt on a candidate; see ``false_negatives``. By default nothing does."""

    near_positive: float | None = None
    """Remove documents whose cosine with a positive exceeds this; about .95 catches near-duplicates."""
    guides: Sequence[TextEncoder] = ()
    """Remove what these encoders put above the positive."""
    guide_margin: float = 0.0
    """How far below the positive a guide must see the candidate, as a share of the positive's score."""
    votes: int = 1
    """How many guides must agree, where there are several."""
    scorer: TextScorer | None = None
    """Remove what this scorer of pairs (a cross-encoder, a reward model) puts above the positive."""
    scorer_margin: float = 0.0
    scorer_depth: int | None = None
    """How many candidates of an anchor the scorer reads."""


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
    queries: TextEncoder | None = None,
    corpus: Sequence[str] | None = None,
    doubts: Doubts | None = None,
    **options: Unpack[MiningOptions],
) -> MinedTexts:
    """Embeds anchors and documents and mines negatives for each row.

    Texts that are equal after ``curation.text.normalise`` are one text. Rows with the same anchor share
    all their positives, and the document that is the anchor itself never becomes its negative.

    Args:
        anchors: n texts.
        positives: n lists of texts.
        encoder: gives L2-normalised vectors.
        queries: for the anchors, where the model reads other words before them; None for the same.
        corpus: the documents to mine in, None for all positives. Positives it lacks are added.
        doubts: the false-negative filters to run.
        **options: of :func:`mine_hard_negatives`.

    Raises:
        InputError: when the counts differ, or there is no document at all.
    """
    if len(anchors) != len(positives):
        raise InputError(f"positives: found {len(positives)} lists for {len(anchors)} anchors, expected as many")
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
    asked = (queries or encoder).encode(first)
    if doubts is not None:
        rules = _filters(doubts, first, documents.texts, shared, embedded)
        options["filters"] = [*options.get("filters", ()), *rules]
    mined = mine_hard_negatives(
        anchor_embeddings=asked.vectors,
        corpus_embeddings=embedded.vectors,
        positives=shared,
        exclude=itself if any(itself) else None,
        **options,
    )
    truncated = int(embedded.truncated.sum() + asked.truncated.sum())
    return MinedTexts(documents.texts, mined, anchor_of_row, truncated, documents.duplicates, documents.added)


def _filters(
    doubts: Doubts, anchors: Sequence[str], corpus: Sequence[str], positives: list[list[int]], embedded: Encoded
) -> list[CandidateFilter]:
    """The filters that ``doubts`` asks for, cheap ones first."""
    rules: list[CandidateFilter] = []
    if doubts.near_positive is not None:
        rules.append(
            NearPositiveFilter(
                corpus_embeddings=embedded.vectors,
                positives=positives,
                anchors=len(anchors),
                threshold=doubts.near_positive,
            )
        )
    guides = [
        GuideFilter(
            anchor_embeddings=guide.encode(anchors).vectors,
            corpus_embeddings=guide.encode(corpus).vectors,
            positives=positives,
            margin=doubts.guide_margin,
        )
        for guide in doubts.guides
    ]
    if len(guides) == 1:
        rules.append(guides[0])
    elif guides:
        rules.append(AgreementFilter(guides, votes=doubts.votes))
    if doubts.scorer is not None:
        rules.append(
            RescoreFilter(
                RowScorer(doubts.scorer, anchors, corpus),
                positives=positives,
                anchors=len(anchors),
                corpus=len(corpus),
                margin=doubts.scorer_margin,
                depth=doubts.scorer_depth,
            )
        )
    return rules

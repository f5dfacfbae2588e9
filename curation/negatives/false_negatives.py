"""Rules that remove likely false negatives: candidates that are near because they *are* positives.

Each is a ``filters.CandidateFilter``; pass them to ``mine_hard_negatives(filters=[...])``, cheap ones
first. The percentage-of-positive rule (NV-Retriever) is ``relative_margin``. How many false negatives are
left is estimated in ``estimate``.

Correcting pooling bias with a pair of relevance and selection models (CET) is not here: only its abstract
could be read, which does not fix its loss or weights, so it could not be stated exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from curation.errors import InputError
from curation.negatives.filters import Bool, Candidates
from curation.negatives.inputs import (
    Embeddings,
    Float32,
    Int64,
    Ragged,
    as_embeddings,
    as_ragged,
    blocks,
    checked_embeddings,
)
from curation.negatives.select import lowest_positive_scores

__all__ = ["AgreementFilter", "GuideFilter", "NearPositiveFilter", "PairScorer", "RescoreFilter"]

_PAIRS_AT_ONCE: Final = 262_144


class PairScorer(Protocol):
    """A cross-encoder, or a reward model that reads anchor and document as prompt and answer."""

    def score(self, anchors: Int64, documents: Int64) -> npt.NDArray[Any]:
        """(p,) a score of each pair of an anchor's and a corpus row; higher is more relevant."""
        ...


class GuideFilter:
    """Removes what a guide encoder puts above the positive (Solatorio 2024, GISTEmbed).

    A candidate goes when guide(anchor, candidate) > p − margin · |p|, with p the guide's lowest score of
    a positive. With margin 0 that is GIST's rule: strictly above the positive. What the guide has no vector for
    (a zero row), or all candidates of such an anchor, go, too: nobody vouches for them.
    """

    rule = "guide_above_positive"

    def __init__(
        self, *, anchor_embeddings: Any, corpus_embeddings: Any, positives: Any, margin: float = 0.0
    ) -> None:
        """
        Args:
            anchor_embeddings: (n, d') of the guide, in the order of the mined anchors.
            corpus_embeddings: (m, d') of the guide, in the order of the mined corpus.
            positives: as for ``mine_hard_negatives``.
            margin: how far below the positive a candidate must stay, as a share of the positive's score.
        """
        self.threshold: float | None = margin
        self._anchors, unread = checked_embeddings(anchor_embeddings, name="guide anchor_embeddings")
        self._corpus, unread_documents = checked_embeddings(corpus_embeddings, name="guide corpus_embeddings")
        self._unread = np.isin(np.arange(len(self._anchors)), unread)
        self._unread_documents = np.isin(np.arange(len(self._corpus)), unread_documents)
        lists = as_ragged(positives, anchors=len(self._anchors), corpus=len(self._corpus), name="positives")
        lowest = lowest_positive_scores(self._anchors, self._corpus, lists)
        self._limits = lowest - np.abs(lowest) * np.float32(margin)

    def remove(self, candidates: Candidates) -> Bool:
        limits = self._limits[candidates.anchors][:, None]
        scores = _alive_scores(candidates, self._anchors[candidates.anchors], self._corpus)
        unread = self._unread[candidates.anchors][:, None] | self._unread_documents[candidates.rows]
        return (scores > limits) | unread


class AgreementFilter:
    """Removes what at least ``votes`` encoders put above the positive, each by :class:`GuideFilter`."""

    rule = "encoders_agree"

    def __init__(self, guides: Sequence[GuideFilter], *, votes: int) -> None:
        if not 1 <= votes <= len(guides):
            raise InputError(f"votes: found {votes} for {len(guides)} guides, expected 1 to {len(guides)}")
        self.threshold: float | None = float(votes)
        self._guides, self._votes = list(guides), votes

    def remove(self, candidates: Candidates) -> Bool:
        counts = np.zeros(candidates.rows.shape, np.int16)
        for guide in self._guides:
            counts += guide.remove(candidates)
        return counts >= self._votes


class NearPositiveFilter:
    """Removes near-duplicates of a positive: similarity to any positive of the anchor above a threshold."""

    rule = "near_positive"

    def __init__(self, *, corpus_embeddings: Any, positives: Any, anchors: int, threshold: float = 0.95) -> None:
        """
        Args:
            corpus_embeddings: (m, d) L2-normalised.
            positives: as for ``mine_hard_negatives``.
            anchors: how many anchors there are.
            threshold: the greatest cosine that a negative may have with a positive.
        """
        self.threshold: float | None = threshold
        self._corpus = as_embeddings(corpus_embeddings, name="corpus_embeddings")
        self._positives = as_ragged(positives, anchors=anchors, corpus=len(self._corpus), name="positives")

    def remove(self, candidates: Candidates) -> Bool:
        gone = np.zeros(candidates.rows.shape, np.bool_)
        start = int(candidates.anchors[0])
        lists: Ragged = self._positives.part(start, start + len(candidates.anchors))
        for position in range(int(lists.counts.max(initial=0))):
            has = np.flatnonzero(lists.counts > position)
            own = self._corpus[lists.values[lists.offsets[has] + position]]
            part = _rows_of(candidates, has)
            gone[has] |= _alive_scores(part, own, self._corpus) > np.float32(self.threshold or 0.0)
        return gone


class RescoreFilter:
    """Removes what a stronger, slower model puts above the positive: a cross-encoder or a reward model.

    A candidate goes when its score exceeds the lowest score of the anchor's positives minus ``margin``,
    both in the scorer's own unit. Only the ``depth`` nearest survivors of the rules before are scored;
    the others go, too, since nobody vouches for them. A pair without a score is NaN, and not vouched for.
    """

    rule = "rescored_above_positive"

    def __init__(
        self,
        scorer: PairScorer,
        *,
        positives: Any,
        anchors: int,
        corpus: int,
        margin: float = 0.0,
        depth: int | None = None,
    ) -> None:
        """
        Args:
            scorer: scores pairs of row numbers.
            positives: as for ``mine_hard_negatives``.
            anchors: how many anchors there are.
            corpus: how many documents there are.
            margin: how far below the positive a candidate must stay, in the scorer's unit.
            depth: how many candidates of an anchor are scored, None for all.
        """
        self.threshold: float | None = margin
        self._scorer, self._depth = scorer, depth
        self._positives = as_ragged(positives, anchors=anchors, corpus=corpus, name="positives")

    def remove(self, candidates: Candidates) -> Bool:
        alive = candidates.alive
        looked_at = alive
        if self._depth is not None:
            looked_at = alive & (np.cumsum(alive, axis=1, dtype=np.int32) <= self._depth)
        start = int(candidates.anchors[0])
        own = self._positives.part(start, start + len(candidates.anchors))
        lowest = np.full(len(candidates.anchors), np.inf)
        scores = np.asarray(self._scorer.score(own.owners + start, own.values), dtype=np.float64)
        np.minimum.at(lowest, own.owners, scores)
        who, place = np.nonzero(looked_at)
        given = self._scorer.score(candidates.anchors[who], candidates.rows[who, place])
        # NaN, no score of the candidate or of a positive, is not below anything: the candidate goes.
        above = ~(np.asarray(given, dtype=np.float64) <= lowest[who] - (self.threshold or 0.0))
        gone = alive & ~looked_at
        gone[who[above], place[above]] = True
        return gone


def _rows_of(candidates: Candidates, which: Int64) -> Candidates:
    return Candidates(
        candidates.anchors[which],
        candidates.rows[which],
        candidates.scores[which],
        candidates.positive_scores[which],
        candidates.alive[which],
    )


def _alive_scores(candidates: Candidates, left: Embeddings, corpus: Embeddings) -> Float32:
    """(n, k) inner products of ``left[i]`` with the living candidates of anchor i; −inf for the dead."""
    scores = np.full(candidates.rows.shape, -np.inf, np.float32)
    who, place = np.nonzero(candidates.alive)
    rows = candidates.rows[who, place]
    size = max(1, _PAIRS_AT_ONCE * 64 // max(corpus.shape[1], 1))
    for part in blocks(len(rows), size):
        a = np.asarray(left[who[part]], dtype=np.float32)
        b = np.asarray(corpus[rows[part]], dtype=np.float32)
        scores[who[part], place[part]] = np.einsum("ij,ij->i", a, b)
    return scores

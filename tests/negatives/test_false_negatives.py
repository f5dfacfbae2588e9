"""Each false-negative rule against its definition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from curation.errors import InputError
from curation.negatives.false_negatives import (
    AgreementFilter,
    GuideFilter,
    NearPositiveFilter,
    RescoreFilter,
)
from curation.negatives.mining import MinedNegatives, mine_hard_negatives
from tests.negatives.vectors import Vectors

MakeVectors = Callable[..., Vectors]
POSITIVES = [[0], [1, 2], [3], [4, 5]]


@pytest.fixture
def data(make_vectors: MakeVectors) -> dict[str, Any]:
    return {
        "anchor_embeddings": make_vectors(4, 8),
        "corpus_embeddings": make_vectors(80, 8, seed=1),
        "positives": POSITIVES,
        "num_negatives": 60,
        "range_max": 80,
    }


def rows_of(mined: MinedNegatives, anchor: int) -> set[int]:
    return {int(row) for row in mined.negatives[anchor] if row >= 0}


def allowed(data: dict[str, Any], keep: Callable[[int, int], bool]) -> list[set[int]]:
    """What must be mined when every survivor is taken."""
    return [
        {row for row in range(len(data["corpus_embeddings"])) if row not in own and keep(anchor, row)}
        for anchor, own in enumerate(POSITIVES)
    ]


def take_all(data: dict[str, Any], *filters: Any) -> list[set[int]]:
    mined = mine_hard_negatives(**{**data, "num_negatives": 80}, filters=filters)
    return [rows_of(mined, anchor) for anchor in range(len(POSITIVES))]


@pytest.mark.parametrize("margin", [0.0, 0.05])
def test_guide_removes_what_it_puts_above_the_lowest_positive(
    data: dict[str, Any], make_vectors: MakeVectors, margin: float
) -> None:
    anchors, corpus = make_vectors(4, 5, seed=7), make_vectors(80, 5, seed=8)
    guide = GuideFilter(anchor_embeddings=anchors, corpus_embeddings=corpus, positives=POSITIVES, margin=margin)

    def keep(anchor: int, row: int) -> bool:
        p = min(float(anchors[anchor] @ corpus[own]) for own in POSITIVES[anchor])
        return float(anchors[anchor] @ corpus[row]) <= p - margin * abs(p) + 1e-7

    assert take_all(data, guide) == allowed(data, keep)


def test_agreement_counts_votes(data: dict[str, Any], make_vectors: MakeVectors) -> None:
    guides = [
        GuideFilter(
            anchor_embeddings=make_vectors(4, 5, seed=seed),
            corpus_embeddings=make_vectors(80, 5, seed=seed + 10),
            positives=POSITIVES,
        )
        for seed in (20, 21, 22)
    ]
    kept = [take_all(data, guide) for guide in guides]
    for votes in (1, 2, 3):
        agreed = take_all(data, AgreementFilter(guides, votes=votes))
        for anchor, own in enumerate(POSITIVES):
            expected = {
                row for row in range(80) if row not in own and sum(row not in one[anchor] for one in kept) < votes
            }
            assert agreed[anchor] == expected


def test_near_duplicates_of_any_positive_go(data: dict[str, Any]) -> None:
    corpus = data["corpus_embeddings"]
    rule = NearPositiveFilter(corpus_embeddings=corpus, positives=POSITIVES, anchors=4, threshold=0.4)

    def keep(anchor: int, row: int) -> bool:
        return all(float(corpus[row] @ corpus[own]) <= 0.4 for own in POSITIVES[anchor])

    assert take_all(data, rule) == allowed(data, keep)


class TableScorer:
    """Scores read from a table; counts what it was asked."""

    def __init__(self, table: np.ndarray) -> None:
        self.table, self.asked = table, 0

    def score(self, anchors: Any, documents: Any) -> np.ndarray:
        self.asked += len(anchors)
        return self.table[anchors, documents]


def test_rescoring_removes_what_the_scorer_puts_above(data: dict[str, Any]) -> None:
    table = np.random.default_rng(3).standard_normal((4, 80))
    rule = RescoreFilter(TableScorer(table), positives=POSITIVES, anchors=4, corpus=80, margin=0.2)

    def keep(anchor: int, row: int) -> bool:
        return bool(table[anchor, row] <= min(table[anchor, own] for own in POSITIVES[anchor]) - 0.2)

    assert take_all(data, rule) == allowed(data, keep)


def test_rescoring_reads_no_deeper_than_asked(data: dict[str, Any]) -> None:
    scorer = TableScorer(np.zeros((4, 80)))
    rule = RescoreFilter(scorer, positives=POSITIVES, anchors=4, corpus=80, depth=7)
    mined = mine_hard_negatives(**data, filters=[rule])
    assert scorer.asked == 4 * 7 + sum(map(len, POSITIVES))
    assert [len(rows_of(mined, anchor)) for anchor in range(4)] == [7] * 4


def test_filters_are_in_the_waterfall_in_order(data: dict[str, Any]) -> None:
    near = NearPositiveFilter(
        corpus_embeddings=data["corpus_embeddings"], positives=POSITIVES, anchors=4, threshold=0.5
    )
    score = RescoreFilter(TableScorer(np.zeros((4, 80))), positives=POSITIVES, anchors=4, corpus=80)
    mined = mine_hard_negatives(**data, filters=[near, score], min_score=-0.2)
    rules = mined.waterfall["rule"].to_list()
    assert rules[:5] == ["retrieved", "positive", "min_score", "near_positive", "rescored_above_positive"]


def test_more_votes_than_guides_is_an_error() -> None:
    with pytest.raises(InputError, match="found 2 for 0 guides"):
        AgreementFilter([], votes=2)


def test_what_a_guide_has_no_vector_for_is_not_vouched_for(data: dict[str, Any], make_vectors: MakeVectors) -> None:
    anchors, corpus = make_vectors(4, 5, seed=7).copy(), make_vectors(80, 5, seed=8).copy()
    anchors[2], corpus[60:] = 0, 0
    guide = GuideFilter(anchor_embeddings=anchors, corpus_embeddings=corpus, positives=POSITIVES, margin=-1e6)
    mined = take_all(data, guide)
    assert mined[0] == set(range(60)) - {0}
    assert mined[2] == set()

"""Documents that are out of the question for an anchor: as if they were not in the corpus."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from curation.negatives.filters import Bool, Candidates
from curation.negatives.mining import MinedNegatives, mine_hard_negatives
from curation.negatives.sides import SplitFilter
from tests.negatives.oracle import mine_slowly
from tests.negatives.vectors import unit


@dataclass
class Listed:
    """Bars what a table says."""

    table: npt.NDArray[np.bool_]
    rule: str = "listed"
    threshold: float | None = None

    def remove(self, candidates: Candidates) -> Bool:
        found: Bool = self.table[candidates.anchors[:, None], candidates.rows]
        return found


def world(seed: int, *, rows: int = 400, anchors: int = 9) -> tuple[Any, Any, list[list[int]]]:
    rng = np.random.default_rng(seed)
    positives = [[int(row)] for row in rng.choice(rows, size=anchors, replace=False)]
    return unit(rng.standard_normal((anchors, 8))), unit(rng.standard_normal((rows, 8))), positives


def slowly(anchors: Any, corpus: Any, positives: list[list[int]], table: Any, **rules: Any) -> list[list[int]]:
    """Each anchor for itself, in a corpus that has been rid of what is barred for it."""
    found = []
    for anchor, own, gone in zip(anchors, positives, table, strict=True):
        left = np.flatnonzero(~gone)
        places = [int(np.flatnonzero(left == row)[0]) for row in own]
        found.append([int(left[row]) for row in mine_slowly(anchor[None], corpus[left], [places], **rules)[0]])
    return found


def listed(mined: MinedNegatives) -> list[list[int]]:
    return [[int(row) for row in rows if row >= 0] for rows in mined.negatives]


RULES = {"num_negatives": 3, "range_min": 1, "range_max": 12, "absolute_margin": None, "relative_margin": 0.05,
         "max_score": 0.9, "min_score": None}  # fmt: skip


@pytest.mark.parametrize("index", ["flat", "ivf"])
@pytest.mark.parametrize("share", [0.1, 0.6])
def test_barred_documents_are_as_if_they_were_not_there(index: Any, share: float) -> None:
    anchors, corpus, positives = world(1)
    table = np.random.default_rng(2).random((len(anchors), len(corpus))) < share
    for anchor, own in enumerate(positives):
        table[anchor, own] = False
    options: dict[str, Any] = {"index": index, "target_recall": 1.0}
    mined = mine_hard_negatives(anchor_embeddings=anchors, corpus_embeddings=corpus, positives=positives,
                                barred=Listed(table), **RULES, **options)  # fmt: skip
    assert listed(mined) == slowly(anchors, corpus, positives, table, **RULES)


def test_an_anchor_in_the_midst_of_barred_documents_is_searched_for_more_deeply() -> None:
    anchors, corpus, positives = world(3)
    near = np.argsort(-(anchors @ corpus.T), axis=1)
    table = np.zeros((len(anchors), len(corpus)), dtype=bool)
    table[0, near[0, :100]] = True  # of one anchor the 100 nearest, of the others nothing
    positives[0] = [int(near[0, 120])]
    looser = RULES | {"relative_margin": None, "max_score": None}
    mined = mine_hard_negatives(anchor_embeddings=anchors, corpus_embeddings=corpus, positives=positives,
                                barred=Listed(table), index="flat", **looser)  # fmt: skip
    assert listed(mined) == slowly(anchors, corpus, positives, table, **looser)
    rules = {row["rule"]: row for row in mined.waterfall.iter_rows(named=True)}
    # 13 a row are looked at, its positive among them, and the 100 that were passed over.
    assert (rules["listed"]["removed"], rules["listed"]["left"]) == (100, 13 * len(anchors))
    assert rules["retrieved"]["left"] == 13 * len(anchors) + 100


def test_range_max_counts_no_document_of_another_split() -> None:
    # The five nearest answer prompts of the test split; range_max is 4.
    angles = np.array([0.05, 0.06, 0.07, 0.08, 0.09, 0.2, 0.3, 0.4, 0.5, 1.4])
    corpus = unit(np.stack([np.cos(angles), np.sin(angles)], axis=1))
    splits = [["test"]] * 5 + [["train"]] * 5
    mined = mine_hard_negatives(
        anchor_embeddings=unit([[1.0, 0.0]]), corpus_embeddings=corpus, positives=[[9]], num_negatives=4,
        range_max=4, barred=SplitFilter(anchors=["train"], documents=splits), index="flat",
    )  # fmt: skip
    assert listed(mined) == [[5, 6, 7, 8]]


def test_nothing_is_barred_where_no_anchor_is() -> None:
    _, corpus, _ = world(4)
    table = np.ones((0, len(corpus)), dtype=bool)
    mined = mine_hard_negatives(anchor_embeddings=np.zeros((0, 8), np.float32), corpus_embeddings=corpus,
                                positives=[], num_negatives=2, barred=Listed(table))  # fmt: skip
    assert mined.negatives.shape == (0, 2)

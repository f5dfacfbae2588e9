"""Input that mining must refuse in words, or survive."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from curation.errors import InputError
from curation.negatives.mining import mine_hard_negatives
from curation.negatives.waterfall import describe_waterfall
from tests.negatives.vectors import Vectors, unit

MakeVectors = Callable[..., Vectors]


def test_all_embeddings_equal_gives_ties_by_row() -> None:
    same = unit(np.ones((9, 4)))
    mined = mine_hard_negatives(
        anchor_embeddings=same[:2], corpus_embeddings=same, positives=[0, 1], num_negatives=3, range_max=8
    )
    assert mined.negatives.tolist() == [[1, 2, 3], [0, 2, 3]]


def test_all_embeddings_equal_with_a_margin_names_the_rule() -> None:
    same = unit(np.ones((9, 4)))
    mined = mine_hard_negatives(
        anchor_embeddings=same[:2], corpus_embeddings=same, positives=[0, 1], relative_margin=0.05
    )
    assert (mined.negatives == -1).all()
    assert np.isnan(mined.scores).all()
    assert "relative_margin (threshold 0.05) removed the last 16" in describe_waterfall(mined.waterfall)


def test_a_zero_document_is_never_a_negative(make_vectors: MakeVectors) -> None:
    corpus = make_vectors(6)
    corpus[3] = 0
    mined = mine_hard_negatives(
        anchor_embeddings=make_vectors(2, seed=1), corpus_embeddings=corpus, positives=[0, 1], num_negatives=5
    )
    assert 3 not in mined.negatives
    assert "zero_vector" in mined.waterfall["rule"].to_list()


def test_a_zero_anchor_gets_no_negatives(make_vectors: MakeVectors) -> None:
    anchors = make_vectors(2)
    anchors[1] = 0
    mined = mine_hard_negatives(
        anchor_embeddings=anchors, corpus_embeddings=make_vectors(9, seed=1), positives=[0, 1]
    )
    assert (mined.negatives[0] >= 0).all()
    assert (mined.negatives[1] == -1).all()


def test_fewer_documents_than_negatives_pads(make_vectors: MakeVectors) -> None:
    mined = mine_hard_negatives(
        anchor_embeddings=make_vectors(2),
        corpus_embeddings=make_vectors(3, seed=1),
        positives=[0, 2],
        num_negatives=5,
    )
    assert (mined.negatives[:, :2] >= 0).all()
    assert (mined.negatives[:, 2:] == -1).all()
    assert mined.waterfall["anchors_short"].to_list()[-1] == 2


def test_no_anchors_gives_empty_arrays(make_vectors: MakeVectors) -> None:
    mined = mine_hard_negatives(
        anchor_embeddings=make_vectors(0), corpus_embeddings=make_vectors(5), positives=[], num_negatives=2
    )
    assert mined.negatives.shape == (0, 2)


def test_an_anchor_without_positive_is_mined_without_margins(make_vectors: MakeVectors) -> None:
    mined = mine_hard_negatives(
        anchor_embeddings=make_vectors(2),
        corpus_embeddings=make_vectors(20, seed=1),
        positives=[[], [1]],
        absolute_margin=0.1,
    )
    assert np.isnan(mined.positive_scores[0])
    assert (mined.negatives[0] >= 0).all()


def test_an_anchor_that_is_its_own_positive_is_not_its_negative(make_vectors: MakeVectors) -> None:
    corpus = make_vectors(9)
    mined = mine_hard_negatives(
        anchor_embeddings=corpus[:2], corpus_embeddings=corpus, positives=[0, 1], num_negatives=8, range_max=8
    )
    assert mined.positive_scores == pytest.approx([1, 1])
    assert [sorted(row) for row in mined.negatives.tolist()] == [
        [row for row in range(9) if row != own] for own in (0, 1)
    ]


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"absolute_margin": 3.0}, "absolute_margin (threshold 3)"),
        ({"relative_margin": 50.0}, "relative_margin (threshold 50)"),
        ({"max_score": -1.5}, "max_score (threshold -1.5)"),
        ({"min_score": 1.5}, "min_score (threshold 1.5)"),
        ({"min_score": 1.5, "max_score": -1.5}, "max_score (threshold -1.5)"),
        ({"range_min": 30, "range_max": 40}, "range_min (threshold 30)"),
        ({"exclude": [list(range(9))] * 2}, "excluded"),
    ],
)
def test_the_rule_that_removes_everything_is_named(
    make_vectors: MakeVectors, change: dict[str, Any], rule: str
) -> None:
    anchors = make_vectors(2)
    mined = mine_hard_negatives(
        anchor_embeddings=anchors, corpus_embeddings=make_vectors(9, seed=1), positives=[0, 1], **change
    )
    assert (mined.negatives == -1).all()
    assert f"No negative is left: {rule} removed the last" in describe_waterfall(mined.waterfall)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"corpus_embeddings": np.zeros((0, 16), np.float32)}, "the corpus is empty"),
        ({"positives": [0, 99]}, "anchor 1 names corpus row 99, but the corpus has rows 0 to 8"),
        ({"positives": [[0], [-1]]}, "anchor 1 names corpus row -1"),
        ({"positives": [0]}, "found 1 entries for 2 anchors"),
        ({"positives": [0.5, 1.5]}, "expected corpus row numbers"),
        ({"max_score": float("nan")}, "max_score: found nan"),
        ({"num_negatives": 0}, "expected at least 1"),
        ({"range_min": -1}, "expected 0 or more"),
        ({"range_max": 3, "range_min": 2}, "leaves 1 candidates"),
        ({"sampling": "tops"}, "did you mean 'top'"),
        ({"temperature": 0.0}, "expected a positive number"),
        ({"anchor_embeddings": np.ones((2, 16), np.float32)}, "row 0 has length 4, expected 1"),
        ({"anchor_embeddings": np.full((2, 16), np.nan, np.float32)}, "row 0 has length nan"),
        ({"anchor_embeddings": unit(np.ones((2, 8)))}, "8 dimensions and corpus_embeddings 16"),
        ({"anchor_embeddings": np.ones(16, np.float32)}, "expected \\(rows, dimension\\)"),
    ],
)
def test_wrong_arguments_are_named(make_vectors: MakeVectors, change: dict[str, Any], words: str) -> None:
    good: dict[str, Any] = {
        "anchor_embeddings": make_vectors(2),
        "corpus_embeddings": make_vectors(9, seed=1),
        "positives": [0, 1],
    }
    with pytest.raises(InputError, match=words):
        mine_hard_negatives(**{**good, **change})

"""A threshold swept over a sample of the anchors."""

from __future__ import annotations

import numpy as np
import pytest

from curation.errors import InputError
from curation.negatives.mining import mine_hard_negatives
from curation.negatives.tuning import sweep_threshold
from tests.negatives.test_barred import Listed, world


def test_each_value_is_mined_for_itself() -> None:
    anchors, corpus, positives = world(5, anchors=12)
    values = [0.5, 0.7, 0.95]
    found = sweep_threshold(
        "max_score", values, anchor_embeddings=anchors, corpus_embeddings=corpus, positives=positives,
        num_negatives=3, range_max=20,
    )  # fmt: skip
    for value, row in zip(values, found.iter_rows(named=True), strict=True):
        mined = mine_hard_negatives(
            anchor_embeddings=anchors, corpus_embeddings=corpus, positives=positives, num_negatives=3, range_max=20,
            max_score=value,
        )  # fmt: skip
        there = mined.negatives >= 0
        assert row["threshold"] == value
        assert row["anchors_short"] == pytest.approx(float((~there.all(axis=1)).mean()))
        if there.any():
            assert row["mean_score"] == pytest.approx(float(mined.scores[there].mean()))
        else:
            assert row["mean_score"] is None
    assert found["removed"].is_sorted(descending=True)
    assert found["anchors_short"][0] > found["anchors_short"][2]


def test_what_cannot_be_swept_is_named() -> None:
    anchors, corpus, positives = world(6)
    given = {"anchor_embeddings": anchors, "corpus_embeddings": corpus, "positives": positives}
    with pytest.raises(InputError, match=r"rule: found 'max_scor', .*did you mean 'max_score'"):
        sweep_threshold("max_scor", [0.5], **given)
    nothing = Listed(np.zeros((len(anchors), len(corpus)), dtype=bool))
    with pytest.raises(InputError, match="a sample of them is mined"):
        sweep_threshold("max_score", [0.5], **given, filters=[nothing])  # type: ignore[arg-type]

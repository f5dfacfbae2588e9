"""Mining against plain loops, and the account it gives."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.negatives.mining import MinedNegatives, mine_hard_negatives
from tests.negatives.oracle import mine_slowly
from tests.negatives.vectors import Vectors, unit

MakeVectors = Callable[..., Vectors]


def listed(mined: MinedNegatives) -> list[list[int]]:
    return [[int(row) for row in rows if row >= 0] for rows in mined.negatives]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    num_negatives=st.integers(1, 5),
    range_min=st.integers(0, 3),
    slack=st.integers(0, 20),
    margins=st.tuples(*[st.none() | st.floats(-0.3, 0.3)] * 2),
    bounds=st.tuples(*[st.none() | st.floats(-0.5, 0.9)] * 2),
)
def test_mining_agrees_with_loops(
    seed: int,
    num_negatives: int,
    range_min: int,
    slack: int,
    margins: tuple[Any, Any],
    bounds: tuple[Any, Any],
) -> None:
    rng = np.random.default_rng(seed)
    anchors, corpus = unit(rng.standard_normal((7, 6))), unit(rng.standard_normal((40, 6)))
    positives = [sorted(rng.choice(40, size=rng.integers(1, 4), replace=False).tolist()) for _ in anchors]
    rules: dict[str, Any] = {
        "num_negatives": num_negatives,
        "range_min": range_min,
        "range_max": range_min + num_negatives + slack,
        "absolute_margin": margins[0],
        "relative_margin": margins[1],
        "max_score": bounds[0],
        "min_score": bounds[1],
    }
    mined = mine_hard_negatives(anchor_embeddings=anchors, corpus_embeddings=corpus, positives=positives, **rules)
    assert listed(mined) == mine_slowly(anchors, corpus, positives, **rules)


def test_relative_margin_loosens_nothing_for_a_negative_positive_score() -> None:
    anchors = unit([[1.0, 0.0]])
    angle = [np.arccos(s) for s in (-0.2, -0.205, -0.215)]
    corpus = unit([[np.cos(a), np.sin(a)] for a in angle])
    mined = mine_hard_negatives(
        anchor_embeddings=anchors,
        corpus_embeddings=corpus,
        positives=[0],
        num_negatives=2,
        relative_margin=0.05,
    )
    assert listed(mined) == [[2]]


def test_margins_use_the_lowest_positive(make_vectors: MakeVectors) -> None:
    anchors, corpus = make_vectors(3), make_vectors(50, seed=1)
    positives = [[0, 1], [2], [3, 4, 5]]
    mined = mine_hard_negatives(
        anchor_embeddings=anchors, corpus_embeddings=corpus, positives=positives, absolute_margin=0.0
    )
    lowest = [min(float(anchors[i] @ corpus[j]) for j in own) for i, own in enumerate(positives)]
    assert mined.positive_scores == pytest.approx(lowest, abs=1e-6)
    assert (np.nan_to_num(mined.scores, nan=-1) <= mined.positive_scores[:, None]).all()


def test_positives_in_all_forms_mine_the_same(make_vectors: MakeVectors) -> None:
    data: dict[str, Any] = {
        "anchor_embeddings": make_vectors(4),
        "corpus_embeddings": make_vectors(30, seed=1),
    }
    forms: list[Any] = [
        [3, 1, 2, 0],
        np.array([3, 1, 2, 0]),
        np.array([[3, -1], [1, -1], [2, -1], [0, -1]]),
        [[3], (1, 1), np.array([2]), [0]],
    ]
    results = [mine_hard_negatives(positives=form, **data).negatives for form in forms]
    assert all(np.array_equal(results[0], other) for other in results[1:])


def test_excluded_rows_never_become_negatives(make_vectors: MakeVectors) -> None:
    corpus = make_vectors(30)
    mined = mine_hard_negatives(
        anchor_embeddings=corpus,
        corpus_embeddings=corpus,
        positives=[(row + 1) % 30 for row in range(30)],
        exclude=list(range(30)),
        num_negatives=4,
    )
    assert not (mined.negatives == np.arange(30)[:, None]).any()
    assert (mined.negatives >= 0).all()


def test_waterfall_adds_up(make_vectors: MakeVectors) -> None:
    mined = mine_hard_negatives(
        anchor_embeddings=make_vectors(20),
        corpus_embeddings=make_vectors(200, seed=1),
        positives=list(range(20)),
        num_negatives=3,
        max_score=0.5,
        min_score=0.1,
        relative_margin=0.05,
        range_min=2,
    )
    rows = mined.waterfall.rows(named=True)
    assert rows[0]["rule"] == "retrieved"
    for before, after in itertools.pairwise(rows):
        assert before["left"] == after["left"] + after["removed"]
        assert before["anchors_short"] <= after["anchors_short"]
    assert rows[-1]["left"] == (mined.negatives >= 0).sum()


def test_waterfall_tells_what_the_next_threshold_gives(make_vectors: MakeVectors) -> None:
    settings_: dict[str, Any] = {
        "anchor_embeddings": make_vectors(30),
        "corpus_embeddings": make_vectors(300, seed=1),
        "positives": list(range(30)),
        "min_score": 0.2,
        "range_max": 60,
    }
    told = mine_hard_negatives(max_score=0.4, **settings_).waterfall.row(
        by_predicate=_rule("max_score"), named=True
    )
    assert told["next_threshold"] == pytest.approx(0.41)
    done = mine_hard_negatives(max_score=0.41, **settings_).waterfall
    assert told["next_left"] == done.row(by_predicate=_rule("min_score"), named=True)["left"]


def _rule(name: str) -> Any:
    import polars as pl

    return pl.col("rule") == name


def test_same_seed_same_bytes(make_vectors: MakeVectors) -> None:
    def mine(seed: int) -> bytes:
        return mine_hard_negatives(
            anchor_embeddings=make_vectors(50),
            corpus_embeddings=make_vectors(500, seed=1),
            positives=list(range(50)),
            range_max=60,
            sampling="random",
            seed=seed,
        ).negatives.tobytes()

    assert mine(1) == mine(1)
    assert mine(1) != mine(2)


def test_float16_embeddings_are_taken(make_vectors: MakeVectors) -> None:
    anchors, corpus = make_vectors(10), make_vectors(100, seed=1)
    full = mine_hard_negatives(anchor_embeddings=anchors, corpus_embeddings=corpus, positives=list(range(10)))
    half = mine_hard_negatives(
        anchor_embeddings=anchors.astype(np.float16),
        corpus_embeddings=corpus.astype(np.float16),
        positives=list(range(10)),
    )
    assert half.scores == pytest.approx(full.scores, abs=2e-3)


@pytest.mark.parametrize("sampling", ["random", "weighted", "margin_bins"])
def test_a_draw_has_more_to_choose_from_than_it_takes(make_vectors: MakeVectors, sampling: Any) -> None:
    settings_: dict[str, Any] = {
        "anchor_embeddings": make_vectors(50),
        "corpus_embeddings": make_vectors(500, seed=1),
        "positives": list(range(50)),
        "temperature": 1.0,
    }
    drawn = mine_hard_negatives(sampling=sampling, **settings_).negatives
    near = mine_hard_negatives(
        num_negatives=4, **{k: v for k, v in settings_.items() if k != "temperature"}
    ).negatives
    assert all(len(set(row)) == 3 for row in drawn.tolist())
    assert np.mean([np.isin(some, top).mean() for some, top in zip(drawn, near, strict=True)]) < 0.6

"""Negatives from a taxonomy, from other prompts' answers, and topic batches."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from curation.errors import InputError
from curation.negatives.sources import answer_negatives, sibling_negatives, topic_batches
from tests.negatives.vectors import Vectors, unit

MakeVectors = Callable[..., Vectors]
PARENTS = {"sonata": "music", "opera": "music", "tennis": "sport", "golf": "sport"}


def test_siblings_share_the_parent_and_not_the_label(make_vectors: MakeVectors) -> None:
    rng = np.random.default_rng(0)
    names = [*PARENTS, "alone"]
    labels, own = rng.choice(names, 60).tolist(), rng.choice(names, 10).tolist()
    anchors, corpus = make_vectors(10), make_vectors(60, seed=1)
    found = sibling_negatives(
        anchor_embeddings=anchors,
        corpus_embeddings=corpus,
        anchor_labels=own,
        corpus_labels=labels,
        parents=PARENTS,
        num_negatives=4,
    )
    for at, label in enumerate(own):
        siblings = [
            j for j, other in enumerate(labels) if other != label and PARENTS.get(other) == PARENTS.get(label)
        ]
        siblings = siblings if label in PARENTS else []
        expected = sorted(siblings, key=lambda j: -float(anchors[at] @ corpus[j]))[:4]
        assert [int(row) for row in found.rows[at] if row >= 0] == expected


def test_labels_must_match_the_embeddings(make_vectors: MakeVectors) -> None:
    with pytest.raises(InputError, match="corpus_labels: found 1 labels for 3 embeddings"):
        sibling_negatives(
            anchor_embeddings=make_vectors(1),
            corpus_embeddings=make_vectors(3),
            anchor_labels=["golf"],
            corpus_labels=["golf"],
            parents=PARENTS,
            num_negatives=1,
        )


# Prompts 0 and 1 are near-duplicates, prompt 2 is about something else. Two answers each.
PROMPTS = unit([[1, 0, 0], [1, 0.1, 0], [0, 0, 1]])
OWNER = [0, 0, 1, 1, 2, 2]
ANSWERS = unit([[1, 0, 0], [1, 0.5, 0], [1, 0.3, 0], [0, 1, 0], [0, 0, 1], [0, 0.2, 1]])


@pytest.mark.parametrize(
    ("source", "expected"), [("same_prompt", [{1}]), ("near_prompt", [{2}]), ("off_topic", [{4, 5}])]
)
def test_each_source_gives_its_kind_of_answer(source: str, expected: list[set[int]]) -> None:
    mined = answer_negatives(
        source,  # type: ignore[arg-type]
        chosen=[0],
        prompt_of_answer=OWNER,
        prompt_embeddings=PROMPTS,
        answer_embeddings=ANSWERS,
    )
    assert mined.rows[0, 0] in expected[0]
    assert mined.scores[0, 0] == pytest.approx(float(ANSWERS[0] @ ANSWERS[mined.rows[0, 0]]))


def test_several_answers_come_most_similar_first_and_are_padded() -> None:
    mined = answer_negatives(
        "near_prompt",
        chosen=[0],
        prompt_of_answer=OWNER,
        prompt_embeddings=PROMPTS,
        answer_embeddings=ANSWERS,
        count=3,
    )
    assert mined.rows.tolist() == [[2, 3, -1]]


def test_an_answer_that_says_the_same_is_not_taken() -> None:
    mined = answer_negatives(
        "same_prompt",
        chosen=[0, 4],
        prompt_of_answer=OWNER,
        prompt_embeddings=PROMPTS,
        answer_embeddings=ANSWERS,
        max_score=0.8,
    )
    assert mined.rows.tolist() == [[-1], [-1]]
    assert np.isnan(mined.scores).all()


def test_topic_batches_hold_every_anchor_once_and_one_topic() -> None:
    rng = np.random.default_rng(0)
    centres = np.eye(4, 8) * 5
    topic = np.repeat(np.arange(4), 25)
    anchors = unit(centres[topic] + 0.1 * rng.standard_normal((100, 8)))
    batches = topic_batches(anchors, topics=4, batch_size=10, seed=1)
    assert sorted(np.concatenate(batches).tolist()) == list(range(100))
    assert max(map(len, batches)) == 10
    assert all(len(set(topic[batch])) == 1 for batch in batches)
    again = topic_batches(anchors, topics=4, batch_size=10, seed=1)
    assert [b.tolist() for b in batches] == [b.tolist() for b in again]


def test_off_topic_answers_are_drawn_without_replacement(make_vectors: MakeVectors) -> None:
    mined = answer_negatives(
        "off_topic",
        chosen=list(range(300)),
        prompt_of_answer=list(range(300)),
        prompt_embeddings=make_vectors(300, 16),
        answer_embeddings=make_vectors(300, 16, seed=1),
        count=5,
    )
    assert (mined.rows >= 0).all()
    assert all(len(set(row)) == 5 for row in mined.rows.tolist())

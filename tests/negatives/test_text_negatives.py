"""Mining from texts: one text counts once, and an anchor is never its own negative."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from curation.errors import InputError
from curation.models.encoder import SentenceEncoder, open_encoder
from curation.negatives.texts import Doubts, build_corpus, mine_text_negatives

CATS = ["How do I wash a cat?", "How long do cats sleep?"]
ANSWERS = ["Use lukewarm water and a mild shampoo.", "Cats sleep between twelve and sixteen hours a day."]
OTHERS = [
    "Cats should be bathed rarely.",
    "The train to Bern leaves at noon.",
    "Bread needs flour, water and salt.",
]


@pytest.fixture(scope="module")
def encoder() -> SentenceEncoder:
    return open_encoder("embedded")


def test_nearest_document_that_is_no_positive_comes_first(encoder: SentenceEncoder) -> None:
    mined = mine_text_negatives(
        anchors=CATS, positives=[[a] for a in ANSWERS], corpus=OTHERS, encoder=encoder, num_negatives=1
    )
    assert mined.negatives(0) == ["Cats should be bathed rarely."]
    assert mined.added == 2
    assert mined.scores(0)[0] == pytest.approx(mined.mined.scores[0, 0])


def test_rows_with_one_anchor_share_their_positives(encoder: SentenceEncoder) -> None:
    mined = mine_text_negatives(
        anchors=[CATS[0], CATS[0] + "  ", CATS[1]],
        positives=[[ANSWERS[0]], [OTHERS[0]], [ANSWERS[1]]],
        corpus=OTHERS,
        encoder=encoder,
        num_negatives=5,
    )
    assert mined.anchor_of_row.tolist() == [0, 0, 1]
    assert not {ANSWERS[0], OTHERS[0]} & set(mined.negatives(0))
    assert mined.negatives(0) == mined.negatives(1)


def test_the_anchor_itself_is_no_negative(encoder: SentenceEncoder) -> None:
    mined = mine_text_negatives(
        anchors=CATS,
        positives=[[a] for a in ANSWERS],
        corpus=[*OTHERS, *CATS],
        encoder=encoder,
        num_negatives=9,
    )
    assert CATS[0] not in mined.negatives(0)
    assert CATS[0] in mined.negatives(1)


def test_repeated_documents_are_one_document() -> None:
    corpus = build_corpus([["b"], ["new", "b "]], ["a", "b", "a\r\n", "b"])
    assert corpus.texts == ["a", "b", "new"]
    assert corpus.positives == [[1], [2, 1]]
    assert (corpus.duplicates, corpus.added) == (2, 1)


def test_counts_that_differ_are_an_error(encoder: SentenceEncoder) -> None:
    with pytest.raises(InputError, match="found 1 lists for 2 anchors"):
        mine_text_negatives(anchors=CATS, positives=[["a"]], encoder=encoder)


def test_a_reworded_positive_is_doubted(encoder: SentenceEncoder) -> None:
    reworded = "Every day, cats sleep twelve to sixteen hours."
    plain, careful = (
        mine_text_negatives(
            anchors=CATS,
            positives=[[a] for a in ANSWERS],
            corpus=[*OTHERS, reworded],
            encoder=encoder,
            num_negatives=9,
            doubts=doubts,
        )
        for doubts in (None, Doubts(near_positive=0.85))
    )
    assert reworded in plain.negatives(1)
    assert reworded not in careful.negatives(1)
    assert reworded in careful.negatives(0)


def test_guides_and_scorers_work_on_texts(encoder: SentenceEncoder) -> None:
    def overlap(anchors: Sequence[str], documents: Sequence[str]) -> np.ndarray:
        return np.array([-float(abs(len(a) - len(d))) for a, d in zip(anchors, documents, strict=True)])

    mined = mine_text_negatives(
        anchors=CATS,
        positives=[[a] for a in ANSWERS],
        corpus=OTHERS,
        encoder=encoder,
        num_negatives=9,
        doubts=Doubts(guides=[encoder, encoder], votes=2, scorer=overlap),
    )
    rules = mined.mined.waterfall["rule"].to_list()
    assert rules.index("encoders_agree") < rules.index("rescored_above_positive")
    for row, anchor in enumerate(CATS):
        limit = abs(len(anchor) - len(ANSWERS[row]))
        assert all(abs(len(anchor) - len(text)) >= limit for text in mined.negatives(row))

"""Cross-encoders as scorers of pairs, with small real ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, BertModel

from curation.errors import InputError
from curation.negatives.rescoring import RowScorer, open_cross_encoder
from tests.tiny_policies import tiny_tokenizer

ANCHORS, DOCUMENTS = ["who sings", "what grows"], ["birds sing", "trees grow", "stones lie"]


def cross_encoder(folder: Path, labels: int) -> str:
    tokenizer = tiny_tokenizer(chat_template=None)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, num_labels=labels,
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_pairs_get_one_finite_score_in_their_order(tmp_path: Path) -> None:
    scorer = RowScorer(open_cross_encoder(cross_encoder(tmp_path, 1)), ANCHORS, DOCUMENTS)
    scores = scorer.score(np.array([0, 1, 1]), np.array([2, 0, 2]))
    assert scores.shape == (3,)
    assert np.isfinite(scores).all()
    assert scorer.score(np.array([1, 0]), np.array([0, 2])) == pytest.approx(scores[[1, 0]], abs=1e-6)


def test_a_classifier_is_no_scorer_of_pairs(tmp_path: Path) -> None:
    scorer = RowScorer(open_cross_encoder(cross_encoder(tmp_path, 3)), ANCHORS, DOCUMENTS)
    with pytest.raises(InputError, match="gives 3 scores for a pair, expected one"):
        scorer.score(np.array([0]), np.array([1]))


def test_an_encoder_is_no_scorer_of_pairs(tmp_path: Path) -> None:
    folder = cross_encoder(tmp_path, 1)
    BertModel(BertConfig.from_pretrained(folder)).save_pretrained(folder)
    with pytest.raises(InputError, match="is a BertModel, which scores nothing"):
        open_cross_encoder(folder)

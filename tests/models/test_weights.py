"""Models whose files hold only a part of them are refused: the rest would be random numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification, PreTrainedModel

from curation.errors import ModelError
from curation.models.policy import open_policy
from curation.models.refusals import open_refusal_detector
from curation.models.rewards import open_reward
from tests.tiny_policies import VOCAB, save_policy, tiny_tokenizer


def saved(folder: Path, kind: type[PreTrainedModel], *, tied: bool) -> str:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCAB, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=64, tie_word_embeddings=tied, pad_token_id=0, num_labels=1,
    )  # fmt: skip
    kind(config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return str(folder)


def test_a_reward_model_is_no_policy(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"lm_head\.weight.*random"):
        open_policy(saved(tmp_path, LlamaForSequenceClassification, tied=False))


def test_tied_output_layers_are_not_missing(tmp_path: Path) -> None:
    assert open_policy(saved(tmp_path, LlamaForCausalLM, tied=True)).method == "packed"


def test_a_language_model_is_no_reward_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"score\.weight.*random"):
        open_reward(saved(tmp_path, LlamaForCausalLM, tied=True), device="cpu")


def test_a_language_model_is_no_refusal_detector(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"score\.weight.*random"):
        open_refusal_detector(
            saved(tmp_path, LlamaForCausalLM, tied=True), refusal_labels=["LABEL_0"], device="cpu"
        )


def test_torn_weights_are_one_line(tmp_path: Path) -> None:
    weights = save_policy(tmp_path, "llama") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="weights cannot be loaded"):
        open_policy(str(tmp_path))


def test_weights_of_another_shape_are_one_line(tmp_path: Path) -> None:
    save_policy(tmp_path, "llama")
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"intermediate_size": 48', '"intermediate_size": 40'))
    with pytest.raises(ModelError, match="weights cannot be loaded"):
        open_policy(str(tmp_path))

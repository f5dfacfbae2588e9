"""Sequence-classification reward models, on tiny random ones made here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    LlamaConfig,
    LlamaForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from curation.errors import InputError, ModelError
from curation.models.rewards import open_reward, reward_fingerprint
from tests.tiny_policies import CHAT_TEMPLATE, tiny_tokenizer

PROMPT = [{"role": "user", "content": "the cat"}]
ANSWERS = ["sat", "sat on the mat and then on the floor and then on the mat again", "on"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("reward")
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = CHAT_TEMPLATE
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=256,
        num_labels=3,
        id2label={0: "helpful", 1: "harmless", 2: "short"},
        label2id={"helpful": 0, "harmless": 1, "short": 2},
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForSequenceClassification(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def test_every_attribute_is_an_output(folder: Path) -> None:
    model = open_reward(str(folder), device="cpu")
    assert model.score([PROMPT] * 3, ANSWERS).shape == (3, 3)
    assert model.outputs == ("helpful", "harmless", "short")  # type: ignore[attr-defined]


def test_batches_and_padding_do_not_change_rewards(folder: Path) -> None:
    model = open_reward(str(folder), device="cpu")
    together = model.score([PROMPT] * 3, ANSWERS)
    alone = np.vstack([model.score([PROMPT], [answer]) for answer in ANSWERS])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_rewards_equal_a_plain_forward_pass_over_the_template(folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    network = LlamaForSequenceClassification.from_pretrained(folder).eval()
    text = tokenizer.apply_chat_template([*PROMPT, {"role": "assistant", "content": "sat"}], tokenize=False)
    ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
    with torch.no_grad():
        expected = network(ids).logits[0].numpy()
    found = open_reward(str(folder), device="cpu").score([PROMPT], ["sat"])[0]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_attributes_are_chosen_by_name(folder: Path) -> None:
    every = open_reward(str(folder), device="cpu").score([PROMPT], ["sat"])
    two = open_reward(str(folder), device="cpu", attributes=["short", "helpful"]).score([PROMPT], ["sat"])
    np.testing.assert_allclose(two[0], every[0, [2, 0]])
    with pytest.raises(InputError, match="'kind' is not one of the model's"):
        open_reward(str(folder), device="cpu", attributes=["kind"])


def test_a_dialogue_over_the_limit_has_no_reward(folder: Path) -> None:
    rewards = open_reward(str(folder), device="cpu", max_length=20).score([PROMPT] * 2, ["on", "the cat " * 60])
    assert np.isfinite(rewards[0]).all()
    assert np.isnan(rewards[1]).all()


def test_a_network_with_fewer_positions_than_its_config_says_has_no_reward_for_more(tmp_path: Path) -> None:
    """RoBERTa's first positions are the padding's: 34 of them read 33 tokens, with padding token 0."""
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = None
    assert tokenizer.pad_token_id == 0
    config = RobertaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_labels=1,
        num_attention_heads=2, max_position_embeddings=34, pad_token_id=0,
    )  # fmt: skip
    RobertaForSequenceClassification(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model = open_reward(str(tmp_path), device="cpu")
    assert model.max_length == 33  # type: ignore[attr-defined]
    answers = [" ".join(["the"] * n) for n in (20, 31, 32, 60)]
    sizes = [len(tokenizer("the cat", answer)["input_ids"]) for answer in answers]
    rewards = model.score([PROMPT] * 4, answers)[:, 0]
    assert np.isfinite(rewards).tolist() == [size <= 33 for size in sizes] == [True, True, False, False]
    assert max(size for size in sizes if size <= 33) == 33


def test_options_that_change_numbers_change_the_fingerprint(folder: Path) -> None:
    plain = reward_fingerprint(str(folder))
    assert plain != reward_fingerprint(str(folder), max_length=20)
    assert plain != reward_fingerprint(str(folder), attributes=["short"])


def test_a_folder_without_a_model_is_a_model_error(tmp_path: Path) -> None:
    with pytest.raises((InputError, ModelError), match=r"could not be loaded|without a model"):
        open_reward(str(tmp_path), device="cpu")

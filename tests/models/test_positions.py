"""How many tokens a classifier can read, told from its config alone."""

from __future__ import annotations

from pathlib import Path

from transformers import AutoConfig, LlamaConfig, RobertaConfig, RobertaForSequenceClassification, XLMRobertaConfig

from curation.models.positions import most_tokens, most_tokens_of_classifier

SMALL = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}


def test_positions_behind_the_padding_are_no_room_for_tokens(tmp_path: Path) -> None:
    config = RobertaConfig(**SMALL, max_position_embeddings=514, pad_token_id=1)
    assert most_tokens_of_classifier(config) == most_tokens(RobertaForSequenceClassification(config)) == 512
    config.save_pretrained(tmp_path)
    assert most_tokens_of_classifier(AutoConfig.from_pretrained(tmp_path)) == 512
    assert most_tokens_of_classifier(XLMRobertaConfig(**SMALL, max_position_embeddings=34, pad_token_id=0)) == 33


def test_other_networks_have_room_for_what_their_config_says() -> None:
    assert most_tokens_of_classifier(LlamaConfig(**SMALL, max_position_embeddings=256)) == 256

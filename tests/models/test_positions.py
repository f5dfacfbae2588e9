"""How many tokens a classifier can read."""

from __future__ import annotations

from pathlib import Path

from transformers import (
    LlamaConfig,
    LlamaForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
)

from curation.models.classifier_network import open_network
from curation.models.identity import resolve_model
from curation.models.positions import most_tokens

SMALL = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}


def test_positions_behind_the_padding_are_no_room_for_tokens(tmp_path: Path) -> None:
    config = RobertaConfig(**SMALL, max_position_embeddings=514, pad_token_id=1)
    network = RobertaForSequenceClassification(config)
    network.save_pretrained(tmp_path)
    structure = open_network(resolve_model(str(tmp_path), embedded="rewards"), device="meta")
    assert most_tokens(structure) == most_tokens(network) == 512
    other = XLMRobertaConfig(**SMALL, max_position_embeddings=34, pad_token_id=0)
    assert most_tokens(XLMRobertaForSequenceClassification(other)) == 33


def test_other_networks_have_room_for_what_their_config_says() -> None:
    config = LlamaConfig(**SMALL, max_position_embeddings=256)
    assert most_tokens(LlamaForSequenceClassification(config)) == 256

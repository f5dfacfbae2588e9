"""How many tokens a network has positions for. Nothing is loaded here."""

from __future__ import annotations

from typing import Any

__all__ = ["most_tokens"]


def most_tokens(network: Any) -> int | None:
    """The longest input that a loaded network can read; None where its config sets no limit.

    RoBERTa and its kin number their positions from behind the padding's, so that of 514 embeddings 512 are for
    tokens: a longer input would be an index out of range in the middle of a batch.
    """
    limit = getattr(network.config.get_text_config(), "max_position_embeddings", None)
    if not isinstance(limit, int) or limit < 1:
        return None
    for name, module in network.named_modules():
        if name.rpartition(".")[2] == "position_embeddings" and getattr(module, "padding_idx", None) is not None:
            limit = min(limit, int(module.num_embeddings) - int(module.padding_idx) - 1)
    return limit

"""A model's tokenizer, loaded in one way by whatever reads texts with it."""

from __future__ import annotations

from typing import Any

from curation.models.identity import ModelRef

__all__ = ["open_tokenizer"]


def open_tokenizer(ref: ModelRef) -> Any:
    """A tokenizer of transformers, without the repository's own code.

    Raises:
        One of ``weights.LOADING_ERRORS``: when it cannot be loaded; what for, the caller says.
    """
    from transformers import AutoTokenizer

    # With mistral-common, which vLLM brings, a Mistral model would get a tokenizer that has no template.
    return AutoTokenizer.from_pretrained(
        ref.location, revision=ref.commit, trust_remote_code=False, local_files_only=ref.kind != "hub",
        mistral_format=False,
    )  # fmt: skip

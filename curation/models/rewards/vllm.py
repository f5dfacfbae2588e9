"""Sequence-classification reward models run by vLLM in this process: ``vllm:MODEL``, MODEL a folder or a Hub id.

The same tokens as ``classifier`` reads go to vLLM's pooling runner, and the raw logits come back, so that the
numbers equal those of transformers up to rounding and both share a ledger.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from curation.errors import InputError, ModelError
from curation.models.identity import resolve_model
from curation.models.positions import most_tokens_of_classifier
from curation.models.rewards.classifier import Dtype, classifier_fingerprint
from curation.models.rewards.classifier_inputs import (
    Attributes,
    Labels,
    dialogue_tokens,
    load_classifier_tokenizer,
    not_loadable,
    wanted_labels,
)
from curation.models.vllm_engine import require_vllm, start_vllm
from curation.text import Message

__all__ = ["VllmReward", "open_vllm", "vllm_fingerprint"]

FloatArray = npt.NDArray[np.float64]
_PREFIX: Final = "vllm:"


def vllm_fingerprint(
    model: str,
    *,
    attributes: Attributes | None = None,
    max_length: int | None = None,
    dtype: Dtype = "float32",
    device: str | None = None,
) -> str:
    """That of the same model in transformers: what runs it changes numbers by rounding only."""
    return classifier_fingerprint(
        model.removeprefix(_PREFIX), attributes=attributes, max_length=max_length, dtype=dtype
    )


def open_vllm(
    model: str,
    *,
    attributes: Attributes | None = None,
    max_length: int | None = None,
    dtype: Dtype = "float32",
    device: str | None = None,
) -> VllmReward:
    """Start vLLM with a sequence-classification model; see :func:`..classifier.open_classifier`.

    Raises:
        InputError: for an attribute that the model does not have, or a device: vLLM takes what there is.
        MissingExtraError: when vLLM is not installed.
        ModelError: when vLLM cannot load the model.
    """
    if device is not None:
        raise InputError(f"reward model {model!r}: vLLM chooses the device itself, found device {device!r}")
    ref = resolve_model(model.removeprefix(_PREFIX), embedded="rewards")
    fingerprint = vllm_fingerprint(model, attributes=attributes, max_length=max_length, dtype=dtype)
    require_vllm()
    import torch
    from transformers import AutoConfig

    tokenizer = load_classifier_tokenizer(ref)
    try:
        config = AutoConfig.from_pretrained(ref.location, revision=ref.commit, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise not_loadable(ref, error) from error
    labels = wanted_labels(config.id2label, attributes)
    # vLLM reads on behind RoBERTa's last position, and scores what it finds there.
    limit = min((n for n in (most_tokens_of_classifier(config), max_length) if n is not None), default=None)
    try:
        engine = start_vllm(
            model=ref.location, revision=ref.commit, runner="pooling", convert="classify", dtype=dtype,
            max_model_len=limit, enforce_eager=not torch.cuda.is_available(), seed=0,
        )  # fmt: skip
    except (RuntimeError, ValueError, OSError) as error:
        raise ModelError(f"vLLM cannot load {model!r}: {' '.join(str(error).split())[:300]}") from error
    return VllmReward(engine, tokenizer, labels, fingerprint=fingerprint)


class VllmReward:
    """See ``curation.models.protocols.RewardModel``. A dialogue over the model's limit has no reward (NaN)."""

    def __init__(self, engine: Any, tokenizer: Any, labels: Labels, *, fingerprint: str) -> None:
        self._engine, self._tokenizer = engine, tokenizer
        self._labels = labels
        self.outputs = labels.names
        self.fingerprint = fingerprint
        self.max_length: int = engine.model_config.max_model_len

    def score(self, prompts: Sequence[Sequence[Message]], responses: Sequence[str]) -> FloatArray:
        """(n, outputs) logits.

        Raises:
            ModelError: when the model must be told which token is of the prompt and which of the answer: vLLM
                is given token ids alone, and would score them wrongly.
        """
        from vllm import PoolingParams

        rewards = np.full((len(responses), len(self.outputs)), np.nan)
        rows, ids = [], []
        for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
            dialogue = dialogue_tokens(self._tokenizer, prompt, response)
            if any(dialogue.types or ()):
                raise ModelError(
                    "this reward model reads token types, which vLLM is not given: use it without vllm:"
                )
            if 0 < len(dialogue.ids) <= self.max_length:
                rows.append(row)
                ids.append({"prompt_token_ids": dialogue.ids})
        if rows:
            found = self._engine.classify(ids, pooling_params=PoolingParams(use_activation=False), use_tqdm=False)
            rewards[rows] = self._labels.read(np.asarray([one.outputs.probs for one in found]))
        return rewards

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
from curation.models.classifier_network import Padding, open_network, says_how_many_labels
from curation.models.identity import resolve_model
from curation.models.positions import most_tokens
from curation.models.protocols import Fault
from curation.models.rewards.classifier import Dtype, classifier_fingerprint
from curation.models.rewards.classifier_inputs import (
    Attributes,
    Labels,
    dialogue_tokens,
    load_classifier_tokenizer,
    not_loadable,
    require_input,
    too_long,
    wanted_labels,
)
from curation.models.vllm_engine import EngineOptions, engine_alive, require_vllm, start_vllm
from curation.models.weights import LOADING_ERRORS
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
    tensor_parallel_size: int | None = None,
    gpu_memory_utilization: float | None = None,
) -> str:
    """That of the same model in transformers: what runs it, and where, changes numbers by rounding only."""
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
    tensor_parallel_size: int | None = None,
    gpu_memory_utilization: float | None = None,
) -> VllmReward:
    """Start vLLM with a sequence-classification model; see :func:`..classifier.open_classifier`.

    Args:
        tensor_parallel_size, gpu_memory_utilization: where it runs; see ``curation.models.vllm_engine``.

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

    tokenizer = load_classifier_tokenizer(ref)
    try:
        # vLLM would start with a head of random numbers, or without a part of the files that it has no place for.
        network = open_network(ref, device="meta")
    except LOADING_ERRORS as error:
        raise not_loadable(ref, error) from error
    require_input(ref, tokenizer, network)
    labels = wanted_labels(network.config, attributes)
    # vLLM reads on behind RoBERTa's last position, and scores what it finds there.
    limit = min((n for n in (most_tokens(network), max_length) if n is not None), default=None)
    overrides = {} if says_how_many_labels(ref) else {"num_labels": network.config.num_labels}
    engine = start_vllm(
        model,
        model=ref.location, revision=ref.commit, runner="pooling", convert="classify", dtype=dtype,
        hf_overrides=overrides, max_model_len=limit, enforce_eager=not torch.cuda.is_available(), seed=0,
        **EngineOptions(tensor_parallel_size, gpu_memory_utilization).given,
    )  # fmt: skip
    return VllmReward(engine, tokenizer, labels, padding=Padding(network).token, fingerprint=fingerprint)


class VllmReward:
    """See ``curation.models.protocols.RewardModel``. A dialogue that cannot be read whole has no reward (NaN).

    Attributes:
        faults: for each row of the last ``score``, why it has no reward, or None.
    """

    def __init__(
        self, engine: Any, tokenizer: Any, labels: Labels, *, padding: int | None, fingerprint: str
    ) -> None:
        """``padding``: the model's config's; transformers reads the score at the last token that is another."""
        self._engine, self._tokenizer = engine, tokenizer
        self._labels = labels
        self._pad = padding
        self.outputs = labels.names
        self.fingerprint = fingerprint
        self.max_length: int = engine.model_config.max_model_len
        self.faults: list[Fault | None] = []

    def score(self, prompts: Sequence[Sequence[Message]], responses: Sequence[str]) -> FloatArray:
        """(n, outputs) logits.

        Raises:
            ModelError: when the model must be told which token is of the prompt and which of the answer: vLLM
                is given token ids alone, and would score them wrongly.
        """
        from vllm import PoolingParams

        rewards = np.full((len(responses), len(self.outputs)), np.nan)
        self.faults = [None] * len(responses)
        rows, ids = [], []
        for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
            dialogue = dialogue_tokens(self._tokenizer, prompt, response)
            if isinstance(dialogue, Fault):
                self.faults[row] = dialogue
                continue
            if any(dialogue.types or ()):
                raise ModelError(
                    "this reward model reads token types, which vLLM is not given: use it without vllm:"
                )
            if not 0 < len(dialogue.ids) <= self.max_length:
                self.faults[row] = too_long(dialogue, self.max_length)
                continue
            rows.append(row)
            ids.append({"prompt_token_ids": self._without_padding(dialogue.ids)})
        if rows:
            parameters = PoolingParams(use_activation=False)
            with engine_alive():
                found = self._engine.classify(ids, pooling_params=parameters, use_tqdm=False)
            rewards[rows] = self._labels.read(np.asarray([one.outputs.probs for one in found]))
        return rewards

    def _without_padding(self, ids: list[int]) -> list[int]:
        """vLLM reads the score at the last token, transformers at the last that is not padding.

        They differ where the token that ends the answer is the padding, too.
        """
        end = len(ids)
        while end > 1 and ids[end - 1] == self._pad:
            end -= 1
        return ids[:end]

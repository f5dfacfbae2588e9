"""Reward models that are sequence classifiers: a Hub id or a folder, one score or several attributes.

The raw logits are the rewards. How a dialogue becomes tokens is in ``classifier_inputs``; the same models run by
vLLM, in ``vllm``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from curation.errors import InputError
from curation.models.identity import ModelRef, resolve_model
from curation.models.positions import most_tokens
from curation.models.quiet import no_progress_bar
from curation.models.rewards.classifier_inputs import (
    Attributes,
    Dialogue,
    attributes_fingerprint,
    dialogue_tokens,
    load_classifier_tokenizer,
    not_loadable,
    wanted_labels,
)
from curation.models.weights import require_all_weights
from curation.text import Message

__all__ = ["ClassifierReward", "classifier_fingerprint", "open_classifier"]

FloatArray = npt.NDArray[np.float64]
Dtype = Literal["float32", "bfloat16"]
_DTYPES: Final = ("float32", "bfloat16")


def classifier_fingerprint(
    model: str,
    *,
    attributes: Attributes | None = None,
    max_length: int | None = None,
    dtype: Dtype = "float32",
    batch_tokens: int = 8192,
    device: str | None = None,
) -> str:
    """Weights or commit, the attributes that are read, and what changes the numbers of a call."""
    parts = [resolve_model(model, embedded="rewards").fingerprint, dtype]
    if max_length is not None:
        parts.append(str(max_length))
    if attributes is not None:
        parts.append(attributes_fingerprint(attributes))
    return "/".join(parts)


def open_classifier(
    model: str,
    *,
    attributes: Attributes | None = None,
    max_length: int | None = None,
    dtype: Dtype = "float32",
    batch_tokens: int = 8192,
    device: str | None = None,
) -> ClassifierReward:
    """Load a sequence-classification model.

    Args:
        model: a folder or a Hub id.
        attributes: which of the model's labels to read, in this order, each a reward of its own; None for all. A
            mapping of labels to weights gives one reward, the weighted sum.
        max_length: longest dialogue in tokens; None for the model's own limit. A longer one has no
            reward (NaN): a cut answer would be scored as if it ended there.
        dtype: ``float32`` or ``bfloat16``.
        batch_tokens: padded tokens in one forward pass.
        device: ``cpu``, ``cuda``, …; None for the best one there is.

    Raises:
        InputError: for an attribute that the model does not have.
        ModelError: when it cannot be loaded.
    """
    if dtype not in _DTYPES:
        raise InputError(f"dtype is {dtype!r}, expected one of {', '.join(_DTYPES)}")
    ref = resolve_model(model, embedded="rewards")
    fingerprint = classifier_fingerprint(model, attributes=attributes, max_length=max_length, dtype=dtype)
    network, tokenizer = _load(ref, dtype, device)
    return ClassifierReward(
        network,
        tokenizer,
        fingerprint=fingerprint,
        attributes=attributes,
        max_length=max_length,
        batch_tokens=batch_tokens,
    )


class ClassifierReward:
    """A loaded classifier; see ``curation.models.protocols.RewardModel``."""

    def __init__(
        self,
        network: Any,
        tokenizer: Any,
        *,
        fingerprint: str,
        attributes: Attributes | None = None,
        max_length: int | None = None,
        batch_tokens: int = 8192,
    ) -> None:
        self._network, self._tokenizer = network, tokenizer
        self._batch_tokens = batch_tokens
        self.fingerprint = fingerprint
        labels = {index: network.config.id2label[index] for index in range(network.config.num_labels)}
        self._labels = wanted_labels(labels, attributes)
        self.outputs = self._labels.names
        limits = [max_length, most_tokens(network)]
        self.max_length = min((limit for limit in limits if limit), default=1 << 30)

    def score(self, prompts: Sequence[Sequence[Message]], responses: Sequence[str]) -> FloatArray:
        """(n, outputs) logits; NaN for a dialogue that is longer than ``max_length``."""
        import torch

        read = [
            dialogue_tokens(self._tokenizer, prompt, response)
            for prompt, response in zip(prompts, responses, strict=True)
        ]
        rewards = np.full((len(read), len(self.outputs)), np.nan)
        fitting = [row for row, dialogue in enumerate(read) if 0 < len(dialogue.ids) <= self.max_length]
        fitting.sort(key=lambda row: len(read[row].ids))
        while fitting:
            rows = self._take_batch(fitting, read)
            batch = self._padded([read[row] for row in rows])
            with torch.inference_mode():
                logits = self._network(**batch).logits.float().cpu().numpy()
            rewards[rows] = self._labels.read(logits)
        return rewards

    def _padded(self, dialogues: list[Dialogue]) -> Any:
        """Right padding: a causal classifier then reads its score at each row's own last token."""
        columns: dict[str, list[list[int]]] = {"input_ids": [dialogue.ids for dialogue in dialogues]}
        types = [dialogue.types for dialogue in dialogues if dialogue.types is not None]
        if types:
            columns["token_type_ids"] = types
        batch = self._tokenizer.pad(columns, padding=True, padding_side="right", return_tensors="pt")
        return batch.to(self._network.device)

    def _take_batch(self, rows: list[int], read: list[Dialogue]) -> list[int]:
        taken = [rows.pop()]
        longest = len(read[taken[0]].ids)
        while rows and (len(taken) + 1) * longest <= self._batch_tokens and self._can_pad(longest, read[rows[-1]]):
            taken.append(rows.pop())
        return taken

    def _can_pad(self, longest: int, dialogue: Dialogue) -> bool:
        return self._network.config.pad_token_id is not None or len(dialogue.ids) == longest


def _load(ref: ModelRef, dtype: str, device: str | None) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForSequenceClassification

    options: dict[str, Any] = {"revision": ref.commit, "trust_remote_code": False}
    if ref.kind != "hub":
        options["local_files_only"] = True
    tokenizer = load_classifier_tokenizer(ref)
    try:
        with no_progress_bar():
            network, loading = AutoModelForSequenceClassification.from_pretrained(
                ref.location, dtype=getattr(torch, dtype), use_safetensors=True, output_loading_info=True, **options
            )
        require_all_weights(network, loading)
    except (OSError, ValueError, KeyError) as error:
        raise not_loadable(ref, error) from error
    if network.config.pad_token_id is None:
        network.config.pad_token_id = tokenizer.pad_token_id
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return network.to(device).eval(), tokenizer

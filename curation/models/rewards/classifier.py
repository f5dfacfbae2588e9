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
from curation.models.classifier_network import Padding, open_network
from curation.models.identity import ModelRef, resolve_model
from curation.models.positions import most_tokens
from curation.models.protocols import Fault
from curation.models.rewards.classifier_inputs import (
    Attributes,
    Dialogue,
    attributes_fingerprint,
    dialogue_tokens,
    load_classifier_tokenizer,
    not_loadable,
    require_input,
    too_long,
    wanted_labels,
)
from curation.models.weights import LOADING_ERRORS
from curation.text import Message

__all__ = ["ClassifierReward", "classifier_fingerprint", "open_classifier"]

FloatArray = npt.NDArray[np.float64]
Dtype = Literal["float32", "bfloat16"]
_DTYPES: Final = ("float32", "bfloat16")
_VERSION: Final = 2
"""Raised when what a model reads, or its numbers, change."""


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
    parts = [resolve_model(model, embedded="rewards").fingerprint, f"v{_VERSION}", dtype]
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
    """A loaded classifier; see ``curation.models.protocols.RewardModel``.

    Attributes:
        faults: for each row of the last ``score``, why it has no reward, or None.
    """

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
        self._padding = Padding(network)
        self._batch_tokens = batch_tokens
        self.fingerprint = fingerprint
        self._labels = wanted_labels(network.config, attributes)
        self.outputs = self._labels.names
        limits = [max_length, most_tokens(network)]
        self.max_length = min((limit for limit in limits if limit), default=1 << 30)
        self.faults: list[Fault | None] = []

    def score(self, prompts: Sequence[Sequence[Message]], responses: Sequence[str]) -> FloatArray:
        """(n, outputs) logits; NaN for a dialogue that cannot be read whole, see ``faults``."""
        import torch

        read: dict[int, Dialogue] = {}
        self.faults = [None] * len(responses)
        for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
            dialogue = dialogue_tokens(self._tokenizer, prompt, response)
            if isinstance(dialogue, Fault):
                self.faults[row] = dialogue
            elif not 0 < len(dialogue.ids) <= self.max_length:
                self.faults[row] = too_long(dialogue, self.max_length)
            else:
                read[row] = dialogue
        rewards = np.full((len(responses), len(self.outputs)), np.nan)
        fitting = sorted(read, key=lambda row: len(read[row].ids))
        while fitting:
            rows = self._take_batch(fitting, read)
            batch = self._padded([read[row] for row in rows])
            with torch.inference_mode():
                logits = self._network(**batch).logits.float().cpu().numpy()
            rewards[rows] = self._labels.read(logits)
        return rewards

    def _padded(self, dialogues: list[Dialogue]) -> dict[str, Any]:
        types = [dialogue.types for dialogue in dialogues if dialogue.types is not None]
        ids = [dialogue.ids for dialogue in dialogues]
        return self._padding.batch(ids, types or None, device=self._network.device)

    def _take_batch(self, rows: list[int], read: dict[int, Dialogue]) -> list[int]:
        taken = [rows.pop()]
        longest = len(read[taken[0]].ids)
        while rows and (len(taken) + 1) * longest <= self._batch_tokens:
            taken.append(rows.pop())
        return taken


def _load(ref: ModelRef, dtype: str, device: str | None) -> tuple[Any, Any]:
    import torch

    tokenizer = load_classifier_tokenizer(ref)
    try:
        network = open_network(ref, dtype=dtype, device=device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except LOADING_ERRORS as error:
        raise not_loadable(ref, error) from error
    require_input(ref, tokenizer, network)
    return network, tokenizer

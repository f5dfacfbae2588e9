"""Reward models that are sequence classifiers: a Hub id or a folder, one score or several attributes.

The dialogue is written with the model's own chat template; a tokenizer without one reads the last user
turn and the answer as a pair of texts, as older reward models were trained. The raw logits are the rewards.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from curation.errors import InputError, ModelError
from curation.models.identity import ModelRef, resolve_model
from curation.models.quiet import no_progress_bar
from curation.models.rewards.heads import last_user_text
from curation.text import Message

__all__ = ["ClassifierReward", "classifier_fingerprint", "open_classifier"]

FloatArray = npt.NDArray[np.float64]
Dtype = Literal["float32", "bfloat16"]
_DTYPES: Final = ("float32", "bfloat16")


def classifier_fingerprint(
    model: str,
    *,
    attributes: Sequence[str] | None = None,
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
        parts.append("+".join(attributes))
    return "/".join(parts)


def open_classifier(
    model: str,
    *,
    attributes: Sequence[str] | None = None,
    max_length: int | None = None,
    dtype: Dtype = "float32",
    batch_tokens: int = 8192,
    device: str | None = None,
) -> ClassifierReward:
    """Load a sequence-classification model.

    Args:
        model: a folder or a Hub id.
        attributes: which of the model's labels to read, in this order; None for all.
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
        attributes: Sequence[str] | None = None,
        max_length: int | None = None,
        batch_tokens: int = 8192,
    ) -> None:
        self._network, self._tokenizer = network, tokenizer
        self._batch_tokens = batch_tokens
        self.fingerprint = fingerprint
        labels = [network.config.id2label[index] for index in range(network.config.num_labels)]
        self.outputs: tuple[str, ...] = tuple(labels if attributes is None else attributes)
        unknown = [name for name in self.outputs if name not in labels]
        if unknown:
            raise InputError(f"attribute {unknown[0]!r} is not one of the model's: {', '.join(labels)}")
        self._columns = [labels.index(name) for name in self.outputs]
        limits = [max_length, getattr(network.config, "max_position_embeddings", None)]
        self.max_length = min((limit for limit in limits if limit), default=1 << 30)

    def score(self, prompts: Sequence[Sequence[Message]], responses: Sequence[str]) -> FloatArray:
        """(n, outputs) logits; NaN for a dialogue that is longer than ``max_length``."""
        import torch

        ids = [self._ids(prompt, response) for prompt, response in zip(prompts, responses, strict=True)]
        rewards = np.full((len(ids), len(self.outputs)), np.nan)
        fitting = [row for row, tokens in enumerate(ids) if 0 < len(tokens) <= self.max_length]
        fitting.sort(key=lambda row: len(ids[row]))
        while fitting:
            rows = self._take_batch(fitting, ids)
            # Right padding: a causal classifier then reads its score at each row's own last token.
            batch = self._tokenizer.pad(
                {"input_ids": [ids[row] for row in rows]},
                padding=True,
                padding_side="right",
                return_tensors="pt",
            ).to(self._network.device)
            with torch.inference_mode():
                logits = self._network(**batch).logits.float().cpu().numpy()
            rewards[rows] = logits[:, self._columns]
        return rewards

    def _take_batch(self, rows: list[int], ids: list[list[int]]) -> list[int]:
        taken = [rows.pop()]
        longest = len(ids[taken[0]])
        while rows and (len(taken) + 1) * longest <= self._batch_tokens and self._can_pad(taken, ids, rows[-1]):
            taken.append(rows.pop())
        return taken

    def _can_pad(self, taken: list[int], ids: list[list[int]], row: int) -> bool:
        return self._network.config.pad_token_id is not None or len(ids[row]) == len(ids[taken[0]])

    def _ids(self, prompt: Sequence[Message], response: str) -> list[int]:
        if self._tokenizer.chat_template:
            dialogue = [*prompt, {"role": "assistant", "content": response}]
            text = self._tokenizer.apply_chat_template(dialogue, tokenize=False)
            ids: list[int] = self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        else:
            ids = self._tokenizer(last_user_text(prompt), response, verbose=False)["input_ids"]
        return ids


def _load(ref: ModelRef, dtype: str, device: str | None) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    options: dict[str, Any] = {"revision": ref.revision, "trust_remote_code": False}
    if ref.kind != "hub":
        options["local_files_only"] = True
    try:
        tokenizer = AutoTokenizer.from_pretrained(ref.location, **options)
        with no_progress_bar():
            network = AutoModelForSequenceClassification.from_pretrained(
                ref.location, dtype=getattr(torch, dtype), use_safetensors=True, **options
            )
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"reward model {ref.given!r} could not be loaded ({type(error).__name__}: "
            f"{str(error).splitlines()[0] if str(error) else 'no message'}): "
            f"expected a sequence-classification model with safetensors weights"
        ) from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if network.config.pad_token_id is None:
        network.config.pad_token_id = tokenizer.pad_token_id
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return network.to(device).eval(), tokenizer

"""What a sequence classifier reads: a dialogue as token ids, and which of its labels are wanted. Runs no model.

The dialogue is written with the model's own chat template; a tokenizer without one reads the last user turn and
the answer as a pair of texts, as older reward models were trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from curation.errors import InputError, ModelError
from curation.models.identity import ModelRef
from curation.models.prompt_encoding import template_clock
from curation.text import Message, last_user_text

__all__ = [
    "Attributes",
    "Dialogue",
    "Labels",
    "attributes_fingerprint",
    "dialogue_tokens",
    "load_classifier_tokenizer",
    "not_loadable",
    "wanted_labels",
]

FloatArray = npt.NDArray[np.float64]
Attributes = Sequence[str] | Mapping[str, float]
"""Labels that are read, each a reward of its own; or with weights, whose sum is then the one reward."""


class Dialogue(NamedTuple):
    """The tokens of one dialogue."""

    ids: list[int]
    types: list[int] | None
    """Which of two texts each token belongs to, for the models that are told."""


class Labels(NamedTuple):
    """The outputs that are read."""

    names: tuple[str, ...]
    columns: list[int]
    weights: FloatArray | None = None
    """(columns,), where the rewards are one weighted sum."""

    def read(self, logits: FloatArray) -> FloatArray:
        """(n, names) rewards of (n, labels of the model) logits."""
        values: FloatArray = np.asarray(logits, dtype=np.float64)[:, self.columns]
        return values if self.weights is None else values @ self.weights[:, None]


def dialogue_tokens(tokenizer: Any, prompt: Sequence[Message], response: str) -> Dialogue:
    """A prompt and its answer as the model was trained to read them."""
    if tokenizer.chat_template:
        turns = [*prompt, {"role": "assistant", "content": response}]
        text = tokenizer.apply_chat_template(turns, tokenize=False, **template_clock(tokenizer))
        return Dialogue(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"], None)
    encoded = tokenizer(last_user_text(prompt), response, verbose=False)
    return Dialogue(encoded["input_ids"], encoded.get("token_type_ids"))


def wanted_labels(id2label: Mapping[int, str], attributes: Attributes | None) -> Labels:
    """The columns of the labels that are named; of all where none is.

    Raises:
        InputError: for a label that the model does not have.
    """
    labels = [id2label[index] for index in range(len(id2label))]
    names = tuple(labels if attributes is None else attributes)
    unknown = [name for name in names if name not in labels]
    if unknown:
        raise InputError(f"attribute {unknown[0]!r} is not one of the model's: {', '.join(labels)}")
    columns = [labels.index(name) for name in names]
    if isinstance(attributes, Mapping):
        return Labels((_weighted(attributes),), columns, np.array(list(attributes.values()), dtype=np.float64))
    return Labels(names, columns)


def attributes_fingerprint(attributes: Attributes) -> str:
    """What is read, and with which weight."""
    return _weighted(attributes) if isinstance(attributes, Mapping) else "+".join(attributes)


def _weighted(attributes: Mapping[str, float]) -> str:
    return "+".join(f"{float(weight)!r}*{name}" for name, weight in attributes.items())


def load_classifier_tokenizer(ref: ModelRef) -> Any:
    """The model's tokenizer, with a token to pad with.

    Raises:
        ModelError: when there is none.
    """
    from transformers import AutoTokenizer

    options: dict[str, Any] = {"revision": ref.commit, "trust_remote_code": False}
    if ref.kind != "hub":
        options["local_files_only"] = True
    try:
        tokenizer = AutoTokenizer.from_pretrained(ref.location, **options)
    except (OSError, ValueError, KeyError) as error:
        raise not_loadable(ref, error) from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def not_loadable(ref: ModelRef, error: Exception) -> ModelError:
    """One line for whatever a library says of a folder or a Hub id that holds no classifier."""
    said = str(error).partition("\n")[0] or "no message"
    return ModelError(
        f"reward model {ref.given!r} could not be loaded ({type(error).__name__}: {said}): expected a "
        f"sequence-classification model with safetensors weights"
    )

"""What a sequence classifier reads: a dialogue as token ids, and which of its labels are wanted. Runs no model.

The dialogue is written with the model's own chat template; an encoder without one reads prompt and answer as a
pair of texts, as older reward models were trained. A template is a program of somebody else: a dialogue of which
it leaves something out has no reward.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from curation.errors import InputError, ModelError
from curation.models.classifier_network import reads_last_token
from curation.models.identity import ModelRef
from curation.models.prompt_encoding import TemplateRefusal, holds, left_out, render_dialogue
from curation.models.protocols import Fault
from curation.models.template_options import template_variables
from curation.models.tokenizers import open_tokenizer
from curation.models.weights import LOADING_ERRORS
from curation.text import Message, messages_text

__all__ = [
    "Attributes",
    "Dialogue",
    "Labels",
    "attributes_fingerprint",
    "dialogue_tokens",
    "load_classifier_tokenizer",
    "not_loadable",
    "require_input",
    "too_long",
    "wanted_labels",
]

FloatArray = npt.NDArray[np.float64]
_CUT: Final = "the reward model's template leaves out a part of the answer, such as its reasoning"
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


def dialogue_tokens(tokenizer: Any, prompt: Sequence[Message], response: str) -> Dialogue | Fault:
    """A prompt and its answer as the model was trained to read them, or why it cannot.

    A beginning-of-text token stands where the template writes one: the tokenizer adds none to it.
    """
    if not tokenizer.chat_template:
        encoded = tokenizer(messages_text(prompt), response, verbose=False)
        return Dialogue(encoded["input_ids"], encoded.get("token_type_ids"))
    text = _rendered(tokenizer, [*prompt, {"role": "assistant", "content": response}])
    if isinstance(text, Fault):
        return text
    if fault := left_out(prompt, text, whose="reward model"):
        return fault
    if not holds(text, response):
        return Fault("template_drops_answer", "", _CUT)
    return Dialogue(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"], None)


def _rendered(tokenizer: Any, turns: list[Message]) -> str | Fault:
    try:
        return render_dialogue(tokenizer, turns, template_variables(tokenizer))
    except TemplateRefusal as error:
        roles = {turn["role"] for turn in turns}
        said = " with a system message" if "system" in roles else ""
        return Fault("template_refuses_dialogue", str(error), f"the reward model's template cannot hold it{said}")


def too_long(dialogue: Dialogue, limit: int) -> Fault:
    """Why a dialogue that is longer than the model reads has no reward: a cut answer would be another one."""
    count = len(dialogue.ids)
    return Fault("context_overflow", str(count), f"{count} tokens, and the reward model reads at most {limit}")


def require_input(ref: ModelRef, tokenizer: Any, network: Any) -> None:
    """Refuse a language model with a head that has no chat template: how it reads a dialogue is not known.

    Raises:
        ModelError: when it is such a model.
    """
    if reads_last_token(network) and not tokenizer.chat_template:
        raise ModelError(
            f"reward model {ref.given!r} has no chat template, and a {type(network).__name__} does not read prompt "
            f"and answer as a pair of texts: copy it to a folder, and put the format that its card describes there "
            f"as chat_template.jinja"
        )


def wanted_labels(config: Any, attributes: Attributes | None) -> Labels:
    """The columns of the labels that are named; of all where none is.

    Raises:
        InputError: for a label that the model does not have, and where none is named and the labels are the classes
            of one question: what speaks for one of them speaks against the others.
    """
    labels = [config.id2label[index] for index in range(config.num_labels)]
    if attributes is None and _exclude_each_other(config):
        raise InputError(
            f"the model is a classifier with the labels {', '.join(labels)}, of which one excludes the others, and "
            f"so not each is a reward: name what counts, such as attributes {{{labels[-1]}: 1, {labels[0]}: -1}}"
        )
    names = tuple(labels if attributes is None else attributes)
    unknown = [name for name in names if name not in labels]
    if unknown:
        raise InputError(f"attribute {unknown[0]!r} is not one of the model's: {', '.join(labels)}")
    columns = [labels.index(name) for name in names]
    if isinstance(attributes, Mapping):
        return Labels((_weighted(attributes),), columns, np.array(list(attributes.values()), dtype=np.float64))
    return Labels(names, columns)


def _exclude_each_other(config: Any) -> bool:
    """Whether the labels are classes. Two are, if the config does not say otherwise."""
    known = {"single_label_classification": True, "multi_label_classification": False, "regression": False}
    return bool(config.num_labels > 1 and known.get(config.problem_type, config.num_labels == 2))


def attributes_fingerprint(attributes: Attributes) -> str:
    """What is read, and with which weight."""
    return _weighted(attributes) if isinstance(attributes, Mapping) else "+".join(attributes)


def _weighted(attributes: Mapping[str, float]) -> str:
    return "+".join(f"{float(weight)!r}*{name}" for name, weight in attributes.items())


def load_classifier_tokenizer(ref: ModelRef) -> Any:
    """The model's tokenizer.

    Raises:
        ModelError: when there is none.
    """
    try:
        return open_tokenizer(ref)
    except LOADING_ERRORS as error:
        raise not_loadable(ref, error) from error


def not_loadable(ref: ModelRef, error: Exception) -> ModelError:
    """One line for whatever a library says of a folder or a Hub id that holds no classifier."""
    said = str(error).partition("\n")[0] or "no message"
    return ModelError(
        f"reward model {ref.given!r} could not be loaded ({type(error).__name__}: {said}): expected a "
        f"sequence-classification model with safetensors weights"
    )

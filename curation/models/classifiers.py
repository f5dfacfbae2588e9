"""A sequence classifier of transformers: texts to logits. What its labels mean is the caller's.

Of a text that is too long both ends are read, and it is said so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from curation.errors import ModelError
from curation.models.classifier_network import Padding, open_network
from curation.models.identity import ModelRef
from curation.models.positions import most_tokens
from curation.models.tokenizers import open_tokenizer
from curation.models.weights import LOADING_ERRORS

__all__ = ["Classified", "SequenceClassifier", "open_classifier"]


class Classified(NamedTuple):
    """What a classifier says of n texts."""

    logits: npt.NDArray[np.float64]
    """(n, labels)."""
    truncated: npt.NDArray[np.bool_]
    """(n,), true where only the beginning and the end were read."""

    def probabilities(self, *, multi_label: bool = False) -> npt.NDArray[np.float64]:
        """(n, labels): each label's share, or where each is a question of its own, as one alone is, its chance.

        Raises:
            ModelError: when a logit is not finite.
        """
        from scipy.special import expit, softmax

        if not np.isfinite(self.logits).all():
            raise ModelError("a logit is not finite; use float32")
        alone = multi_label or self.logits.shape[1] == 1
        found: npt.NDArray[np.float64] = expit(self.logits) if alone else softmax(self.logits, axis=1)
        return found


class SequenceClassifier:
    """An open classifier.

    Attributes:
        labels: their names, in the order of the logits.
        multi_label: whether its config says that each label is a question of its own.
        has_template: whether its tokenizer writes dialogues.
    """

    def __init__(self, network: Any, tokenizer: Any, *, max_length: int, batch_size: int) -> None:
        self._network = network
        self._tokenizer = tokenizer
        self._padding = Padding(network)
        self._batch_size = batch_size
        names = {int(number): str(name) for number, name in network.config.id2label.items()}
        self.labels = [names[number] for number in sorted(names)]
        self.multi_label = network.config.problem_type == "multi_label_classification"
        self.has_template = bool(tokenizer.chat_template)
        limit = most_tokens(network) or max_length
        self._max_length = min(max_length, limit)
        self._before, self._after = _special_tokens(tokenizer)

    def classify(self, texts: Sequence[str]) -> Classified:
        """The logits of n texts, so many at a time."""
        import torch

        parts = [self._ids(text) for text in texts]
        found = [np.zeros((0, len(self.labels)))]
        with torch.inference_mode():
            for start in range(0, len(parts), self._batch_size):
                rows = [ids for ids, _ in parts[start : start + self._batch_size]]
                logits = self._network(**self._padding.batch(rows, device=self._network.device)).logits
                found.append(logits.double().cpu().numpy())
        return Classified(np.concatenate(found), np.array([was_cut for _, was_cut in parts], dtype=bool))

    def _ids(self, text: str) -> tuple[list[int], bool]:
        """Token ids with both ends kept, and whether the middle was left out."""
        ids = self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        room = self._max_length - len(self._before) - len(self._after)
        cut = len(ids) > room
        if cut:
            tail = room // 4
            ids = ids[: room - tail] + ids[-tail:]
        return [*self._before, *ids, *self._after], cut


def open_classifier(
    ref: ModelRef, *, what: str, or_else: str = "", max_length: int = 512, batch_size: int = 32,
    device: str | None = None,
) -> SequenceClassifier:  # fmt: skip
    """Load a classifier, safetensors only.

    Args:
        what: what it is for, in an error; ``or_else``: what else would have been right.
        max_length: tokens that are read.
        batch_size: texts in one forward pass.
        device: ``cpu``, ``cuda``, …; None for the best one there is.

    Raises:
        ModelError: when it cannot be loaded, or its files do not hold all of it.
    """
    import torch

    where = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        tokenizer = open_tokenizer(ref)
        network = open_network(ref, device=where)
    except LOADING_ERRORS as error:
        detail = str(error).splitlines()[0] if str(error) else "no message"
        raise ModelError(
            f"{what} {ref.given!r} could not be loaded ({type(error).__name__}: {detail}): "
            f"expected a sequence classifier with safetensors weights{or_else}"
        ) from error
    return SequenceClassifier(network, tokenizer, max_length=max_length, batch_size=batch_size)


def _special_tokens(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The token ids that a tokenizer puts before and after a text."""
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a")["input_ids"]
    starts = [n for n in range(len(whole) - len(plain) + 1) if whole[n : n + len(plain)] == plain]
    return whole[: starts[0]], whole[starts[0] + len(plain) :]

"""A language model's states as it has read an answer, one dialogue at a time. Imports torch.

A dialogue is read alone and whole, so an answer's numbers do not depend on its neighbours, and nothing is cut. The
statistics that CHES needs are in ``summary``; what these states say of a label is in ``curation.scores``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import torch

from curation.errors import InputError
from curation.models.identity import ModelRef
from curation.models.policy.forward import is_out_of_memory, trunk
from curation.models.policy.rendering import Rendered, Renderer
from curation.models.policy.transformers_backend import load_model, load_tokenizer
from curation.models.protocols import AnswerStates, Fault
from curation.text import Message

__all__ = ["AnswerStatesReader", "open_reader"]

_END_DEPTH: Final = 0.4
_MEAN_DEPTH: Final = 0.8
"""Shares of the model's layers, rounded: layers 12 and 24 of 30."""


class AnswerStatesReader:
    """The states of a causal language model of transformers; see ``curation.models.answer_states``."""

    def __init__(self, model: Any, tokenizer: Any, *, fingerprint: str) -> None:
        self.fingerprint = fingerprint
        self._model = model
        config = model.config.get_text_config()
        self._renderer = Renderer(tokenizer, raw=False, max_length=getattr(config, "max_position_embeddings", None))
        self._width = int(config.hidden_size)
        self._end, self._mean = (
            max(1, round(depth * int(config.num_hidden_layers))) for depth in (_END_DEPTH, _MEAN_DEPTH)
        )

    def states(self, prompts: Sequence[Sequence[Message]], responses: Sequence[str]) -> AnswerStates:
        """See ``curation.models.protocols.AnswerReader``."""
        end, mean = (np.full((len(prompts), self._width), np.nan) for _ in range(2))
        faults: dict[int, Fault] = {}
        rendered = self._renderer.render(prompts, [[response] for response in responses])
        for row, group in enumerate(rendered):
            found = group if isinstance(group, Fault) else group.faults.get(0) or self._read(group)
            if isinstance(found, Fault):
                faults[row] = found
            else:
                end[row], mean[row] = found
        return AnswerStates(end, mean, faults)

    @torch.inference_mode()
    def _read(self, group: Rendered) -> tuple[torch.Tensor, torch.Tensor] | Fault:
        """The state at the answer's end and the mean state over it, (width,) each."""
        ids = np.concatenate([group.prompt, group.answers[0]])
        try:
            layers = trunk(self._model)(
                input_ids=torch.from_numpy(ids)[None].to(self._model.device),
                use_cache=False,
                output_hidden_states=True,
            ).hidden_states
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return Fault("out_of_memory", str(len(ids)), "the answer, with its prompt, does not fit into memory")
        end = layers[self._end][0, -1].float().cpu()
        mean = layers[self._mean][0, len(group.prompt) :].float().mean(dim=0).cpu()
        if not (end.isfinite().all() and mean.isfinite().all()):
            return Fault("not_finite", "", "the model's states are not numbers")
        return end, mean


def open_reader(ref: ModelRef, *, dtype: str, fingerprint: str) -> AnswerStatesReader:
    """Load the model and its tokenizer.

    Raises:
        InputError: when it has no chat template.
        ModelError: when a part of it cannot be loaded.
    """
    tokenizer = load_tokenizer(ref)
    if not tokenizer.chat_template:
        raise InputError(
            f"language model {ref.given!r} has no chat template, and reads dialogues: give one that has, an "
            f"instruction-tuned one"
        )
    return AnswerStatesReader(load_model(ref, dtype=dtype), tokenizer, fingerprint=fingerprint)

"""Three ways to the final states of some prompts' answers, which differ in what they share. Imports torch.

``packed``: all prompts and answers of a batch in one row, every shared prefix once. ``shared_cache``: a
prompt once, its answers one by one on a copy of its cache. ``separate``: every answer with its prompt anew.
All three return the same numbers, up to rounding.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from curation.models.policy.attention import TreeLayout, use_layout
from curation.models.policy.packing import IntArray, pack
from curation.models.policy.rendering import Rendered

__all__ = [
    "METHODS",
    "Forward",
    "States",
    "is_out_of_memory",
    "packed",
    "packed_alone",
    "separate",
    "shared_cache",
    "trunk",
]


def trunk(model: Any) -> Any:
    """What gives a causal language model's final states, without its output layer.

    A part of a larger model (Llama 4's text model) may name a base that it does not have.
    """
    found = model.base_model
    return model.model if found is model and hasattr(model, "model") else found


class States(NamedTuple):
    """Final states after the final norm of some prompts."""

    rows: torch.Tensor
    """(T, d)."""
    where: list[list[torch.Tensor]]
    """Per prompt and answer, the |y| rows from the last prompt token to the second-to-last answer token."""
    forwarded: int
    """Tokens that went through the model for it."""
    windows: frozenset[int | None] = frozenset()
    """The sliding windows that layers asked for (``packed`` only)."""


Forward = Callable[[Any, Sequence[Rendered], int], States]
"""(model, prompts, the shortest prefix worth sharing) to their states."""


def packed(model: Any, groups: Sequence[Rendered], min_shared: int) -> States:
    """One forward of a packed token tree."""
    sequences = [_read(group.prompt, answer) for group in groups for answer in group.answers]
    tree = pack(sequences, min_shared=min_shared)
    layout = TreeLayout(tree)
    device = model.device
    with use_layout(layout):
        rows = trunk(model)(
            input_ids=torch.from_numpy(tree.ids)[None].to(device),
            position_ids=torch.from_numpy(tree.positions)[None].to(device),
            use_cache=False,
        ).last_hidden_state[0]
    paths = iter(tree.where)
    where = [
        [torch.from_numpy(next(paths)[len(group.prompt) - 1 :]).to(device) for _ in group.answers]
        for group in groups
    ]
    return States(rows, where, len(tree.ids), frozenset(layout.windows))


def shared_cache(model: Any, groups: Sequence[Rendered], min_shared: int) -> States:
    """Each prompt once, then each of its answers on a copy of the prompt's cache."""
    del min_shared
    gathered = _Gathered(model.device)
    for group in groups:
        start = trunk(model)(input_ids=_row(group.prompt, model), use_cache=True)
        last = gathered.add(start.last_hidden_state[0, -1:])
        gathered.forwarded += len(group.prompt)
        gathered.where.append([])
        for answer in group.answers:
            rows = last
            if len(answer) > 1:
                cache = copy.deepcopy(start.past_key_values)
                more = trunk(model)(input_ids=_row(answer[:-1], model), past_key_values=cache, use_cache=True)
                rows = torch.cat([last, gathered.add(more.last_hidden_state[0])])
                gathered.forwarded += len(answer) - 1
            gathered.where[-1].append(rows)
    return gathered.states()


def separate(model: Any, groups: Sequence[Rendered], min_shared: int) -> States:
    """Each answer with its prompt, one forward each."""
    del min_shared
    gathered = _Gathered(model.device)
    for group in groups:
        gathered.where.append([])
        for answer in group.answers:
            sequence = _read(group.prompt, answer)
            states = trunk(model)(input_ids=_row(sequence, model), use_cache=False).last_hidden_state[0]
            gathered.where[-1].append(gathered.add(states[len(group.prompt) - 1 :]))
            gathered.forwarded += len(sequence)
    return gathered.states()


def packed_alone(model: Any, groups: Sequence[Rendered], min_shared: int) -> States:
    """``separate`` for a model whose attention follows a layout: each row holds one sequence."""
    gathered = _Gathered(model.device)
    for group in groups:
        gathered.where.append([])
        for i, answer in enumerate(group.answers):
            alone = packed(model, [group._replace(answers=[answer], candidates=[i])], min_shared)
            gathered.where[-1].append(gathered.add(alone.rows[alone.where[0][0]]))
            gathered.forwarded += alone.forwarded
    return gathered.states()


METHODS: dict[str, Forward] = {"packed": packed, "shared_cache": shared_cache, "separate": separate}


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory, and nothing else, was missing."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "allocate memory" in str(error)


class _Gathered:
    def __init__(self, device: torch.device) -> None:
        self.where: list[list[torch.Tensor]] = []
        self.forwarded = 0
        self._pieces: list[torch.Tensor] = []
        self._rows = 0
        self._device = device

    def add(self, states: torch.Tensor) -> torch.Tensor:
        self._pieces.append(states)
        self._rows += len(states)
        return torch.arange(self._rows - len(states), self._rows, device=self._device)

    def states(self) -> States:
        return States(torch.cat(self._pieces), self.where, self.forwarded)


def _read(prompt: IntArray, answer: IntArray) -> IntArray:
    """What the model has to read: nothing needs the state after the last answer token."""
    return np.concatenate([prompt, answer[:-1]])


def _row(ids: IntArray, model: Any) -> torch.Tensor:
    return torch.from_numpy(ids)[None].to(model.device)

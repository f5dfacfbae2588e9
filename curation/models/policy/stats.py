"""What a policy says of a prompt's candidates, as plain arrays. No torch, no models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from curation.models.protocols import Fault, FloatArray
from curation.text import Message

__all__ = ["Policy", "PolicyStats"]


class PolicyStats(NamedTuple):
    """Statistics of the k candidates of one prompt; entry i is always candidate i as given.

    A candidate with a fault has 0 tokens, NaN in every other place, and its reason in ``faults``; the other
    candidates keep their numbers.
    """

    prompt_tokens: int
    tokens: npt.NDArray[np.int64]
    """(k,) |y|: answer tokens, the end-of-turn token among them where the template writes one."""
    logps: FloatArray
    """(k,) log π(y | x) in nats, summed over the answer's tokens."""
    gram: FloatArray
    """(k, k) ⟨S_i, S_j⟩ of the summed states."""
    last_gram: FloatArray
    """(k, k) inner products of the last of the states that S sums."""
    edit: FloatArray
    """(k, k) Levenshtein distance over tokens divided by the longer length."""
    grad_gram: FloatArray | None
    """(k, k) inner products of the output layer's gradients of log π(y | x), where asked for."""
    token_logps: list[FloatArray]
    """k arrays (|y|,), log-probability of each answer token."""
    answer_ids: list[npt.NDArray[np.int64]]
    """k arrays (|y|,), the answer's token ids."""
    faults: dict[int, Fault]
    """Why a candidate has no numbers."""


class Policy(Protocol):
    """A causal language model, as far as pair scores need it."""

    fingerprint: str
    hidden_size: int
    raw: bool
    """Whether texts are taken as they are, without a chat template."""
    output_gradients: bool
    """Whether ``PolicyStats.grad_gram`` is filled."""
    method: str
    """How prefixes are shared: ``packed``, ``shared_cache``, ``separate`` or ``vllm``."""

    def stats(
        self, prompts: Sequence[Sequence[Message] | str], responses: Sequence[Sequence[str]]
    ) -> Iterator[PolicyStats | Fault]:
        """One entry per prompt, in order; a Fault where the prompt itself cannot be used."""
        ...

"""What a model must offer to the stages. Adapters implement these; stages know nothing else of them.

Every adapter comes as a pair of functions in its own module: ``<kind>_fingerprint(model, ...)``, which
imports no torch and loads nothing, and ``open_<kind>(model, ...)``, which loads. The fingerprint holds
everything that can change the numbers: weights, revision, and the parameters of the call.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from curation.text import Message

__all__ = [
    "AnswerReader",
    "AnswerStates",
    "AskedInPart",
    "Encoded",
    "Encoder",
    "Fault",
    "Generation",
    "Generator",
    "RefusalDetector",
    "RefusalScores",
    "RewardModel",
]

FloatArray = npt.NDArray[np.float64]


class Fault(NamedTuple):
    """Why a row, a prompt or an answer cannot be used: what a reject row says."""

    rule: str
    value: str
    reason: str


class Encoded(NamedTuple):
    """Vectors of n texts."""

    vectors: npt.NDArray[np.float32]
    """(n, dimension), L2-normalised."""
    truncated: npt.NDArray[np.bool_]
    """(n,), true where the model read only the beginning of the text."""


class Encoder(Protocol):
    """Texts to vectors."""

    fingerprint: str

    @property
    def dimension(self) -> int: ...

    def encode(self, texts: Sequence[str]) -> Encoded: ...


class AnswerStates(NamedTuple):
    """What a language model has in mind when it has read n answers, (n, width) each; NaN where it could not."""

    end: FloatArray
    """The state at the answer's last token, in the layer at two fifths of the model's depth."""
    mean: FloatArray
    """The mean state over the answer's tokens, at four fifths of its depth."""
    faults: dict[int, Fault]
    """The rows that were not read, and why."""


class AnswerReader(Protocol):
    """A language model that reads a dialogue with an answer."""

    fingerprint: str

    def states(self, prompts: Sequence[Sequence[Message]], responses: Sequence[str]) -> AnswerStates:
        """The states of n dialogues with one answer each, read one by one and whole."""
        ...


class RewardModel(Protocol):
    """A prompt and a response to a number; higher is better, in the model's own unit."""

    fingerprint: str

    def score(self, prompts: Sequence[Sequence[Message]], responses: Sequence[str]) -> FloatArray:
        """(n, k) float64, one column a reward: heads of an ensemble, attributes; NaN where there is no answer."""
        ...


@runtime_checkable
class AskedInPart(Protocol):
    """A reward model whose values of an answer are asked for one by one."""

    def score_missing(
        self, prompts: Sequence[Sequence[Message]], responses: Sequence[str], known: FloatArray
    ) -> FloatArray:
        """:meth:`RewardModel.score`, but for what is known already: ``known`` is (n, k) with NaN for the rest."""
        ...


class RefusalScores(NamedTuple):
    """What a detector says of n responses."""

    probability: FloatArray
    """(n,), the probability of a refusal, partial or full; NaN where a judge's reply could not be read."""
    refusal_class: Sequence[str | None]
    """n names of ``schemas.refusals.REFUSAL_CLASSES``; None where the probability is NaN."""
    kind: Sequence[str | None]
    """n kinds of refusal (declined, deflected, …); None for compliance and where the detector cannot tell."""
    truncated: npt.NDArray[np.bool_]
    """(n,), true where only the beginning and the end of the answer were read."""


class RefusalDetector(Protocol):
    """A response (and its prompt, where there is one) to the probability that it refuses."""

    fingerprint: str

    def detect(self, prompts: Sequence[str | None], responses: Sequence[str]) -> RefusalScores: ...


class Generation(NamedTuple):
    """One sampled answer."""

    text: str
    finish_reason: str
    """``stop``, ``length``, or the server's own word."""
    prompt_tokens: int
    completion_tokens: int


class Generator(Protocol):
    """A prompt and a sample index to an answer; the same two always give the same answer."""

    fingerprint: str

    def generate(
        self, prompts: Sequence[Sequence[Message]], sample_indices: Sequence[int]
    ) -> list[Generation | Fault]: ...

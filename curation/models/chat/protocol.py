"""What a chat model must offer: messages in, an answer out, in whatever order the answers come.

Generators, judges and rewriters are all written against this. Adapters are in the modules beside it; no
prompt and no storage is here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from curation.models.protocols import Fault
from curation.text import Message

__all__ = ["ChatAnswer", "ChatModel", "ChatOptions", "ChatReply", "ChatRequest", "TokenProbabilities"]


class ChatRequest(NamedTuple):
    """One answer to get."""

    key: str
    """Names the request in its reply; unique in one call."""
    messages: tuple[Message, ...]
    sample_index: int = 0
    """Another index is another draw; the same request with the same index gives the same answer where a
    backend can promise that (in process), and asks for it by a seed where it cannot (servers)."""


@dataclass(frozen=True)
class ChatOptions:
    """Everything besides the model and the messages that decides an answer; part of the fingerprint."""

    max_new_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    system_prompt: str | None = None
    """Put before every prompt that has no system message of its own."""
    json_schema: Mapping[str, Any] | None = None
    """The answer must fit it (structured outputs)."""
    top_logprobs: int = 0
    """How many alternatives to each token come back with their log-probabilities; 0 for none."""
    lora: str | None = None
    """Name of an adapter."""
    extra_body: Mapping[str, Any] | None = None
    """Further fields of a server's request, by its own names: ``reasoning_effort``."""
    template_options: Mapping[str, Any] | None = None
    """Variables of the chat template: ``{"enable_thinking": False}``; for a server its ``chat_template_kwargs``."""
    dtype: str | None = None
    """The width that vLLM in this process runs a model in; the model's own."""
    quantization: str | None = None
    """How vLLM in this process quantises, by its own name (``fp8``, ``bitsandbytes``); as the model's files are."""
    json_schema_optional: bool = False
    """Whether a server without structured outputs may answer all the same, for a caller who checks every reply.
    It changes no answer of a server that has them, so it is not in the fingerprint."""


class TokenProbabilities(NamedTuple):
    """One token of an answer and what could have stood there."""

    token: str
    alternatives: tuple[tuple[str, float], ...]
    """(token text, natural log-probability), the likeliest first; the token itself is among them."""


class ChatAnswer(NamedTuple):
    """One answer."""

    text: str
    finish_reason: str
    """``stop``, ``length``, or the server's own word."""
    prompt_tokens: int
    completion_tokens: int
    reasoning: str | None = None
    """What the server or the model's markers set apart as reasoning."""
    tokens: tuple[TokenProbabilities, ...] = ()
    """Empty when no log-probabilities were asked for, or the backend gives none."""


class ChatReply(NamedTuple):
    """What became of one request."""

    key: str
    answer: ChatAnswer | Fault
    broken_off: int = 0
    """How often it was sent without an answer that could be read, which a provider may charge for all the same."""


class ChatModel(Protocol):
    """Many requests to as many replies."""

    fingerprint: str

    def chat(self, requests: Iterable[ChatRequest]) -> Iterator[ChatReply]:
        """Exactly one reply for each request, as soon as it is there and in any order.

        Requests are taken from the iterable only as room for them comes free, so a million may be queued.

        Raises:
            ModelError: when no request can succeed (no such model, a wrong key, a server that stays away).
        """
        ...

"""What servers are asked in this process, for whoever pays: tokens by model. What they cost is not here."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final, NamedTuple, Protocol

from curation.models.chat.connection import Address
from curation.models.chat.protocol import ChatAnswer
from curation.text import Message

__all__ = ["Payer", "Tokens", "asks", "counted", "most_tokens", "paying", "used"]

_TOKENS_PER_MESSAGE: Final = 32
"""What a chat template can add to a message, generously."""
_LOCK: Final = threading.Lock()
_PAYERS: Final[list[Payer]] = []


class Tokens(NamedTuple):
    """Of one request to a model."""

    prompt: int = 0
    completion: int = 0
    estimated: int = 0
    """How many of the two the server did not count: so many they can be at most."""


class Payer(Protocol):
    """Who pays for what servers are asked. Called by the thread that asks."""

    def asks(self, model: Address) -> None:
        """Requests are about to be sent to a model.

        Raises:
            BudgetReached: when they may not be.
        """
        ...

    def used(self, model: Address, tokens: Tokens) -> None:
        """A server has replied, or has taken a request and not replied."""
        ...


@contextmanager
def paying(payer: Payer) -> Iterator[None]:
    """Whatever thread of this process asks a server in this block, ``payer`` hears of it."""
    with _LOCK:
        _PAYERS.append(payer)
    try:
        yield
    finally:
        with _LOCK:
            _PAYERS.remove(payer)


def asks(model: Address) -> None:
    """Tell those who pay; see :class:`Payer`."""
    for payer in tuple(_PAYERS):
        payer.asks(model)


def used(model: Address, tokens: Tokens) -> None:
    """Tell those who pay; see :class:`Payer`."""
    for payer in tuple(_PAYERS):
        payer.used(model, tokens)


def most_tokens(messages: Sequence[Message], system_prompt: str | None, max_new_tokens: int) -> Tokens:
    """What a request can take at most: no token is shorter than a byte, and no answer longer than it may be."""
    # The text more is the system's, or stands for what a template writes to open the answer.
    texts = [message["content"] for message in messages] + [system_prompt or ""]
    prompt = sum(len(text.encode("utf-8", "surrogatepass")) + _TOKENS_PER_MESSAGE for text in texts)
    return Tokens(prompt, max_new_tokens, prompt + max_new_tokens)


def counted(answer: ChatAnswer, most: Tokens) -> Tokens:
    """The tokens of an answer as the server counted them; at the most they can be where it counted none."""
    prompt, completion = answer.prompt_tokens, answer.completion_tokens
    if not prompt and not completion:
        return most
    wrote = bool(answer.text or answer.reasoning)
    missing = Tokens(0 if prompt else most.prompt, 0 if completion or not wrote else most.completion)
    return Tokens(prompt + missing.prompt, completion + missing.completion, sum(missing))

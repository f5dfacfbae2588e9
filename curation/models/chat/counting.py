"""A chat server that is not asked: what it would be asked is counted, to know that before it is paid for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final

from curation.models.chat.connection import Address
from curation.models.chat.protocol import ChatOptions, ChatReply, ChatRequest
from curation.models.chat.usage import Tokens, most_tokens
from curation.models.protocols import Fault

__all__ = ["Counted", "CountedChat", "counter", "counting"]


@dataclass
class Counted:
    """Of one model."""

    requests: int = 0
    tokens: Tokens = field(default_factory=Tokens)
    """The most that they can be."""


Counts = dict[Address, Counted]
"""What servers would have been asked, by model."""
_COUNTER: Final[ContextVar[Counts | None]] = ContextVar("counter", default=None)


@contextmanager
def counting(counts: Counts) -> Iterator[None]:
    """Chat servers that are opened in this block are not asked: see :class:`CountedChat`."""
    before = _COUNTER.set(counts)
    try:
        yield
    finally:
        _COUNTER.reset(before)


def counter() -> Counts | None:
    """Where is counted; None where servers are asked."""
    return _COUNTER.get()


class CountedChat:
    """See :class:`curation.models.chat.protocol.ChatModel`: each request is counted, and has no answer."""

    def __init__(self, address: Address, options: ChatOptions, counts: Counts, *, fingerprint: str) -> None:
        self.fingerprint = fingerprint
        self._options = options
        self._counted = counts.setdefault(address, Counted())

    def chat(self, requests: Iterable[ChatRequest]) -> Iterator[ChatReply]:
        """A fault for each request."""
        options, counted = self._options, self._counted
        for request in requests:
            most = most_tokens(request.messages, options.system_prompt, options.max_new_tokens)
            counted.requests += 1
            counted.tokens = Tokens(*map(sum, zip(counted.tokens, most, strict=True)))
            yield ChatReply(request.key, Fault("not_asked", "", "it was only counted"))

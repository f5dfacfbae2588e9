"""What servers were asked in this process: tokens by model, as they counted them. What they cost is not here."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from curation.models.chat.connection import Address
from curation.models.chat.protocol import ChatReply

__all__ = ["Tokens", "Usage", "count_reply", "counting"]

_LOCK: Final = threading.Lock()
_ACTIVE: Final[list[Usage]] = []


class Tokens(NamedTuple):
    """Of one model."""

    prompt: int = 0
    completion: int = 0


class Usage:
    """What has been used in a ``counting`` block so far."""

    def __init__(self) -> None:
        self.by_model: dict[Address, Tokens] = {}

    @property
    def tokens(self) -> int:
        """Of prompts and answers, over all models."""
        return sum(sum(tokens) for tokens in self.by_model.values())


@contextmanager
def counting() -> Iterator[Usage]:
    """Count what is asked of servers in this block, by whatever thread of this process."""
    usage = Usage()
    with _LOCK:
        _ACTIVE.append(usage)
    try:
        yield usage
    finally:
        with _LOCK:
            _ACTIVE.remove(usage)


def count_reply(model: Address, reply: ChatReply) -> None:
    """Add a server's reply. What was broken off is not in it: nobody counted its tokens."""
    prompt = getattr(reply.answer, "prompt_tokens", 0)
    completion = getattr(reply.answer, "completion_tokens", 0)
    if not prompt and not completion:
        return
    with _LOCK:
        for usage in _ACTIVE:
            before = usage.by_model.get(model, Tokens())
            usage.by_model[model] = Tokens(before.prompt + prompt, before.completion + completion)

"""A chat server whose answers are kept, and not asked for again. Who keeps them is in ``curation.models.kept``."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from curation.models.chat.protocol import ChatAnswer, ChatModel, ChatReply, ChatRequest, TokenProbabilities
from curation.models.kept import Keeper
from curation.text import canonical_json, content_hash

__all__ = ["KeptChat"]


class KeptChat:
    """See :class:`curation.models.chat.protocol.ChatModel`. Only answers are kept; what failed is asked again."""

    def __init__(self, chat: ChatModel, keeper: Keeper) -> None:
        self._chat, self._keeper = chat, keeper
        self.fingerprint = chat.fingerprint

    def chat(self, requests: Iterable[ChatRequest]) -> Iterator[ChatReply]:
        """Kept replies at once, the others as they come. The same request, made twice, is asked once."""
        asked: dict[str, str] = {}
        same: dict[str, list[str]] = {}
        found: deque[ChatReply] = deque()

        def unknown() -> Iterator[ChatRequest]:
            for request in requests:
                messages = canonical_json(list(request.messages))
                key = content_hash("reply", self.fingerprint, messages, str(request.sample_index))
                if key in same:
                    same[key].append(request.key)
                    continue
                kept = self._keeper.find(key)
                if kept is not None:
                    found.append(ChatReply(request.key, _answer(kept)))
                    continue
                asked[request.key], same[key] = key, []
                yield request

        for reply in self._chat.chat(unknown()):
            key = asked.pop(reply.key)
            if isinstance(reply.answer, ChatAnswer):
                self._keeper.add(key, _fields(reply.answer))
            yield reply
            found.extend(ChatReply(other, reply.answer) for other in same.pop(key))
            while found:
                yield found.popleft()
        yield from found


def _fields(answer: ChatAnswer) -> dict[str, Any]:
    """JSON has no infinity, which a server may mean by a log-probability."""
    tokens = [
        [token, [[text, logp if math.isfinite(logp) else None] for text, logp in others]]
        for token, others in answer.tokens
    ]
    return {**answer._asdict(), "tokens": tokens}


def _answer(kept: Mapping[str, Any]) -> ChatAnswer:
    fields = {name: kept[name] for name in ChatAnswer._fields}
    tokens = tuple(
        TokenProbabilities(token, tuple((text, -math.inf if logp is None else logp) for text, logp in others))
        for token, others in fields["tokens"]
    )
    return ChatAnswer(**(fields | {"tokens": tokens}))

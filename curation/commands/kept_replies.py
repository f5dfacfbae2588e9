"""What a server replied to a command on a file, kept until the command is done. In runs the ledger keeps it.

A command writes its output whole or not at all. Its replies are paid for, so they lie beside the output while it
works (``OUT.replies``), and the same command goes on from them when it broke off.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import typer

from curation.journal import Journal
from curation.models.chat.opening import wrapping_servers
from curation.models.chat.protocol import ChatAnswer, ChatModel, ChatReply, ChatRequest, TokenProbabilities
from curation.text import canonical_json, content_hash

__all__ = ["kept_replies"]


@contextmanager
def kept_replies(output: Path) -> Iterator[None]:
    """Keeps what servers reply in this block, and takes it away when the block ends well.

    Raises:
        WorkspaceError: when a reply cannot be kept.
    """
    kept = _Kept(output.with_name(f"{output.name}.replies"))
    try:
        with wrapping_servers(kept.around):
            yield
    except BaseException:
        kept.close()
        if kept.count:
            typer.echo(
                f"{kept.count:,} replies of the server are kept in {kept.path}: the same command goes on from them",
                err=True,
            )
        raise
    kept.close()
    if kept.unused:
        typer.echo(
            f"{len(kept.unused):,} replies in {kept.path} are to other requests, of another model or file: "
            f"remove it when nobody needs them",
            err=True,
        )
    else:
        kept.path.unlink(missing_ok=True)


class _Kept:
    """The replies beside one output, those of a command that broke off among them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self.unused = set[str]()
        self._journal: Journal | None = None
        self._open_files = ExitStack()
        self._known: dict[str, ChatAnswer] = {}
        if path.is_file():
            self._known = {entry["key"]: _answer(entry) for entry in self._open().read().entries}
            self.count = len(self._known)
            self.unused = set(self._known)
            typer.echo(f"{self.count:,} replies are in {path} since a command broke off, and are not paid again",
                       err=True)  # fmt: skip

    def around(self, chat: ChatModel) -> ChatModel:
        return _KeptChat(chat, self)

    def find(self, key: str) -> ChatAnswer | None:
        self.unused.discard(key)
        return self._known.get(key)

    def add(self, key: str, answer: ChatAnswer) -> None:
        self._open().append({"key": key, **_fields(answer)})
        self.count += 1

    def close(self) -> None:
        self._open_files.close()

    def _open(self) -> Journal:
        if self._journal is None:
            self._journal = self._open_files.enter_context(Journal(self.path))
        return self._journal


class _KeptChat:
    """See :class:`curation.models.chat.protocol.ChatModel`. Only answers are kept; what failed is asked again."""

    def __init__(self, chat: ChatModel, kept: _Kept) -> None:
        self._chat, self._kept = chat, kept
        self.fingerprint = chat.fingerprint

    def chat(self, requests: Iterable[ChatRequest]) -> Iterator[ChatReply]:
        """Kept replies at once, the others as they come."""
        asked: dict[str, str] = {}
        found: deque[ChatReply] = deque()

        def unknown() -> Iterator[ChatRequest]:
            for request in requests:
                messages = canonical_json(list(request.messages))
                key = content_hash("reply", self.fingerprint, messages, str(request.sample_index))
                answer = self._kept.find(key)
                if answer is not None:
                    found.append(ChatReply(request.key, answer))
                    continue
                asked[request.key] = key
                yield request

        for reply in self._chat.chat(unknown()):
            if isinstance(reply.answer, ChatAnswer):
                self._kept.add(asked.pop(reply.key), reply.answer)
            yield reply
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


def _answer(entry: dict[str, Any]) -> ChatAnswer:
    fields = {name: entry[name] for name in ChatAnswer._fields}
    tokens = tuple(
        TokenProbabilities(token, tuple((text, -math.inf if logp is None else logp) for text, logp in others))
        for token, others in fields["tokens"]
    )
    return ChatAnswer(**(fields | {"tokens": tokens}))

"""Chat behind any OpenAI-compatible server, through the official client: ``vllm serve`` first.

One request is one answer (``n`` is 1), so that each is kept, retried and refused alone. What a reply means is
in ``replies``; how patient we are is in ``connection``; storage is elsewhere. The calls run on an event loop in
a thread of their own; the caller's iterable is only ever read by the caller's thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sys
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import Any, Final

from curation.errors import MissingExtraError, ModelError
from curation.interrupts import interrupts_of_nobody
from curation.models.chat.connection import Address, Connection
from curation.models.chat.exchange import Exchange
from curation.models.chat.protocol import ChatAnswer, ChatOptions, ChatReply, ChatRequest
from curation.models.chat.usage import asks, counted, most_tokens, used

__all__ = ["ServerChat"]

_QUEUED_PER_SLOT: Final = 2
"""Requests taken from the caller for each one that the server may have at once: those under way, those that
wait before they are sent again, and enough that the server is not kept waiting for us."""
_LOOK_EVERY: Final = 0.1  # seconds: for Ctrl-C
_UNDER_WAY: Final = "are under way and paid for, their replies are waited for; Ctrl-C again gives them up"


class ServerChat:
    """See ``curation.models.chat.protocol.ChatModel``."""

    def __init__(self, address: Address, options: ChatOptions, connection: Connection, *, fingerprint: str) -> None:
        try:
            import openai  # noqa: F401
        except ImportError as error:
            raise MissingExtraError("openai", "openai") from error
        connection.key()
        self.fingerprint = fingerprint
        self._address = address
        self._options = options
        self._connection = connection

    def chat(self, requests: Iterable[ChatRequest]) -> Iterator[ChatReply]:
        """One reply for each request, as it comes.

        Raises:
            BudgetReached: when who pays for it says so, before anything is sent.
            ModelError: when no request can succeed: no such model, a wrong or missing key, a server that stays
                away for longer than the connection's patience, or that answers nothing but errors.
        """
        waiting = iter(requests)
        first = next(waiting, None)
        if first is None:
            return
        asks(self._address)
        exchange = Exchange(self._address, self._options, self._connection)
        with _LoopThread() as loop:
            try:
                loop.wait_for(exchange.open())
                with interrupts_of_nobody() as interrupted:
                    yield from self._replies(exchange, loop, first, waiting, interrupted)
            finally:
                loop.stop_tasks()
                loop.wait_for(exchange.close())

    def _replies(
        self,
        exchange: Exchange,
        loop: _LoopThread,
        first: ChatRequest,
        waiting: Iterator[ChatRequest],
        interrupted: Callable[[], bool],
    ) -> Iterator[ChatReply]:
        """Once one request ends all, or after Ctrl-C, those that are under way and no more."""
        sent: dict[str, ChatRequest] = {}
        room = self._connection.concurrency * _QUEUED_PER_SLOT
        under_way = 0
        request: ChatRequest | None = first
        while True:
            while request is not None and under_way < room:
                sent[request.key] = request
                loop.start(exchange.reply_to(request))
                under_way += 1
                request = next(waiting, None)
            if under_way == 0:
                return
            try:
                reply = loop.next_result(interrupted)
            except (ModelError, KeyboardInterrupt) as end:
                if isinstance(end, ModelError):
                    under_way -= 1
                elif interrupted():
                    sys.stderr.write(f"stopping: {under_way:,} requests {_UNDER_WAY}\n")
                else:
                    raise
                exchange.stop_sending()
                for reply in loop.last_results(under_way):
                    yield self._counted(reply, sent.pop(reply.key))
                raise
            under_way -= 1
            yield self._counted(reply, sent.pop(reply.key))

    def _counted(self, reply: ChatReply, request: ChatRequest) -> ChatReply:
        options = self._options
        most = most_tokens(request.messages, options.system_prompt, options.max_new_tokens)
        if isinstance(reply.answer, ChatAnswer):
            used(self._address, counted(reply.answer, most))
        # A provider may charge for what broke off all the same, each time that it was sent.
        for _ in range(reply.broken_off):
            used(self._address, most)
        return reply


class _LoopThread:
    """An event loop in a thread: tasks are started from outside, and their results come out of a queue."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="chat-server", daemon=True)
        self._results: queue.SimpleQueue[ChatReply | BaseException] = queue.SimpleQueue()
        self._tasks: set[asyncio.Task[ChatReply]] = set()

    def __enter__(self) -> _LoopThread:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def start(self, work: Coroutine[Any, Any, ChatReply]) -> None:
        self._loop.call_soon_threadsafe(self._start, work)

    def next_result(self, interrupted: Callable[[], bool] = lambda: False) -> ChatReply:
        """The next reply, or what ended its request.

        Raises:
            KeyboardInterrupt: when Ctrl-C was pressed. Not by the signal: that would lose a result that comes then.
        """
        while not interrupted():
            with contextlib.suppress(queue.Empty):
                result = self._results.get(timeout=_LOOK_EVERY)
                if isinstance(result, BaseException):
                    raise result
                return result
        raise KeyboardInterrupt

    def last_results(self, count: int) -> Iterator[ChatReply]:
        """The replies among the next results: what was under way is paid for, even when no more is sent."""
        for _ in range(count):
            try:
                yield self.next_result()
            except ModelError:
                continue

    def wait_for(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def stop_tasks(self) -> None:
        async def stop() -> None:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

        self.wait_for(stop())

    def _start(self, work: Coroutine[Any, Any, ChatReply]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[ChatReply]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            self._results.put(ModelError("a request was cancelled"))
        else:
            self._results.put(task.exception() or task.result())

"""One request with a server: what is sent, how often, and when to give up. Runs on an event loop.

Three things go wrong in three ways. A *request* that is refused or fails too often becomes a Fault. A *server*
that cannot be connected to is waited for, and that counts against no request. And where nothing can succeed (a
wrong key, no such model), the first reply that says so ends the call with one ModelError.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import re
import time
from typing import Any, Final

from curation.errors import ModelError, closest
from curation.models.chat.connection import Address, Connection
from curation.models.chat.protocol import ChatOptions, ChatReply, ChatRequest
from curation.models.chat.replies import (
    Broken,
    Refusal,
    Retry,
    Stop,
    answer_in,
    meaning_of_status,
    refused_fields,
    said_in,
)
from curation.models.chat.request_body import RequestBody
from curation.models.prompt_encoding import text_fault
from curation.models.protocols import Fault

__all__ = ["Exchange"]

_LOG: Final = logging.getLogger(__name__)
_FIRST_WAIT: Final = 0.5
_LONGEST_WAIT: Final = 30.0
_LONGEST_RECONNECT: Final = 5.0
_WHAT_IS_KEPT: Final = "what was answered is kept"
_REFUSALS_BEFORE_STOP: Final = 20
"""Requests refused for no known reason, before any was answered, that show that the fault is not theirs."""
_FAILURES_BEFORE_STOP: Final = 200
"""Requests in a row that failed for good."""


class Exchange:
    """All calls of one ``chat``: they share a client, a limit on calls at once, and what is known of the server."""

    def __init__(self, address: Address, options: ChatOptions, connection: Connection) -> None:
        self._address = address
        self._connection = connection
        self._name = options.lora or address.name
        self._body = RequestBody(self._name, options)
        self._reached = False
        self._away_since: float | None = None
        self._answered = self._refused = self._failed_in_a_row = 0
        self._client: Any = None
        self._stopping = False
        self._slots = asyncio.Semaphore(connection.concurrency)
        self._random = random.Random()

    async def open(self) -> None:
        """Connect, and see that the server has the model and takes the key.

        Raises:
            ModelError: when it does not, or cannot be reached.
        """
        import openai

        limits: Any = openai.DEFAULT_CONNECTION_LIMITS
        room = self._connection.concurrency + 2
        limits = type(limits)(max_connections=room, max_keepalive_connections=room)
        self._client = openai.AsyncOpenAI(
            base_url=self._address.url,
            api_key=self._connection.key() or "none",
            max_retries=0,
            timeout=self._connection.timeout,
            http_client=openai.DefaultAsyncHttpxClient(limits=limits, timeout=self._connection.timeout),
        )
        await self._check_model()

    def stop_sending(self) -> None:
        """From now on wait for the replies that are under way, and ask for no other."""
        self._stopping = True

    async def close(self) -> None:
        """Let the connections go."""
        if self._client is not None:
            await self._client.close()
            # A closed socket is let go in the loop's next round.
            await asyncio.sleep(0.01)

    async def reply_to(self, request: ChatRequest) -> ChatReply:
        """What became of a request: always a reply, unless nothing can succeed.

        Raises:
            ModelError: when no request can succeed.
        """
        fault = text_fault(request.messages)
        if fault is not None:
            return ChatReply(request.key, fault)
        sent = broken_off = 0
        while True:
            async with self._slots:
                if self._stopping:
                    raise ModelError("no more requests are sent")
                outcome = await self._send(self._body.of(request))
            if outcome is None:
                continue
            if isinstance(outcome, ChatReply):
                self._answered += 1
                self._failed_in_a_row = 0
                return outcome._replace(key=request.key, broken_off=broken_off)
            if isinstance(outcome, Stop):
                raise ModelError(f"{self._address.url}: {outcome.reason}")
            if isinstance(outcome, Refusal):
                self._count_refusal(outcome.fault)
                return ChatReply(request.key, outcome.fault, broken_off)
            sent += 1
            broken_off += outcome.broken_off
            if sent >= self._connection.attempts:
                self._count_failure(outcome.fault)
                fault = outcome.fault._replace(reason=f"{outcome.fault.reason}; sent {sent} times")
                return ChatReply(request.key, fault, broken_off)
            await asyncio.sleep(max(outcome.wait, self._back_off(sent)))

    async def _send(self, body: dict[str, Any]) -> ChatReply | Retry | Refusal | Stop | None:
        """One call. None when it was no call: the server could not be connected to, or takes other fields."""
        import openai

        asked_at = time.monotonic()
        try:
            # The client's own time-out is for the next bytes, however few those are.
            async with asyncio.timeout(self._connection.timeout):
                response = await self._client.post("/chat/completions", body=body, cast_to=_raw_response())
            self._in_reach(asked_at)
            return ChatReply("", answer_in(response.content))
        except Broken as broken:
            fault = Fault(str(broken), "200", "the server's replies could not be read")
            return Retry(fault, broken_off=True)
        except openai.APIStatusError as error:
            self._in_reach(asked_at)
            return self._error_status(error, body)
        except (openai.APIConnectionError, TimeoutError) as error:
            if _could_not_connect(error):
                await self._wait_for_server()
                return None
            if isinstance(error, openai.APITimeoutError | TimeoutError):
                seconds = f"{self._connection.timeout:g}"
                fault = Fault("timeout", seconds, f"the server sent no answer within {seconds} s")
            else:
                fault = Fault("connection_lost", "", "the server closed the connection before it answered")
            return Retry(fault, broken_off=True)

    def _error_status(self, error: Any, body: dict[str, Any]) -> Retry | Refusal | Stop | None:
        refused = refused_fields(error.status_code, error.response.content, body)
        if refused:
            if self._body.without(refused, body):
                return None
            if self._answered == 0:
                said = said_in(error.status_code, error.response.content)
                return Stop(f"{self._body.untaken(refused)}: {said}")
        return meaning_of_status(
            error.status_code,
            error.response.content,
            error.response.headers,
            model=self._name,
            key_variable=self._connection.key_variable,
            has_key=self._connection.key() is not None,
        )

    async def _check_model(self) -> None:
        """Ask for the list of models; a server without one is believed."""
        import openai

        while True:
            asked_at = time.monotonic()
            try:
                response = await self._client.get("/models", cast_to=_raw_response())
            except openai.APIStatusError as error:
                self._in_reach(asked_at)
                if error.status_code in (401, 403):
                    stop = self._error_status(error, {})
                    assert isinstance(stop, Stop)
                    raise ModelError(f"{self._address.url}: {stop.reason}") from None
                return
            except openai.APIConnectionError as error:
                if not _could_not_connect(error):
                    return
                await self._wait_for_server()
                continue
            self._in_reach(asked_at)
            names = _model_names(response.content)
            if names and not any(_means(self._name, name) for name in names):
                shown = ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
                raise ModelError(
                    f"{self._address.url} has no model {self._name!r}{closest(self._name, names)}; it has {shown}"
                )
            return

    def _in_reach(self, asked_at: float) -> None:
        """Note that the server answers; what it said to an older request does not show that it is back."""
        self._reached = True
        if self._away_since is None or asked_at >= self._away_since:
            self._away_since = None

    async def _wait_for_server(self) -> None:
        if self._stopping:
            raise ModelError("no more requests are sent")
        now = time.monotonic()
        options = self._connection
        limit = options.patience if self._reached else min(options.first_patience, options.patience)
        if self._away_since is None:
            self._away_since = now
            _LOG.warning("no server answers at %s: it is waited for, %g s at most", self._address.url, limit)
        away = now - self._away_since
        if away >= limit:
            word = "came back" if self._reached else "could be reached"
            raise ModelError(
                f"no server {word} at {self._address.url} within {limit:g} s: start it and run the same command "
                f"again; {_WHAT_IS_KEPT}"
            )
        wait = min(max(away, _FIRST_WAIT), _LONGEST_RECONNECT, max(limit - away, 0.01))
        await asyncio.sleep(wait * self._random.uniform(0.5, 1.0))

    def _back_off(self, sent: int) -> float:
        """Doubling, with jitter over the upper half, so that requests that failed together come back apart."""
        return float(min(_FIRST_WAIT * 2 ** (sent - 1), _LONGEST_WAIT) * self._random.uniform(0.5, 1.0))

    def _count_refusal(self, fault: Fault) -> None:
        if fault.rule != "bad_request":
            return
        self._refused += 1
        if self._answered == 0 and self._refused >= _REFUSALS_BEFORE_STOP:
            raise ModelError(
                f"{self._address.url}: the first {self._refused} requests were refused and none was answered: "
                f"{fault.reason}; check that the server takes the recipe's options"
            )

    def _count_failure(self, fault: Fault) -> None:
        self._failed_in_a_row += 1
        if self._failed_in_a_row >= _FAILURES_BEFORE_STOP:
            raise ModelError(
                f"{self._address.url}: {self._failed_in_a_row} requests in a row got no answer, each sent "
                f"{self._connection.attempts} times: {fault.reason}; {_WHAT_IS_KEPT}"
            )


def _raw_response() -> Any:
    """The class that makes the client hand over a reply as it came."""
    import httpx

    return httpx.Response


def _could_not_connect(error: BaseException) -> bool:
    cause = error.__cause__
    return cause is not None and type(cause).__name__ in ("ConnectError", "ConnectTimeout", "ProxyError")


def _model_names(body: bytes) -> list[str]:
    """The models that a server lists; empty where it has no list, or shows a part of it (Anthropic's pages)."""
    try:
        reply = json.loads(body)
        return [] if reply.get("has_more") else [str(item["id"]) for item in reply["data"]]
    except (ValueError, KeyError, TypeError, AttributeError):
        return []


def _means(name: str, listed: str) -> bool:
    """Whether a name may stand for a model of the list: makers serve names that they do not list."""
    stem = re.escape(name.removesuffix("-latest"))
    return (
        name == listed
        or listed.endswith(f"/{name}")  # Google lists models/NAME
        or listed == f"{name}:latest"  # Ollama
        or name.partition(":")[0] == listed  # OpenRouter's variants, such as NAME:floor
        or re.fullmatch(rf"{stem}-\d{{4}}[\d-]*", listed) is not None  # the newest of several dates
    )

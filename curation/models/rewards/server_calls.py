"""One request to a reward server: what is sent, how often, how long is waited. Plain HTTP with JSON.

A server that cannot be reached, has no such model or takes no key ends the work with one ModelError. A request that
it refuses, or does not answer however often it is sent, is :class:`Unanswered`: what becomes of its rows is decided
in ``server``.
"""

from __future__ import annotations

import http.client
import json
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final, NamedTuple

from curation.errors import ModelError
from curation.models.chat.connection import DEFAULT_KEY_VARIABLE
from curation.models.chat.replies import Retry, Stop, meaning_of_status
from curation.models.protocols import Fault

__all__ = ["Calls", "Unanswered"]

_ONE_ROW: Final = (400, 413, 422)
"""What a server says of a row that it does not take, such as one longer than the model's context."""
_FIRST_WAIT: Final = 0.2
_LONGEST_WAIT: Final = 10.0
_RETRIES_IF_LOST: Final = 2
"""Of a request whose answer was lost or cannot be read: the server may charge for each."""
_READ_AT_ONCE: Final = 65_536
_ERROR_READ: Final = 20_000


class Unanswered(NamedTuple):
    """A request without an answer."""

    fault: Fault
    said: str
    """What the server did, behind its name."""
    refused: bool = False
    """Whether it said so of these rows."""


class _Failed(Exception):
    """One sending that came to nothing."""

    def __init__(self, unanswered: Unanswered, *, sends: int, wait: float = 0.0, is_away: bool = False) -> None:
        """
        Args:
            sends: how often it is worth sending such a request.
            wait: seconds that the server asks for.
            is_away: nobody was there to take it.
        """
        super().__init__(unanswered.said)
        self.unanswered, self.sends, self.wait, self.is_away = unanswered, sends, wait, is_away


class Calls:
    """The connection to one model of one server. ``post`` may be called from several threads."""

    def __init__(self, url: str, name: str, *, timeout: float, retries: int) -> None:
        self._url, self._name = url, name
        self._timeout = timeout
        self._sends, self._sends_if_lost = 1 + retries, 1 + min(retries, _RETRIES_IF_LOST)
        self._stopping = threading.Event()

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Requests are sent until the block ends, or :meth:`stop`; from then on none is sent again."""
        self._stopping.clear()
        try:
            yield
        finally:
            self.stop()

    def stop(self) -> None:
        """Wait for what is under way, and send nothing more."""
        self._stopping.set()

    @property
    def stopped(self) -> bool:
        return self._stopping.is_set()

    def post(self, body: Mapping[str, Any], *, rows: int) -> list[dict[str, Any]] | Unanswered:
        """The reply's items, one a row and in the order of the rows; or why there are none.

        Raises:
            ModelError: when no request can succeed.
        """
        sent = 0
        while True:
            sent += 1
            try:
                return self._items(self._send(body), rows)
            except _Failed as failed:
                wait = max(failed.wait, min(_FIRST_WAIT * 2 ** (sent - 1), _LONGEST_WAIT))
                if sent >= failed.sends or self._stopping.wait(wait):
                    if failed.is_away:
                        raise ModelError(f"reward server {self._name!r} {failed.unanswered.said}") from failed
                    return failed.unanswered

    def _send(self, body: Mapping[str, Any]) -> bytes:
        """The body of a reply with status 200."""
        content = json.dumps({"model": self._name, **body}).encode()
        request = urllib.request.Request(self._url, content, {"Content-Type": "application/json"})
        if key := os.environ.get(DEFAULT_KEY_VARIABLE, "").strip():
            request.add_unredirected_header("Authorization", f"Bearer {key}")
        try:
            with urllib.request.urlopen(request, timeout=self._timeout) as reply:
                return self._read(reply)
        except urllib.error.HTTPError as error:
            raise self._failed_with_status(error) from error
        except TimeoutError as error:
            said = f"sent no answer within {self._timeout:g} s"
            fault = Fault("timeout", f"{self._timeout:g}", f"the reward server {said}")
            raise _Failed(Unanswered(fault, said), sends=self._sends_if_lost) from error
        except (OSError, http.client.HTTPException) as error:
            cause = error.reason if isinstance(error, urllib.error.URLError) else error
            is_away = cause is not error and not isinstance(cause, ConnectionResetError | BrokenPipeError)
            fault = Fault("connection_lost", "", "the reward server closed the connection before it answered")
            said = f"cannot be reached: {cause}" if is_away else "closed the connection before it answered"
            sends = self._sends if is_away else self._sends_if_lost
            raise _Failed(Unanswered(fault, said), sends=sends, is_away=is_away) from error

    def _read(self, reply: Any) -> bytes:
        """The whole body. The connection's own time-out is for the next bytes, however few those are."""
        until, parts = time.monotonic() + self._timeout, []
        while part := reply.read1(_READ_AT_ONCE):
            parts.append(part)
            if time.monotonic() > until:
                raise TimeoutError
        return b"".join(parts)

    def _failed_with_status(self, error: urllib.error.HTTPError) -> _Failed:
        """
        Raises:
            ModelError: for a status that says that no request can succeed.
        """
        status, said = error.code, b""
        with suppress(OSError, http.client.HTTPException), error:
            said = error.read(_ERROR_READ)
        if status in _ONE_ROW:
            fault = Fault("reward_refused", str(status), f"the reward server refused this row with status {status}")
            return _Failed(Unanswered(fault, f"refused with status {status}", refused=True), sends=1)
        meaning = meaning_of_status(
            status, said, error.headers, model=self._name, key_variable=DEFAULT_KEY_VARIABLE,
            has_key=DEFAULT_KEY_VARIABLE in os.environ,
        )  # fmt: skip
        if isinstance(meaning, Retry):
            answered = Unanswered(meaning.fault, f"answered with status {status}")
            return _Failed(answered, sends=self._sends, wait=meaning.wait)
        if isinstance(meaning, Stop) and status != 404:
            raise ModelError(f"reward server {self._name!r}: {meaning.reason}") from error
        raise ModelError(
            f"reward server {self._name!r} answered with status {status}: check the address and the model's name"
        ) from error

    def _items(self, body: bytes, rows: int) -> list[dict[str, Any]]:
        try:
            items = json.loads(body)["data"]
        except (ValueError, KeyError, TypeError, RecursionError):
            items = None
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise self._unreadable("sent no JSON with a list in 'data'", sends=self._sends_if_lost)
        if len(items) != rows:
            # Of several rows, each is asked about alone; a second time the same would come.
            sends = self._sends_if_lost if rows == 1 else 1
            raise self._unreadable(f"sent {len(items)} rows for {rows}", sends=sends)
        places = [item.get("index") for item in items]
        if rows == 1 or all(place is None for place in places):
            return items
        if not all(isinstance(place, int) for place in places) or len(set(places)) < rows:
            raise self._unreadable("sent rows whose 'index' does not tell them apart", sends=1)
        return sorted(items, key=lambda item: int(item["index"]))

    def _unreadable(self, said: str, *, sends: int) -> _Failed:
        fault = Fault("broken_reply", "200", f"the reward server {said}")
        return _Failed(Unanswered(fault, said), sends=sends)

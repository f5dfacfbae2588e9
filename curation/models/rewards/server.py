"""Reward models behind a server: vLLM's ``/score`` and ``/classify``, and servers that speak the same.

A MODEL is ``http://host:port/classify#model`` or ``http://host:port/score#model``. ``/classify`` gets the dialogue
as messages, which the server writes with the model's own chat template, and returns one value a label: the raw
logit, where the server knows ``use_activation`` as vLLM does. ``/score`` gets prompt and answer as a pair and gives
one score. How one request goes over the wire is in ``server_calls``; what becomes of the rows is here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from curation.errors import InputError, ModelError
from curation.models.kept import keeper
from curation.models.protocols import Fault
from curation.models.rewards.server_calls import Calls, Unanswered
from curation.models.template_options import TODAY
from curation.text import Message, canonical_json, content_hash, messages_text

__all__ = ["ServerReward", "open_server", "server_fingerprint"]

FloatArray = npt.NDArray[np.float64]
_ROUTES: Final = ("score", "classify")
_VERSION: Final = 3
_REFUSALS_BEFORE_STOP: Final = 20
"""Rows refused before any was answered, that show that the fault is not theirs."""
_FAILURES_BEFORE_STOP: Final = 3
"""Rows in a row that failed for good, each asked about alone and several times: the server is out of order."""


def server_fingerprint(
    model: str, *, batch_size: int = 32, timeout: float = 120.0, retries: int = 6, device: str | None = None
) -> str:
    """The model's name, the route and a hash of the address. The server's weights cannot be seen from here."""
    url, name, route = _address(model)
    return f"{route}{_VERSION}:{name}@{content_hash(url)[:8]}"


def open_server(
    model: str, *, batch_size: int = 32, timeout: float = 120.0, retries: int = 6, device: str | None = None
) -> ServerReward:
    """A reward model behind a server; a key is read from OPENAI_API_KEY when it is set.

    Args:
        batch_size: rows that the server has at once.
        timeout: seconds for one reply, the whole of it.
        retries: of a request to a server that is busy, fails or cannot be reached.

    Raises:
        InputError: when the address has no model or another route than ``/score`` and ``/classify``.
    """
    url, name, route = _address(model)
    calls = Calls(url, name, timeout=timeout, retries=retries)
    return ServerReward(calls, name, route, fingerprint=server_fingerprint(model), batch_size=batch_size)


class _Row(NamedTuple):
    place: int
    """In the call of ``score``."""
    content: dict[str, Any]
    """The fields of a request about this row alone."""
    key: str
    """Of its answer, where answers are kept."""


class ServerReward:
    """See ``curation.models.protocols.RewardModel``.

    Attributes:
        faults: for each row of the last ``score``, why it has no reward, or None.
    """

    def __init__(self, calls: Calls, name: str, route: str, *, fingerprint: str, batch_size: int) -> None:
        self._calls, self._name, self._route = calls, name, route
        self._batch_size = batch_size
        self._keeper = keeper()
        self._answered = self._refused = self._failed_in_a_row = 0
        self._last_failure = ""
        self.fingerprint = fingerprint
        self.faults: list[Fault | None] = []

    def score(self, prompts: Sequence[Sequence[Message]], responses: Sequence[str]) -> FloatArray:
        """(n, outputs); NaN where the server gave something else than a number, or no answer for the row.

        Raises:
            ModelError: when the server cannot be reached, takes no row, or answers none.
            WorkspaceError: when an answer cannot be kept.
        """
        found: list[list[float] | Fault] = [[] for _ in responses]
        asked: dict[str, _Row] = {}
        same: list[tuple[int, int]] = []
        for row in self._rows(prompts, responses):
            if row.key in asked:
                same.append((row.place, asked[row.key].place))
                continue
            kept = self._keeper.find(row.key) if self._keeper is not None else None
            if kept is None:
                asked[row.key] = row
            else:
                found[row.place] = _values_of(kept)
                self._answered += 1
        for row, values in self._answers(list(asked.values())):
            found[row.place] = values
        for place, first in same:
            found[place] = found[first]
        if self._failed_in_a_row and not self._answered:
            raise ModelError(f"reward server {self._name!r} {self._last_failure}")
        self.faults = [row if isinstance(row, Fault) else None for row in found]
        width = self._width(found)
        scores = np.full((len(found), width), np.nan)
        for number, one in enumerate(found):
            if not isinstance(one, Fault) and len(one) == width:
                scores[number] = one
        return scores

    def _width(self, found: Sequence[list[float] | Fault]) -> int:
        """How many values a row has; at least 1.

        Raises:
            ModelError: when some have more than others: nobody could say which is which.
        """
        rows = [row for row in found if not isinstance(row, Fault)]
        widths = {len(row) for row in rows if np.isfinite(row).any()}
        if len(widths) > 1:
            counts = " and ".join(map(str, sorted(widths)))
            raise ModelError(
                f"reward server {self._name!r} gave {counts} values for an answer: expected as many for each"
            )
        return next(iter(widths), max([1, *map(len, rows)]))

    def _rows(self, prompts: Sequence[Sequence[Message]], responses: Sequence[str]) -> Iterator[_Row]:
        for place, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
            content: dict[str, Any]
            if self._route == "classify":
                messages = [*prompt, {"role": "assistant", "content": response}]
                content = {
                    "messages": messages,
                    "add_generation_prompt": False,
                    "use_activation": False,
                    # A server's clock would make the rewards of tomorrow other ones.
                    "chat_template_kwargs": {"date_string": TODAY},
                }
            else:
                content = {"text_1": [messages_text(prompt)], "text_2": [response]}
            yield _Row(place, content, content_hash("score", self.fingerprint, canonical_json(content)))

    def _answers(self, rows: Sequence[_Row]) -> Iterator[tuple[_Row, list[float] | Fault]]:
        """Each row with its values or its fault, as they come. What is under way when one breaks off comes too."""
        # A server batches the requests that it has at once; /score takes the batch in one request.
        size, at_once = (1, self._batch_size) if self._route == "classify" else (self._batch_size, 1)
        batches = (rows[start : start + size] for start in range(0, len(rows), size))
        broken: BaseException | None = None
        under_way: set[Future[list[tuple[_Row, list[float] | Fault]]]] = set()
        with ThreadPoolExecutor(at_once) as pool, self._calls.sending():
            while True:
                room = 0 if broken is not None else at_once - len(under_way)
                under_way |= {pool.submit(self._ask, batch) for batch in islice(batches, room)}
                if not under_way:
                    break
                done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                for future in done:
                    error = future.exception()
                    if error is None:
                        yield from future.result()
                    elif broken is None:
                        broken = error
                        self._calls.stop()
        if broken is not None:
            raise broken

    def _ask(self, rows: Sequence[_Row]) -> list[tuple[_Row, list[float] | Fault]]:
        """Ask about these rows in one request, and, where that fails, about each alone."""
        reply = self._calls.post(_joined(rows), rows=len(rows))
        if isinstance(reply, Unanswered):
            if len(rows) > 1 and not self._calls.stopped:
                return [answer for row in rows for answer in self._ask([row])]
            return [(row, self._without(reply)) for row in rows]
        self._answered += len(rows)
        self._failed_in_a_row = 0
        values = [_numbers([item.get("score")] if self._route == "score" else item.get("probs")) for item in reply]
        if self._keeper is not None:
            for row, own in zip(rows, values, strict=True):
                self._keeper.add(row.key, {"values": [one if math.isfinite(one) else None for one in own]})
        return list(zip(rows, values, strict=True))

    def _without(self, reply: Unanswered) -> Fault:
        """Why a row has no reward.

        Raises:
            ModelError: when so many have none that the fault is not theirs.
        """
        if reply.refused:
            self._refused += 1
            if not self._answered and self._refused >= _REFUSALS_BEFORE_STOP:
                raise ModelError(
                    f"reward server {self._name!r} refused the first {self._refused} rows with status "
                    f"{reply.fault.value} and took none: check that the model takes {self._route} requests and has "
                    f"a chat template"
                )
            return reply.fault
        self._failed_in_a_row += 1
        self._last_failure = reply.said
        if self._failed_in_a_row >= _FAILURES_BEFORE_STOP or self._calls.stopped:
            raise ModelError(f"reward server {self._name!r} {reply.said}")
        return reply.fault


def _joined(rows: Sequence[_Row]) -> dict[str, Any]:
    """One request about all of them."""
    if len(rows) == 1:
        return rows[0].content
    return {name: [row.content[name][0] for row in rows] for name in ("text_1", "text_2")}


def _numbers(values: object) -> list[float]:
    return [_number(value) for value in values] if isinstance(values, list) else [math.nan]


def _number(value: object) -> float:
    try:
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    except OverflowError:
        return math.nan


def _values_of(kept: Mapping[str, Any]) -> list[float]:
    return [math.nan if value is None else value for value in kept["values"]]


def _address(model: str) -> tuple[str, str, str]:
    url, _, name = model.partition("#")
    route = url.rstrip("/").rsplit("/", 1)[-1]
    if not name or route not in _ROUTES:
        raise InputError(
            f"reward server {model!r}: expected http://host:port/classify#model or http://host:port/score#model"
        )
    return url, name, route

"""Reward models behind a server: vLLM's ``/score`` and ``/classify``, and servers that speak the same.

A MODEL is ``http://host:port/classify#model`` or ``http://host:port/score#model``. ``/classify`` gets the dialogue
as messages, which the server writes with the model's own chat template, and returns one value a label: the raw
logit, where the server knows ``use_activation`` as vLLM does. ``/score`` gets prompt and answer as a pair and gives
one score. The connection is plain HTTP with JSON; nothing but the standard library is needed.
"""

from __future__ import annotations

import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from curation.errors import InputError, ModelError
from curation.models.protocols import Fault
from curation.text import Message, content_hash, messages_text

__all__ = ["ServerReward", "open_server", "server_fingerprint"]

FloatArray = npt.NDArray[np.float64]
_ROUTES: Final = ("score", "classify")
_VERSION: Final = 2
_ONE_ROW: Final = (400, 413, 422)
"""What a server says of a row that it does not take, such as one longer than the model's context."""
_AGAIN: Final = (408, 409, 429)
_REFUSALS_BEFORE_STOP: Final = 20
"""Rows refused before any was answered, that show that the fault is not theirs."""
_LONGEST_WAIT: Final = 10.0


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

    Raises:
        InputError: when the address has no model or another route than ``/score`` and ``/classify``.
    """
    url, name, route = _address(model)
    return ServerReward(
        url,
        name,
        route,
        fingerprint=server_fingerprint(model),
        batch_size=batch_size,
        timeout=timeout,
        retries=retries,
    )


class ServerReward:
    """See ``curation.models.protocols.RewardModel``.

    Attributes:
        faults: for each row of the last ``score``, why it has no reward, or None.
    """

    def __init__(
        self, url: str, name: str, route: str, *, fingerprint: str, batch_size: int, timeout: float, retries: int
    ) -> None:
        self._url, self._name, self._route = url, name, route
        self._batch_size, self._timeout, self._retries = batch_size, timeout, retries
        self._answered = self._refused = 0
        self.fingerprint = fingerprint
        self.faults: list[Fault | None] = []

    def score(self, prompts: Sequence[Sequence[Message]], responses: Sequence[str]) -> FloatArray:
        """(n, outputs); NaN where the server gave something else than a number, or did not take the row.

        Raises:
            ModelError: when the server does not answer, answers with another number of rows, or takes none.
        """
        one_by_one = self._route == "classify"
        bodies = self._classified(prompts, responses) if one_by_one else self._scored(prompts, responses)
        rows: list[list[float] | Fault] = []
        # A server batches the requests that it has at once; /score takes the batch in one request.
        with ThreadPoolExecutor(self._batch_size if one_by_one else 1) as pool:
            for found in pool.map(self._rows, bodies):
                rows += found
        self.faults = [row if isinstance(row, Fault) else None for row in rows]
        width = max((len(row) for row in rows if not isinstance(row, Fault)), default=1)
        scores = np.full((len(rows), width), np.nan)
        for number, row in enumerate(rows):
            if not isinstance(row, Fault) and len(row) == width:
                scores[number] = row
        return scores

    def _classified(
        self, prompts: Sequence[Sequence[Message]], responses: Sequence[str]
    ) -> Iterator[dict[str, Any]]:
        for prompt, response in zip(prompts, responses, strict=True):
            messages = [*prompt, {"role": "assistant", "content": response}]
            yield {"messages": messages, "add_generation_prompt": False, "use_activation": False}

    def _scored(self, prompts: Sequence[Sequence[Message]], responses: Sequence[str]) -> Iterator[dict[str, Any]]:
        for start in range(0, len(responses), self._batch_size):
            part = slice(start, start + self._batch_size)
            yield {"text_1": [messages_text(prompt) for prompt in prompts[part]], "text_2": list(responses[part])}

    def _rows(self, body: dict[str, Any]) -> list[list[float] | Fault]:
        """The values of each row of a request; of a refused batch each row is asked about alone."""
        count = len(body.get("text_2", [None]))
        data = self._post({"model": self._name, **body})
        if isinstance(data, int):
            if count > 1:
                pairs = zip(body["text_1"], body["text_2"], strict=True)
                return [row for one, two in pairs for row in self._rows({"text_1": [one], "text_2": [two]})]
            return [self._refusal(data)]
        if len(data) != count:
            raise ModelError(f"reward server {self._name!r} sent {len(data)} rows for {count}")
        self._answered += count
        values = [[item.get("score")] if self._route == "score" else item.get("probs") or [] for item in data]
        return [[_number(value) for value in row] for row in values]

    def _refusal(self, status: int) -> Fault:
        self._refused += 1
        if not self._answered and self._refused >= _REFUSALS_BEFORE_STOP:
            raise ModelError(
                f"reward server {self._name!r} refused the first {self._refused} rows with status {status} and "
                f"took none: check that the model takes {self._route} requests and has a chat template"
            )
        return Fault("reward_refused", str(status), f"the reward server refused this row with status {status}")

    def _post(self, body: dict[str, Any]) -> list[dict[str, Any]] | int:
        """The rows of a reply, or the status of a refusal that is about the rows."""
        headers = {"Content-Type": "application/json"}
        if os.environ.get("OPENAI_API_KEY"):
            headers["Authorization"] = f"Bearer {os.environ['OPENAI_API_KEY']}"
        request = urllib.request.Request(self._url, json.dumps(body).encode(), headers)
        for attempt in range(self._retries + 1):
            try:
                with urllib.request.urlopen(request, timeout=self._timeout) as reply:
                    data = json.load(reply)["data"]
                return sorted(data, key=lambda item: int(item.get("index", 0)))
            except urllib.error.HTTPError as error:
                error.close()
                if error.code in _ONE_ROW:
                    return error.code
                if (error.code < 500 and error.code not in _AGAIN) or attempt == self._retries:
                    raise ModelError(f"reward server {self._name!r} answered with status {error.code}") from error
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                raise ModelError(f"reward server {self._name!r} sent no JSON with a list in 'data'") from error
            except (OSError, http.client.HTTPException) as error:
                if attempt == self._retries:
                    raise ModelError(f"reward server {self._name!r} cannot be reached: {error}") from error
            time.sleep(min(0.2 * 2**attempt, _LONGEST_WAIT))
        raise AssertionError("the loop returns or raises")


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else float("nan")


def _address(model: str) -> tuple[str, str, str]:
    url, _, name = model.partition("#")
    route = url.rstrip("/").rsplit("/", 1)[-1]
    if not name or route not in _ROUTES:
        raise InputError(
            f"reward server {model!r}: expected http://host:port/classify#model or http://host:port/score#model"
        )
    return url, name, route

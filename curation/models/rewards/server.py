"""Reward models behind a server: vLLM's ``/score`` and ``/classify``, and servers that speak the same.

A MODEL is ``http://host:port/classify#model`` or ``http://host:port/score#model``. ``/classify`` gets the
dialogue and returns one value a label; ``/score`` gets prompt and answer as a pair and returns one score.
The connection is plain HTTP with JSON; nothing but the standard library is needed.
"""

from __future__ import annotations

import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from curation.errors import InputError, ModelError
from curation.text import Message, content_hash, messages_text

__all__ = ["ServerReward", "open_server", "server_fingerprint"]

FloatArray = npt.NDArray[np.float64]
_ROUTES: Final = ("score", "classify")


def server_fingerprint(
    model: str, *, batch_size: int = 32, timeout: float = 120.0, retries: int = 2, device: str | None = None
) -> str:
    """The model's name, the route and a hash of the address. The server's weights cannot be seen from here."""
    url, name, route = _address(model)
    return f"{route}:{name}@{content_hash(url)[:8]}"


def open_server(
    model: str, *, batch_size: int = 32, timeout: float = 120.0, retries: int = 2, device: str | None = None
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
    """See ``curation.models.protocols.RewardModel``."""

    def __init__(
        self, url: str, name: str, route: str, *, fingerprint: str, batch_size: int, timeout: float, retries: int
    ) -> None:
        self._url, self._name, self._route = url, name, route
        self._batch_size, self._timeout, self._retries = batch_size, timeout, retries
        self.fingerprint = fingerprint

    def score(self, prompts: Sequence[Sequence[Message]], responses: Sequence[str]) -> FloatArray:
        """(n, outputs); NaN where the server gave something else than a number.

        Raises:
            ModelError: when the server does not answer, or answers with another number of rows.
        """
        rows: list[list[float]] = []
        for start in range(0, len(responses), self._batch_size):
            part = slice(start, start + self._batch_size)
            rows += self._batch(prompts[part], responses[part])
        width = max((len(row) for row in rows), default=1)
        scores = np.full((len(rows), width), np.nan)
        for number, row in enumerate(rows):
            if len(row) == width:
                scores[number] = row
        return scores

    def _batch(self, prompts: Sequence[Sequence[Message]], responses: Sequence[str]) -> list[list[float]]:
        if self._route == "score":
            body = {"text_1": [messages_text(prompt) for prompt in prompts], "text_2": list(responses)}
            data = self._post({"model": self._name, **body})
            values = [[item.get("score")] for item in data]
        else:
            dialogues = [
                messages_text([*prompt, {"role": "assistant", "content": response}])
                for prompt, response in zip(prompts, responses, strict=True)
            ]
            values = [item.get("probs") or [] for item in self._post({"model": self._name, "input": dialogues})]
        if len(values) != len(responses):
            raise ModelError(f"reward server {self._name!r} sent {len(values)} rows for {len(responses)}")
        return [[_number(value) for value in row] for row in values]

    def _post(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        headers = {"Content-Type": "application/json"}
        if os.environ.get("OPENAI_API_KEY"):
            headers["Authorization"] = f"Bearer {os.environ['OPENAI_API_KEY']}"
        request = urllib.request.Request(self._url, json.dumps(body).encode(), headers)
        for attempt in range(self._retries + 1):
            try:
                with urllib.request.urlopen(request, timeout=self._timeout) as reply:
                    data = json.load(reply)["data"]
                return sorted(data, key=lambda item: int(item.get("index", 0)))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ModelError(f"reward server {self._name!r} sent no JSON with a list in 'data'") from error
            except urllib.error.HTTPError as error:
                if error.code < 500 or attempt == self._retries:
                    raise ModelError(f"reward server {self._name!r} answered with status {error.code}") from error
            except (OSError, http.client.HTTPException) as error:
                if attempt == self._retries:
                    raise ModelError(f"reward server {self._name!r} cannot be reached: {error}") from error
            time.sleep(0.2 * 2**attempt)
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

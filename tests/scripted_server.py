"""An OpenAI-compatible server whose answers a test writes: the far end of a connection, and nothing of ours."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from tests.http_server import Handler, listening

__all__ = ["Scripted", "scripted"]

Script = Callable[[str, int], tuple[str, str]]
"""The last message and the seed, to the answer and its finish reason."""
Refusal = Callable[[list[dict[str, Any]]], str | None]
"""The messages, to what is said with status 400; None to answer."""


class Scripted(NamedTuple):
    """A running server."""

    url: str
    asked: list[tuple[str, int]]
    """Every request that came: its last message, its seed."""

    def model(self, name: str = "m") -> str:
        return f"{self.url}/v1#{name}"


@contextmanager
def scripted(script: Script, *, refusal: Refusal = lambda messages: None) -> Iterator[Scripted]:
    """Run a server until the block ends. It answers one request at a time, so that the script may count them."""
    asked: list[tuple[str, int]] = []
    turn = threading.Lock()

    class Server(Handler):
        protocol_version = "HTTP/1.1"

        def get(self) -> None:
            self.answer(200, {"object": "list", "data": [{"id": "m", "object": "model"}]})

        def post(self) -> None:
            request = self.body()
            text, seed = request["messages"][-1]["content"], request.get("seed", 0)
            with turn:
                self.reply_to(request, text, seed)

        def reply_to(self, request: dict[str, Any], text: str, seed: int) -> None:
            asked.append((text, seed))
            refused = refusal(request["messages"])
            if refused is not None:
                error = {"message": refused, "type": "BadRequestError", "param": None, "code": 400}
                self.answer(400, {"error": error})
                return
            answer, reason = script(text, seed)
            message = {"role": "assistant", "content": answer}
            choice = {"index": 0, "message": message, "finish_reason": reason, "logprobs": None}
            usage = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
            self.answer(
                200,
                {
                    "id": "x",
                    "object": "chat.completion",
                    "created": 0,
                    "model": "m",
                    "choices": [choice],
                    "usage": usage,
                },
            )

    with listening(Server) as url:
        yield Scripted(url, asked)

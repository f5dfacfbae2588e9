"""An OpenAI-compatible server whose answers a test writes: the far end of a connection, and nothing of ours."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

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
    """Run a server until the block ends."""
    asked: list[tuple[str, int]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._send({"object": "list", "data": [{"id": "m", "object": "model"}]})

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["content-length"])))
            text, seed = request["messages"][-1]["content"], request.get("seed", 0)
            asked.append((text, seed))
            refused = refusal(request["messages"])
            if refused is not None:
                error = {"message": refused, "type": "BadRequestError", "param": None, "code": 400}
                self._send({"error": error}, status=400)
                return
            answer, reason = script(text, seed)
            message = {"role": "assistant", "content": answer}
            choice = {"index": 0, "message": message, "finish_reason": reason, "logprobs": None}
            usage = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
            self._send(
                {
                    "id": "x",
                    "object": "chat.completion",
                    "created": 0,
                    "model": "m",
                    "choices": [choice],
                    "usage": usage,
                }
            )

        def _send(self, body: dict[str, Any], *, status: int = 200) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield Scripted(f"http://127.0.0.1:{server.server_port}", asked)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

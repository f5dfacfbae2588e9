"""A far end on loopback for as long as a block lasts: what every double of a service is made of."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["Handler", "Server", "listening"]


class Server(ThreadingHTTPServer):
    """Of as many connections as a client opens at once.

    Python's own is behind with five, and Linux then resets others under load. The client cannot know that such a
    request was never read, and counts it as paid.
    """

    request_queue_size = 1_024


class Handler(BaseHTTPRequestHandler):
    """Reads and writes JSON, and says nothing on the terminal. Who has no ``get`` or ``post`` answers 404."""

    def do_GET(self) -> None:
        self.get()

    def do_POST(self) -> None:
        self.post()

    def get(self) -> None:
        """Answer a GET."""
        self.answer(404, {})

    def post(self) -> None:
        """Answer a POST."""
        self.answer(404, {})

    def body(self) -> Any:
        """What was sent."""
        return json.loads(self.rfile.read(int(self.headers["content-length"])))

    def answer(self, status: int, content: Any) -> None:
        """A whole reply."""
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def listening(handler: type[BaseHTTPRequestHandler], *, waits: bool = True) -> Iterator[str]:
    """Serve until the block ends, and say where.

    Args:
        waits: at the end, for the requests that are under way.
    """
    server = Server(("127.0.0.1", 0), handler)
    server.daemon_threads = not waits
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

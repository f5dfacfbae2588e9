"""The far end of an OpenAI-compatible chat API, for tests and benchmarks: a process of its own on loopback.

    python tests/chat_server.py LOG [--seed 0] [--faults 0.4] [--delay 0.01] [--models policy] [--key KEY] ...

It prints its port. Its answer to a request is a hash of the messages and the seed, so an answer that got crossed
with another request's is seen. With ``--faults`` it misbehaves in seeded ways: late, 429 with and without
Retry-After, 500, closed before and inside the reply, broken JSON, no choices, a choice twice. LOG gets a line
``got ID`` when a request came, ``did FAULT ID`` and ``answered ID`` once a whole good answer was written.
Only the standard library, so that it starts quickly.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

FAULTS = (
    "late",
    "rate_limit",
    "rate_limit_wait",
    "error_500",
    "closed",
    "cut",
    "broken_json",
    "no_choices",
    "twice",
)
CONTEXT_CHARACTERS = 20_000


def identity(messages: list[dict[str, str]], seed: int) -> str:
    return hashlib.sha256(json.dumps([messages, seed], sort_keys=True).encode()).hexdigest()[:24]


def answer_text(messages: list[dict[str, str]], seed: int) -> str:
    return f"answer to {identity(messages, seed)}"


class ChatServer:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.log = os.open(options.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.seen: Counter[str] = Counter()

    def note(self, *words: str) -> None:
        os.write(self.log, (" ".join(words) + f" {time.time():.3f}\n").encode())

    def fault(self, name: str) -> str | None:
        """By the request and how often it came alone, so that the order of arrival changes nothing."""
        digest = hashlib.sha256(f"{self.options.seed} {name} {self.seen[name]}".encode()).digest()
        if int.from_bytes(digest[:4], "big") / 2**32 >= self.options.faults:
            return None
        return FAULTS[digest[4] % len(FAULTS)]

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.decode("latin-1").split("\r\n")
                headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:])}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                if not await self.reply(lines[0].split()[1], headers, body, writer):
                    break
        writer.close()

    async def reply(self, path: str, headers: dict[str, str], body: bytes, writer: asyncio.StreamWriter) -> bool:
        if self.options.key and headers.get("authorization") != f"Bearer {self.options.key}":
            return await self.send(writer, 401, {"error": {"code": "invalid_api_key", "message": "no"}})
        if path == "/v1/models" and not self.options.no_list:
            return await self.send(writer, 200, {"data": [{"id": m} for m in self.options.models.split(",")]})
        if path != "/v1/chat/completions":
            return await self.send(writer, 404, {"error": {"message": "not found", "code": "not_found"}})
        request = json.loads(body)
        messages, seed = request["messages"], request.get("seed", 0)
        name = identity(messages, seed)
        self.note("got", name)
        gone = 0 < self.options.gone_after <= len(self.seen)
        if gone or request["model"] not in self.options.models.split(","):
            return await self.send(writer, 404, {"error": {"message": "no such model", "code": "model_not_found"}})
        return await self.complete(request, name, writer)

    async def complete(self, request: dict[str, Any], name: str, writer: asyncio.StreamWriter) -> bool:
        messages = request["messages"]
        if sum(len(m["content"]) for m in messages) > CONTEXT_CHARACTERS:
            message = "This model's maximum context length is 4096 tokens."
            return await self.send(writer, 400, {"error": {"message": message, "code": "context_length_exceeded"}})
        self.seen[name] += 1
        fault = self.fault(name)
        await asyncio.sleep(self.options.delay * (20 if fault == "late" else 1))
        if fault not in (None, "late", "twice"):
            self.note("did", fault, name)
            return await self.misbehave(fault, writer)
        return await self.answer(request, name, twice=fault == "twice", writer=writer)

    async def answer(
        self, request: dict[str, Any], name: str, *, twice: bool, writer: asyncio.StreamWriter
    ) -> bool:
        text = answer_text(request["messages"], request.get("seed", 0))
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
        words = sum(len(m["content"].split()) for m in request["messages"])
        usage = {"prompt_tokens": words, "completion_tokens": 4, "total_tokens": words + 4}
        reply = {"id": name, "object": "chat.completion", "created": int(time.time()), "model": request["model"]}
        done = await self.send(writer, 200, {**reply, "choices": [choice] * (1 + twice), "usage": usage})
        self.note("answered", name)
        return done

    async def misbehave(self, fault: str, writer: asyncio.StreamWriter) -> bool:
        if fault == "rate_limit":
            return await self.send(writer, 429, {"error": {"message": "slow down"}})
        if fault == "rate_limit_wait":
            return await self.send(writer, 429, {"error": {"message": "slow down"}}, extra="Retry-After: 1\r\n")
        if fault == "error_500":
            return await self.send(writer, 500, {"error": {"message": "oh"}})
        if fault == "broken_json":
            return await self.send(writer, 200, b'{"choices": [{"index": 0, "mess')
        if fault == "no_choices":
            return await self.send(writer, 200, {"choices": []})
        if fault == "cut":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{")
            await writer.drain()
        return False

    async def send(
        self, writer: asyncio.StreamWriter, status: int, content: dict[str, Any] | bytes, *, extra: str = ""
    ) -> bool:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        head = (
            f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n{extra}\r\n"
        )
        writer.write(head.encode() + body)
        await writer.drain()
        return True

    async def serve(self) -> None:
        # A backlog that nobody fills: Linux resets connections that wait behind one, as tests/http_server.py says.
        server = await asyncio.start_server(
            self.connection, "127.0.0.1", self.options.port, limit=2**22, backlog=1_024
        )
        sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
        sys.stdout.flush()
        await server.serve_forever()


class Running:
    """A server that runs in its own process, and what its log says."""

    def __init__(self, log: Path, *arguments: str) -> None:
        self.log = log
        self.arguments = arguments
        self.port = 0
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-S", __file__, str(self.log), "--port", str(self.port), *self.arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    @property
    def model(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1#policy"

    def lines(self) -> list[list[str]]:
        return [line.split() for line in self.log.read_text().splitlines()] if self.log.exists() else []

    def began(self) -> float:
        """When the first line was written, in seconds since the epoch."""
        return float(self.lines()[0][-1])

    def got(self) -> Counter[str]:
        """How often each request came."""
        return Counter(line[1] for line in self.lines() if line[0] == "got")

    def sent_after_answer(self) -> list[str]:
        """Requests that came again after a whole answer to them had been written."""
        answered: set[str] = set()
        again = []
        for line in self.lines():
            if line[0] == "answered":
                answered.add(line[1])
            elif line[0] == "got" and line[1] in answered:
                again.append(line[1])
        return again


@contextmanager
def running(log: Path, *arguments: str) -> Iterator[Running]:
    server = Running(log, *arguments)
    try:
        yield server
    finally:
        server.stop()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("log")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--faults", type=float, default=0.0)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--models", default="policy")
    parser.add_argument("--key", default="")
    parser.add_argument("--no-list", action="store_true")
    parser.add_argument("--gone-after", type=int, default=0, help="requests after which the model is gone")
    asyncio.run(ChatServer(parser.parse_args()).serve())


if __name__ == "__main__":
    main()

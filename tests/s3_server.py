"""An S3-compatible server on this machine: moto's, with its buckets in memory, in a process of its own.

It serves one request after the other: moto looks whether an object is there and then writes it, so that two
conditional puts at once could both succeed. In turn, they are as atomic as S3's own.
"""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

__all__ = ["S3Server", "s3_server"]

ROOT = Path(__file__).resolve().parents[1]
BUCKET = "curation-tests"


class S3Server(NamedTuple):
    """A server, and what a process needs to know of it."""

    url: str
    environment: dict[str, str]

    @property
    def bucket(self) -> str:
        return f"s3://{BUCKET}"


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """Start a server with an empty bucket."""
    command = [sys.executable, "-m", "tests.s3_server"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    try:
        url = f"http://127.0.0.1:{int(process.stdout.readline())}"
        _wait_for(url)
        environment = {
            "AWS_ENDPOINT_URL": url,
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "planted-key-id",
            "AWS_SECRET_ACCESS_KEY": "planted-secret-key",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        with _request(f"{url}/{BUCKET}", "PUT"):
            pass
        yield S3Server(url, environment)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def _request(url: str, method: str) -> object:
    return urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=10)


def _wait_for(url: str) -> None:
    for _ in range(600):
        try:
            _request(f"{url}/moto-api/", "GET").close()  # type: ignore[attr-defined]
            return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
    raise AssertionError("the S3 server did not start")


def main() -> None:
    """Serve on a free port, which is the first line of the output."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    server = make_server("127.0.0.1", 0, DomainDispatcherApplication(create_backend_app), threaded=False)
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main()

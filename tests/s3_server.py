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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Final, NamedTuple

from tests.http_server import listening

__all__ = ["S3Server", "refusing", "s3_server"]

ROOT = Path(__file__).resolve().parents[1]
BUCKET = "curation-tests"
_REFUSAL: Final = (
    '<?xml version="1.0" encoding="UTF-8"?><Error><Code>SignatureDoesNotMatch</Code><Message>The request signature '
    "we calculated does not match the signature you provided. Check your key and signing method.</Message>"
    "<AWSAccessKeyId>planted-key-id</AWSAccessKeyId><StringToSign>planted-string</StringToSign>"
    "<SignatureProvided>planted-signature</SignatureProvided><RequestId>1</RequestId></Error>"
)
"""What S3 says of a wrong key, which quotes it."""


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
    from s3fs import S3FileSystem

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
        # fsspec keeps file systems by their options, and this server's address is in the environment alone.
        S3FileSystem.clear_instance_cache()
        yield S3Server(url, environment)
    finally:
        S3FileSystem.clear_instance_cache()
        process.kill()
        process.wait()
        process.stdout.close()


@contextmanager
def refusing(server: S3Server, refused: Callable[[str, str], bool]) -> Iterator[str]:
    """The address of another server, which hands requests on but for those whose method and path are refused."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            if refused(self.command, self.path):
                self._answer(403, {"content-type": "application/xml"}, _REFUSAL.encode())
                return
            request = urllib.request.Request(
                server.url + self.path, body or None, dict(self.headers), method=self.command
            )
            try:
                with urllib.request.urlopen(request, timeout=60) as found:
                    self._answer(found.status, dict(found.headers), found.read())
            except urllib.error.HTTPError as error:
                self._answer(error.code, dict(error.headers), error.read())

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_any  # noqa: N815

        def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                if name.lower() not in ("content-length", "transfer-encoding", "connection", "date", "server"):
                    self.send_header(name, value)
            length = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(body))
            self.send_header("content-length", length)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with listening(Handler) as url:
        yield url


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

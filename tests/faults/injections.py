"""Faults for a run under way, and what each may cost: how many paid requests may be sent again."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from tests.chat_server import Running
from tests.faults.place import CONCURRENCY

__all__ = ["FAULTS", "Fault", "Run"]

ROOT: Final = Path(__file__).resolve().parents[2]
_DAY: Final = 86_400


class Run:
    """``curation run`` as a process of its own."""

    def __init__(self, recipe: Path, workspace: Path, output: Path, **environment: str) -> None:
        self.recipe, self.workspace, self.output = recipe, workspace, output
        command = [sys.executable, "-m", "curation.cli", "run", str(recipe), "--workspace", str(workspace)]
        with output.open("ab") as file:
            self.process = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                env={**os.environ, **environment},
            )  # fmt: skip

    def wait(self) -> int:
        return self.process.wait()

    @property
    def said(self) -> str:
        return self.output.read_text(errors="replace")


class Fault(NamedTuple):
    """What goes wrong.

    Attributes:
        inject: is called at its moment, while the run may be under way, and returns when that run is over.
        again: how many requests that were answered may be sent again: 0, but where the machine itself dies.
    """

    inject: Callable[[Run, random.Random, Running], None]
    again: int = 0


def kill(run: Run, draw: random.Random, server: Running) -> None:
    """The run dies; its sender keeps what was under way."""
    run.process.kill()
    run.wait()


def kill_all(run: Run, draw: random.Random, server: Running) -> None:
    """The run and the process that sends its requests die, as with the machine."""
    children = _children(run.process.pid)
    run.process.kill()
    for child in children:
        _signal(child, signal.SIGKILL)
    run.wait()


def ctrl_c(run: Run, draw: random.Random, server: Running) -> None:
    _signal(run.process.pid, signal.SIGINT)
    run.wait()


def ctrl_c_twice(run: Run, draw: random.Random, server: Running) -> None:
    _signal(run.process.pid, signal.SIGINT)
    time.sleep(draw.uniform(0, 0.3))
    _signal(run.process.pid, signal.SIGINT)
    run.wait()


def second_run(run: Run, draw: random.Random, server: Running) -> None:
    """Another run of the same: one of them does the work, the other is told, or finds it done."""
    other = Run(run.recipe, run.workspace, run.output.with_suffix(".other"))
    statuses = {run.wait(), other.wait()}
    if other.process.returncode:
        assert "is in use by" in other.said, other.said
    assert 0 in statuses


def torn_entry(run: Run, draw: random.Random, server: Running) -> None:
    """The machine dies, and the last log entry of a table is cut off."""
    kill(run, draw, server)
    _let_the_sender_end(run.workspace)
    logs = sorted(run.workspace.glob("tables/*/_delta_log"))
    if logs:
        entry = max(draw.choice(logs).glob("*.json"), key=lambda p: p.name, default=None)
        if entry is not None:
            _cut(entry, draw)


def torn_file(run: Run, draw: random.Random, server: Running) -> None:
    """The machine dies, and a data file of a table that is not paid for is cut off."""
    kill(run, draw, server)
    _let_the_sender_end(run.workspace)
    files = [f for f in sorted(run.workspace.glob("tables/**/*.parquet")) if "generations" not in f.parts]
    if files:
        _cut(draw.choice(files), draw)


def stopped_server(run: Run, draw: random.Random, server: Running) -> None:
    """The server hangs for a while."""
    _signal(server.process.pid, signal.SIGSTOP)
    time.sleep(draw.uniform(0.2, 1.5))
    _signal(server.process.pid, signal.SIGCONT)
    run.wait()


def little_memory(run: Run, draw: random.Random, server: Running) -> None:
    """No more address space than there is."""
    subprocess.run(["prlimit", f"--pid={run.process.pid}", f"--as={64 * 2**20}"], check=False, capture_output=True)
    run.wait()


def small_files(run: Run, draw: random.Random, server: Running) -> None:
    """No file may grow beyond a few kilobytes: as a full disk, where nothing can be mounted."""
    limit = draw.choice([512, 2_048, 6_000])
    subprocess.run(["prlimit", f"--pid={run.process.pid}", f"--fsize={limit}"], check=False, capture_output=True)
    run.wait()


def read_only(run: Run, draw: random.Random, server: Running) -> None:
    """The workspace becomes read-only under the run, as a disk does that the system has found errors on."""
    place = str(run.workspace)
    mounted = run.workspace.is_dir() and not _mount("--bind", place, place)
    try:
        if mounted:
            _mount("-o", "remount,ro,bind", place)
        run.wait()
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", place], check=True)


def clock_goes_back(run: Run, draw: random.Random, server: Running) -> None:
    """The machine dies, and its clock comes back a day behind: all that was written is of tomorrow."""
    kill(run, draw, server)
    _let_the_sender_end(run.workspace)
    for entry in run.workspace.glob("tables/*/_delta_log/*.json"):
        entry.write_text(re.sub(r'("timestamp":|"modificationTime":)(\d+)', _tomorrow, entry.read_text()))
    for path in run.workspace.rglob("*"):
        now = path.stat().st_mtime
        os.utime(path, (now + _DAY, now + _DAY))


FAULTS: Final[dict[str, Fault]] = {
    "kill -9 of the run": Fault(kill),
    "kill -9 of run and sender": Fault(kill_all, again=CONCURRENCY),
    "Ctrl-C": Fault(ctrl_c),
    "Ctrl-C twice": Fault(ctrl_c_twice),
    "two runs at once": Fault(second_run),
    "torn log entry": Fault(torn_entry),
    "torn data file": Fault(torn_file),
    "server hangs": Fault(stopped_server),
    "no memory left": Fault(little_memory),
    "no room in files": Fault(small_files),
    "read-only": Fault(read_only),
    "clock goes back a day": Fault(clock_goes_back),
}


def _cut(path: Path, draw: random.Random) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: draw.randrange(len(data))])


def _tomorrow(found: re.Match[str]) -> str:
    return f"{found[1]}{int(found[2]) + _DAY * 1000}"


def _mount(*arguments: str) -> int:
    return subprocess.run(["mount", *arguments], check=False, capture_output=True).returncode


def _children(pid: int) -> list[int]:
    done = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False)
    return [int(word) for word in done.stdout.split()]


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _let_the_sender_end(workspace: Path) -> None:
    """What was under way is kept first: a sender that is alive is no damage."""
    end = time.monotonic() + 300
    time.sleep(1)
    while any(workspace.glob("journal/*.draining-*")) and time.monotonic() < end:
        time.sleep(0.05)

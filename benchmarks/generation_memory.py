"""How much memory a million queued prompts take while they are sent to a server, in both processes together.

    python benchmarks/generation_memory.py [--prompts 1000000] [--answers 3000]

The step is stopped once some answers are there: what counts is that everything is queued.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import polars as pl
from _figures import FIGURES

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from curation.errors import InterruptedRun  # noqa: E402
from curation.ledger import Ledger  # noqa: E402
from curation.recipe import Generation  # noqa: E402
from curation.sender import run_apart  # noqa: E402
from curation.stages.generations import GenerationStep, requests  # noqa: E402
from curation.text import prompt_id  # noqa: E402
from curation.workspace import Workspace  # noqa: E402
from tests.chat_server import Running, running  # noqa: E402

WORDS = "What should one know about the history of number {} before one uses it in a sentence about bread? " * 2


def peak(pid: int | str) -> int:
    """Bytes that a process held at most."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def senders() -> list[int]:
    """The processes that this one started to send."""
    found = []
    for status in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if b"curation.sender" in status.read_bytes():
                found.append(int(status.parent.name))
        except OSError:
            continue
    return found


def watch(server: Running, answers: int, seen: dict[str, int]) -> None:
    while server.got().total() < answers:
        for pid in senders():
            seen["sender"] = max(seen.get("sender", 0), peak(pid))
        time.sleep(0.2)
    os.kill(os.getpid(), signal.SIGINT)


def prompts(count: int) -> pl.DataFrame:
    """A table of prompts, made a piece at a time."""
    parts = []
    for start in range(0, count, 50_000):
        numbers = range(start, min(start + 50_000, count))
        messages = [[{"role": "user", "content": WORDS.format(number, number)}] for number in numbers]
        parts.append(pl.DataFrame({"prompt_id": [prompt_id(m) for m in messages], "messages": messages}))
    return pl.concat(parts)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--prompts", type=int, default=1_000_000)
    parser.add_argument("--answers", type=int, default=3000)
    parser.add_argument("--make", type=Path, help="only write the table of prompts here")
    options = parser.parse_args()
    if options.make is not None:
        prompts(options.prompts).write_parquet(options.make)
        return
    seen: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as name, running(Path(name) / "log", "--delay", "0.02") as server:
        # Made elsewhere and read from a table, as a run does: what making the prompts took is not counted.
        table = Path(name) / "prompts.parquet"
        subprocess.run([sys.executable, __file__, "--make", table, "--prompts", str(options.prompts)], check=True)
        frame = pl.read_parquet(table)
        step = GenerationStep(Generation(model=server.model, max_new_tokens=16), 0)
        Path("/proc/self/clear_refs").write_text("5")
        threading.Thread(target=watch, args=(server, options.answers, seen), daemon=True).start()
        began = time.monotonic()
        try:
            run_apart(step, requests(frame, 1), Ledger(Workspace(Path(name) / "w")))
        except InterruptedRun as stopped:
            print(stopped)
        seconds = time.monotonic() - began
    ours = peak("self")
    print(f"{options.prompts:,} prompts of {len(WORDS)} characters queued, {seconds:.0f} s")
    print(f"peak of the run {ours / 1e9:.2f} GB, of its sender {seen['sender'] / 1e9:.2f} GB")
    print(f"peaks together {(ours + seen['sender']) / 1e9:.2f} GB")
    for part, size in (("run", ours), ("sender", seen["sender"]), ("run and sender", ours + seen["sender"])):
        FIGURES.add(f"peak memory of the {part}, {options.prompts:,} queued prompts", size / 1e9, "GB", at_most=2)


if __name__ == "__main__":
    main()
    if "--make" not in sys.argv:
        FIGURES.write()

"""Beside distilabel 1.5.3: one server, the same prompts, 64 requests at once, one answer each.

    python benchmarks/generation_distilabel.py [--distilabel-python .venv-distilabel/bin/python] [--prompts 2000]

distilabel goes into a virtual environment of its own, ``.venv-distilabel``, which ``make bench`` makes. Each of the
two does three things, counted by the server's own log: all prompts; the same with a kill -9 of its process (and,
for distilabel, of its workers) half way and a second start; and then 1 % more prompts. Both keep their defaults
but for the size of what is sent at once; distilabel's cache is on.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 90
"""Seconds for a run to come to its end; a few times what it needs at 1,000 prompts."""
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from _figures import FIGURES, skip  # noqa: E402

from tests.chat_server import Running, running  # noqa: E402

DISTILABEL = """
import json, os, sys
from distilabel.models import OpenAILLM
from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts
from distilabel.steps.tasks import TextGeneration

rows = [{"instruction": json.loads(line)["prompt"]} for line in open(sys.argv[1])]
if __name__ == "__main__":
    with Pipeline(name="compared", cache_dir=sys.argv[3]) as pipeline:
        load = LoadDataFromDicts(data=rows, batch_size=64)
        llm = OpenAILLM(model="policy", base_url=sys.argv[2], api_key="none",
                        generation_kwargs={"max_new_tokens": 64, "temperature": 0.8, "top_p": 0.95})
        load >> TextGeneration(llm=llm, input_batch_size=64)
    dataset = pipeline.run(use_cache=True, dataset_batch_size=64)
    print("ROWS", len(dataset["default"]["train"]))
"""

OURS = """
import sys
from curation.ledger import Ledger
from curation.pipeline import run_stage, stage_named
from curation.recipe import Generation, Recipe, Source
from curation.stages.context import Context
from curation.workspace import Workspace

rows = sys.argv[1]
recipe = Recipe(
    sources=(Source(path=rows),),
    generation=(Generation(model=sys.argv[2] + "#policy", samples=1, max_new_tokens=64, concurrency=64),),
)
context = Context(Workspace(sys.argv[3]), recipe)
for name in ("inputs", "hygiene", "prompts", "generations"):
    run_stage(context, stage_named(name))
print("ROWS", context.workspace.read("generations").height)
"""


def write_prompts(path: Path, count: int) -> None:
    path.write_text(
        "".join(json.dumps({"prompt": f"Tell me about bread number {i}."}) + "\n" for i in range(count))
    )


def start(python: str, code: str, rows: Path, server: Running, place: Path) -> subprocess.Popen[str]:
    script = place.parent / f"{place.name}.py"
    script.write_text(code)
    command = [python, str(script), str(rows), f"http://127.0.0.1:{server.port}/v1", str(place)]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True,
        env=os.environ | {"PYTHONPATH": str(ROOT) if code is OURS else "", "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip


def finish(process: subprocess.Popen[str]) -> str:
    """How many rows it said that it has at its end; or that it came to none, and had to be stopped."""
    try:
        out, _ = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return f"did not end within {PATIENCE} s and was stopped"
    rows = [line.split()[1] for line in out.splitlines() if line.startswith("ROWS")]
    if not rows:
        raise SystemExit(f"{process.args} ended with status {process.returncode} and without its rows")
    return f"{rows[0]} rows"


def unanswered(server: Running, prompts: int) -> int:
    """How many of so many prompts the server has written no whole answer to."""
    return prompts - len({line[1] for line in server.lines() if line[0] == "answered"})


class Told(NamedTuple):
    """What one of the two did."""

    sending: float
    """requests a second from the first to the last that the server got."""
    whole: float
    """the same of the whole process, with its start and end."""
    again_after_more: int
    missing_after_more: int
    """prompts, new ones among them, that have no answer after the run with 1 % more."""
    after_kill: int
    """requests sent again although the server had written their whole answer before the kill or at it."""
    missing_after_kill: int
    """prompts without an answer after the second start."""


def measured(server: Running, begin: Callable[[], subprocess.Popen[str]], prompts: int) -> tuple[float, float]:
    """Requests a second, from the first to the last that the server got, and of the whole process."""
    began = time.monotonic()
    process = begin()
    while not server.got() and process.poll() is None:
        time.sleep(0.01)
    first = time.monotonic()
    while server.got().total() < prompts and process.poll() is None:
        time.sleep(0.05)
    sending = time.monotonic() - first
    rows = finish(process)
    whole = time.monotonic() - began
    print(f"{prompts / sending:.1f} requests/s while it sends, {prompts / whole:.1f} with start and end; {rows}")
    return prompts / sending, prompts / whole


def compare(name: str, python: str, code: str, options: argparse.Namespace) -> Told:
    count, more = options.prompts, options.prompts + options.prompts // 100
    print(f"-- {name}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        rows = here / "rows.jsonl"
        write_prompts(rows, count)
        with running(here / "log", "--delay", str(options.delay)) as server:
            sending, whole = measured(server, lambda: start(python, code, rows, server, here / "a"), count)
            before = server.got().total()
            write_prompts(rows, more)
            told = finish(start(python, code, rows, server, here / "a"))
            sent = server.got()
            old = sum(n - 1 for n in sent.values())
            missing = unanswered(server, more)
            print(
                f"{more - count} prompts more: {sent.total() - before} requests sent, {old} of them again; "
                f"{told}; {missing} prompts without an answer", flush=True,
            )  # fmt: skip
        write_prompts(rows, count)
        with running(here / "log2", "--delay", str(options.delay)) as server:
            process = start(python, code, rows, server, here / "b")
            while server.got().total() < count // 2 and process.poll() is None:
                time.sleep(0.01)
            if code is DISTILABEL:
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
            process.communicate()
            time.sleep(2)
            sent_before = server.got().total()
            told = finish(start(python, code, rows, server, here / "b"))
            again = len(server.sent_after_answer())
            lost = unanswered(server, count)
            print(
                f"killed after {sent_before} requests: {again} sent again; {told}; {lost} prompts unanswered",
                flush=True,
            )
    return Told(sending, whole, old, missing, again, lost)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--distilabel-python", type=Path, default=ROOT / ".venv-distilabel" / "bin" / "python")
    parser.add_argument("--prompts", type=int, default=2000)
    parser.add_argument("--delay", type=float, default=0.5)
    options = parser.parse_args()
    python = options.distilabel_python
    if not python.exists():
        skip(f"there is no {python}: make .venv-distilabel/installed, or give --distilabel-python")
    asked = "from importlib.metadata import version as v; print(v('distilabel'), v('openai'))"
    done = subprocess.run([str(python), "-c", asked], capture_output=True, text=True, check=True)
    theirs = "distilabel {} with openai {}".format(*done.stdout.split())
    print(f"{theirs}; {options.prompts} prompts, delay {options.delay} s")
    FIGURES.packages.append("openai")
    ours = compare("this project", sys.executable, OURS, options)
    peer = compare("distilabel", str(python), DISTILABEL, options)
    given = f"{options.prompts:,} prompts, 64 at once, the server answers after {options.delay:g} s; {theirs}"
    for name, field, unit, better in (
        ("requests while it sends", "sending", "requests/s", "higher"),
        ("requests, with start and end", "whole", "requests/s", "higher"),
        ("answered requests sent again after kill -9", "after_kill", "requests", "lower"),
        ("prompts without an answer after kill -9 and a second start", "missing_after_kill", "prompts", "lower"),
        ("old requests sent again for 1 % more prompts", "again_after_more", "requests", "lower"),
        ("prompts without an answer after 1 % more prompts", "missing_after_more", "prompts", "lower"),
    ):
        FIGURES.add(
            name, getattr(ours, field), unit, peer="distilabel", peer_value=getattr(peer, field),
            better="lower" if better == "lower" else "higher",
            at_most=0 if better == "lower" else None, conditions=given,
        )  # fmt: skip


if __name__ == "__main__":
    main()
    FIGURES.write()

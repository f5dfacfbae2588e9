"""Beside distilabel 1.5.3: one server, the same prompts, 64 requests at once, one answer each.

    python benchmarks/generation_distilabel.py --distilabel-python /path/to/venv/bin/python [--prompts 2000]

distilabel goes into a virtual environment of its own (``pip install 'distilabel[openai]==1.5.3'``). Each of the
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

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

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
    out, _ = process.communicate(timeout=600)
    rows = [line for line in out.splitlines() if line.startswith("ROWS")]
    return rows[0] if rows else f"ended with status {process.returncode}"


def measured(server: Running, begin: Callable[[], subprocess.Popen[str]], prompts: int) -> str:
    """Requests a second, from the first to the last that the server got, and of the whole process."""
    began = time.monotonic()
    process = begin()
    while not server.got():
        time.sleep(0.01)
    first = time.monotonic()
    while server.got().total() < prompts and process.poll() is None:
        time.sleep(0.05)
    sending = time.monotonic() - first
    rows = finish(process)
    whole = time.monotonic() - began
    return f"{prompts / sending:.1f} requests/s while it sends, {prompts / whole:.1f} with start and end; {rows}"


def compare(name: str, python: str, code: str, options: argparse.Namespace) -> None:
    count, more = options.prompts, options.prompts + options.prompts // 100
    print(f"-- {name}")
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        rows = here / "rows.jsonl"
        write_prompts(rows, count)
        with running(here / "log", "--delay", str(options.delay)) as server:
            print(measured(server, lambda: start(python, code, rows, server, here / "a"), count))
            before = server.got().total()
            write_prompts(rows, more)
            told = finish(start(python, code, rows, server, here / "a"))
            sent = server.got()
            old = sum(n - 1 for n in sent.values())
            print(
                f"{more - count} prompts more: {sent.total() - before} requests sent, {old} of them again; {told}"
            )
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
            sent = server.got().total()
            told = finish(start(python, code, rows, server, here / "b"))
            print(f"killed after {sent} requests: {len(server.sent_after_answer())} sent again; {told}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--distilabel-python", required=True)
    parser.add_argument("--prompts", type=int, default=2000)
    parser.add_argument("--delay", type=float, default=0.5)
    options = parser.parse_args()
    asked = "from importlib.metadata import version as v; print(v('distilabel'), v('openai'))"
    versions = subprocess.run([options.distilabel_python, "-c", asked], capture_output=True, text=True, check=True)
    print(
        f"distilabel and its openai: {versions.stdout.strip()}; {options.prompts} prompts, delay {options.delay} s"
    )
    compare("this project", sys.executable, OURS, options)
    compare("distilabel", options.distilabel_python, DISTILABEL, options)


if __name__ == "__main__":
    main()

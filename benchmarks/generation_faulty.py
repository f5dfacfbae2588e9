"""A server that misbehaves, and kill -9: what ends as an answer, what as a reject, and what is sent again.

    python benchmarks/generation_faulty.py [--prompts 5000] [--samples 2] [--kills 5]

The server (``tests/chat_server.py``, a process of its own) answers late, out of order, with 429, 500, closed
sockets, replies cut off, broken JSON, no choices and a choice twice, seeded. The recipe runs through the command
line and is killed at random; the last run is left alone. What is counted is what the server's own log says.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import polars as pl
import yaml
from _figures import FIGURES

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from curation.models.chat import ChatRequest  # noqa: E402
from curation.models.chat.request_body import request_seed  # noqa: E402
from curation.workspace import Workspace  # noqa: E402
from tests.chat_server import Running, answer_text, running  # noqa: E402


def write_recipe(folder: Path, server: Running, prompts: int, samples: int, *, attempts: int) -> Path:
    rows = [json.dumps({"prompt": f"What is the number {i} good for?"}) + "\n" for i in range(prompts)]
    (folder / "prompts.jsonl").write_text("".join(rows))
    model = {"model": server.model, "samples": samples, "max_new_tokens": 16, "attempts": attempts}
    recipe = {
        "name": "faulty", "sources": [{"path": "prompts.jsonl"}], "generation": [model],
        "encoder": None, "rewards": [], "refusals": None, "policy": None,
        "publish": {"datasets": [], "license": "apache-2.0"},
    }  # fmt: skip
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder / "recipe.yaml"


GENERATE = """
import sys
from curation.pipeline import run_stage, stage_named
from curation.recipe import load_recipe
from curation.stages.context import Context
from curation.workspace import Workspace
context = Context(Workspace(sys.argv[2]), load_recipe(sys.argv[1]))
for name in ("inputs", "hygiene", "prompts", "generations"):
    run_stage(context, stage_named(name))
"""


def start(recipe: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", GENERATE, str(recipe), str(recipe.parent / "w")]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)


def kill_at_random(recipe: Path, server: Running, total: int, kills: int, rng: random.Random) -> Iterator[int]:
    """Kill a run once it has sent a random part of what is left; yields how many requests had been sent."""
    for left in range(kills, 0, -1):
        sent = server.got().total()
        target = sent + max(1, int(rng.uniform(0.1, 1.0) * (total - sent) / (left + 1)))
        process = start(recipe)
        while server.got().total() < target and process.poll() is None:
            time.sleep(0.05)
        time.sleep(rng.random() / 10)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        print(f"killed at {time.time() - server.began():.2f} s")
        yield server.got().total()


def story(server: Running, name: str) -> str:
    """What the server's log says of one request, in seconds since its first line."""
    lines = server.lines()
    began = float(lines[0][-1])
    told = [f"{' '.join(w for w in line[:-1] if w != name)} {float(line[-1]) - began:.2f}" for line in lines
            if name in line]  # fmt: skip
    return ", ".join(told)


def crossed(workspace: Workspace) -> int:
    """Answers that are not the answer to their own prompt and sample."""
    made = workspace.scan("generations").select("prompt_id", "sample_index", "response").collect()
    prompts = dict(workspace.scan("prompts").select("prompt_id", "messages").collect().iter_rows())
    wrong = 0
    for prompt, index, response in made.iter_rows():
        messages = tuple(prompts[prompt])
        request = ChatRequest("", messages, index)
        wrong += response != answer_text(list(messages), request_seed(0, request))
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--prompts", type=int, default=5000)
    parser.add_argument("--samples", type=int, default=2)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--faults", type=float, default=0.3)
    parser.add_argument("--attempts", type=int, default=5)
    options = parser.parse_args()
    total = options.prompts * options.samples
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        arguments = ("--faults", str(options.faults), "--delay", "0.05", "--seed", "7")
        with running(folder / "log", *arguments) as server:
            recipe = write_recipe(folder, server, options.prompts, options.samples, attempts=options.attempts)
            began = time.monotonic()
            killed = list(kill_at_random(recipe, server, total, options.kills, random.Random(1)))
            assert start(recipe).wait() == 0
            seconds = time.monotonic() - began
            workspace = Workspace(folder / "w")
            answers, rejects = workspace.read("generations"), workspace.read("failures")
            wrong = crossed(workspace)
            sent_again = server.sent_after_answer()
            stories = [story(server, name) for name in sent_again]
            faults = pl.Series([line[1] for line in server.lines() if line[0] == "did"]).value_counts(sort=True)
            rules = rejects["rule"].value_counts(sort=True)
            before = server.got().total()
            more = options.prompts // 100
            write_recipe(folder, server, options.prompts + more, options.samples, attempts=options.attempts)
            known = set(server.got())
            assert start(recipe).wait() == 0
            new = server.got()
    ids = pl.concat([answers["request_id"], rejects["row_id"]])
    print(f"preference-curation {version('preference-curation')}, openai {version('openai')}")
    print(f"requests wanted {total:,}; sent to the server {before:,}; faults of the server {faults.rows()}")
    print(f"killed after {killed} requests had been sent; {seconds:.0f} s in all")
    print(f"answers {answers.height:,}, rejects {rejects.height:,} {rules.rows()}")
    print(f"lost {total - ids.n_unique():,}, doubled {ids.len() - ids.n_unique():,}, crossed {wrong:,}")
    print(f"sent again after they had been answered: {len(sent_again)}")
    given = f"{total:,} requests, {options.faults:.0%} faults, {options.kills} kills"
    for name, value in (
        ("answers lost", total - ids.n_unique()), ("answers doubled", ids.len() - ids.n_unique()),
        ("answers crossed", wrong), ("requests sent again after they had been answered", len(sent_again)),
    ):  # fmt: skip
        FIGURES.add(name, value, "requests", at_most=0, conditions=given)
    for line in stories:
        print(f"  {line}")
    added = sum(1 for request in new if request not in known)
    again = sum(n for request, n in new.items() if request in known) - before
    print(f"{more} prompts more: {added} new requests, each sent up to {options.attempts} times; old ones: {again}")
    FIGURES.add("old requests sent again for 1 % more prompts", again, "requests", at_most=0, conditions=given)


if __name__ == "__main__":
    main()
    FIGURES.write()

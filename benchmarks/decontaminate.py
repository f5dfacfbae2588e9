"""Decontamination: a million prompts against ten thousand evaluation rows, time, memory and what is found.

Prompts are made of sentences of the data folder's sets; evaluation rows, too, of other sentences. One prompt
in a thousand holds an evaluation row whole, one in a thousand 20 words of one. The file is read, compared and
written by ``run_decontaminate``, in a process of its own whose peak memory is reported.

    .venv/bin/python benchmarks/decontaminate.py [--data DIR] [--prompts 1000000] [--evaluations 10000]
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import polars as pl
from _figures import FIGURES, shared_data
from dedup import _WORD, _sentences

from curation.commands.decontaminate import run_decontaminate
from curation.files import rejects_path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--prompts", type=int, default=1_000_000)
    parser.add_argument("--evaluations", type=int, default=10_000)
    parser.add_argument("--format", default="parquet", choices=["parquet", "jsonl"])
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options.worker, options.format)
        return
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}, ", end="")
    print(f"polars {version('polars')}, numpy {version('numpy')}, input as {options.format}\n", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        planted = make_files(
            Path(folder), shared_data(options.data), options.prompts, options.evaluations, options.format
        )
        command = [sys.executable, __file__, "--worker", folder, "--format", options.format]
        told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        print(told)
        wall, _, peak = (float(cell) for cell in told.splitlines()[2].strip("| ").split(" | "))
        size = f"{options.prompts:,} prompts against {options.evaluations:,} evaluation rows"
        FIGURES.add(f"decontaminate, {size}", wall, "s")
        FIGURES.add(f"peak memory of decontaminate, {size}", peak, "GiB")
        report(Path(folder), planted, options.prompts, options.format)


def make_files(folder: Path, data: Path, prompts: int, evaluations: int, suffix: str) -> dict[int, str]:
    """Writes prompts and evaluation rows; returns which prompts are contaminated, and how."""
    chance = random.Random(0)
    sentences = list(dict.fromkeys(_sentences(data)))
    chance.shuffle(sentences)
    ours, theirs = sentences[: len(sentences) // 2], sentences[len(sentences) // 2 :]
    rows = [" ".join(chance.choices(theirs, k=chance.randint(2, 5))) for _ in range(evaluations)]
    planted: dict[int, str] = {}
    texts = []
    for number in range(prompts):
        parts = chance.choices(ours, k=chance.randint(1, 4))
        if number % 1000 == 7:
            planted[number] = "whole row"
            parts.insert(chance.randint(0, len(parts)), chance.choice(rows))
        elif number % 1000 == 507:
            planted[number] = "20 words"
            words = chance.choice(rows).split()
            start = chance.randint(0, max(0, len(words) - 20))
            parts.insert(chance.randint(0, len(parts)), " ".join(words[start : start + 20]))
        texts.append(" ".join(parts))
    frame = pl.DataFrame({"id": range(prompts), "prompt": texts})
    if suffix == "parquet":
        frame.write_parquet(folder / "prompts.parquet")
    else:
        frame.write_ndjson(folder / "prompts.jsonl")
    pl.DataFrame({"question": rows}).write_parquet(folder / "evaluation.parquet")
    return planted


def worker(folder: Path, suffix: str) -> None:
    wall, processor = time.perf_counter(), time.process_time()
    summary = run_decontaminate(
        folder / f"prompts.{suffix}", folder / "kept.parquet", against=[folder / "evaluation.parquet"]
    )
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print("| wall s | processor s | peak GiB |\n|--:|--:|--:|")
    print(f"| {wall:.1f} | {processor:.1f} | {peak:.2f} |\n")
    print(summary.replace(str(folder) + "/", ""))


def report(folder: Path, planted: dict[int, str], prompts: int, suffix: str) -> None:
    rejects = pl.read_parquet(rejects_path(folder / "kept.parquet"))
    kept = pl.scan_parquet(folder / "kept.parquet").select(pl.len()).collect().item()
    gone = set(rejects["row"].to_list())
    print(f"Rows read {prompts:,}, kept {kept:,}, rejected {len(gone):,}.\n")
    print("| planted | prompts | found |\n|---|--:|--:|")
    for kind in sorted(set(planted.values())):
        rows = {row for row, found in planted.items() if found == kind}
        print(f"| {kind} | {len(rows):,} | {len(rows & gone):,} |")
        FIGURES.add(f"planted evaluation rows found, {kind}", len(rows & gone) / len(rows), "share")
    others = sorted(gone - planted.keys())
    sample = random.Random(1).sample(others, min(200, len(others)))
    right = sum(shares_ngram(folder, sample, suffix))
    print(f"\nRejected without having been planted: {len(others):,}, for n-grams that the sets' sentences share; ")
    print(f"of {len(sample)} sampled, a plain search finds a shared 13-gram in {right}.")


def shares_ngram(folder: Path, rows: list[int], suffix: str, n: int = 13) -> list[bool]:
    """Whether each prompt shares n words in a row with an evaluation row, by plain Python."""

    def grams(text: str) -> set[tuple[str, ...]]:
        words = _WORD.findall(text.lower())
        return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}

    known: set[tuple[str, ...]] = set()
    for text in pl.read_parquet(folder / "evaluation.parquet")["question"]:
        known |= grams(text)
    path = folder / f"prompts.{suffix}"
    frame = pl.read_parquet(path) if suffix == "parquet" else pl.read_ndjson(path)
    return [bool(grams(text) & known) for text in frame["prompt"].gather(rows)]


if __name__ == "__main__":
    main()
    FIGURES.write()

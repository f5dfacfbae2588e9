"""Peak memory of ``curation ches`` on files of different lengths, and the rate of pairs from stored matrices.

    python benchmarks/ches_memory.py [--rows 2000 100000] [--prompts 200000]

Each file is scored in a process of its own; its peak resident memory is what the system says at its end.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl
from _figures import FIGURES

from curation.commands.ches import run_ches
from curation.scores.policy_table import explode_pairs

WORDS = ["water", "stone", "river", "light", "paper", "green", "seven", "early", "north", "music"]


def write_pairs(path: Path, rows: int) -> None:
    draw = np.random.default_rng(0)
    with path.open("w") as file:
        for row in range(rows):
            a, b, c = (" ".join(draw.choice(WORDS, size)) for size in (6, 5, 4))
            file.write(json.dumps({"prompt": f"{row} {a}", "chosen": f"{b} one", "rejected": c}) + "\n")


def child(path: Path) -> None:
    import torch

    torch.set_num_threads(1)
    done = run_ches(path, path.with_suffix(".parquet"))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, done.rows)


def table(prompts: int, k: int) -> pl.DataFrame:
    draw = np.random.default_rng(0)
    sums = draw.normal(size=(prompts, k, 8))
    grams = np.einsum("nid,njd->nij", sums, sums)
    return pl.DataFrame(
        {
            "prompt_id": [f"{i:032x}" for i in range(prompts)],
            "candidate_ids": [[f"{i * k + j:032x}" for j in range(k)] for i in range(prompts)],
            "tokens": draw.integers(1, 300, size=(prompts, k)),
            "logps": -draw.random((prompts, k)),
            "gram": grams.reshape(prompts, -1),
        }
    ).with_columns(pl.col("tokens", "logps", "gram").arr.to_list())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, nargs="+", default=[2000, 100_000])
    parser.add_argument("--prompts", type=int, default=200_000)
    parser.add_argument("--child", type=Path)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child)
        return
    print("| pairs in the file | peak memory, MiB | pairs a second |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for rows in arguments.rows:
            path = Path(folder) / f"{rows}.jsonl"
            write_pairs(path, rows)
            start = time.perf_counter()
            command = [sys.executable, __file__, "--child", str(path)]
            out = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
            FIGURES.add(f"peak memory of `curation ches`, {rows:,} pairs", float(out[0]) / 1024, "GiB")
            print(
                f"| {int(out[1]):,} | {float(out[0]):.0f} | {rows / (time.perf_counter() - start):.0f} |",
                flush=True,
            )
    frame = table(arguments.prompts, 4)
    start = time.perf_counter()
    pairs = explode_pairs(frame)
    seconds = time.perf_counter() - start
    FIGURES.add("pairs from stored matrices", pairs.height / seconds, "pairs/s")
    print(
        f"\n{pairs.height:,} ordered pairs of {arguments.prompts:,} prompts from stored matrices: {seconds:.1f} s"
    )


if __name__ == "__main__":
    main()
    FIGURES.write()

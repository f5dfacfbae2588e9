"""Preference strength of 1,000,000 pairs under 10 models: seconds and memory.

.venv/bin/python benchmarks/strength_scale.py [--rows N] [--models M]
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time

import numpy as np
import polars as pl
from _figures import FIGURES

from curation.scores.strength import preference_strength


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--models", type=int, default=10)
    parser.add_argument("--data", help="not used: the margins are drawn")
    options = parser.parse_args()
    shape = (options.rows, options.models)
    columns = {}
    for seed, name in enumerate(("chosen_rewards", "rejected_rewards")):
        values = np.random.default_rng(seed).normal(0.5 * (seed == 0), 1.0, size=shape)
        columns[name] = pl.Series(values.ravel()).reshape(shape).arr.to_list()
    frame = pl.DataFrame(columns)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        preference_strength(frame)
        seconds.append(time.perf_counter() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"polars {pl.__version__}, numpy {np.__version__}\n")
    print("| pairs | models | median seconds | peak memory GiB | of it before the call |\n|---|---|---|---|---|")
    size = f"{shape[0]:,} pairs x {shape[1]} models"
    FIGURES.add(f"preference strength, {size}", statistics.median(seconds), "s", conditions="median of 3")
    FIGURES.add(f"peak memory of preference strength, {size}", peak, "GiB")
    print(f"| {shape[0]:,} | {shape[1]} | {statistics.median(seconds):.2f} | {peak:.2f} | {before:.2f} |")


if __name__ == "__main__":
    main()
    FIGURES.write()

"""A ledger of a million rows: how long a step takes that has nothing to compute, and how much memory.

    python benchmarks/ledger.py [--rows 1000000]

Each measurement runs in a process of its own; the median of five is printed, with versions.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import polars as pl
from _figures import FIGURES

from curation.engine import failures_frame, run_local
from curation.ledger import Ledger
from curation.recipe import Reward
from curation.stages.rewards import RewardStep
from curation.text import content_hash
from curation.workspace import Workspace


def inputs(rows: int) -> pl.DataFrame:
    """Candidates with identifiers and answers of ordinary length."""
    ids = [content_hash("candidate", str(i)) for i in range(rows)]
    return pl.DataFrame({"candidate_id": ids, "response": [f"answer {i} " * 12 for i in range(rows)]})


def fill(folder: Path, rows: int, batch: int = 50_000) -> None:
    """A ledger in which every row is computed."""
    ledger, step = Ledger(Workspace(folder)), RewardStep(Reward())
    for part in inputs(rows).iter_slices(batch):
        scores = part.select("candidate_id", rewards=pl.lit([0.5] * 5, dtype=pl.List(pl.Float64)))
        ledger.append(step.key, scores, failures_frame([]))
    inputs(rows).write_parquet(folder / "inputs.parquet")


def measure(folder: Path) -> dict[str, float]:
    """One run with nothing missing, in this process."""
    start = time.perf_counter()
    report = run_local(RewardStep(Reward()), pl.read_parquet(folder / "inputs.parquet"), Ledger(Workspace(folder)))
    seconds = time.perf_counter() - start
    assert report.computed == 0, report
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"rows": report.reused, "seconds": seconds, "peak_gb": peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--child", type=Path)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(options.child)))
        return
    with tempfile.TemporaryDirectory() as name:
        fill(Path(name), options.rows)
        command = [sys.executable, __file__, "--child", name]
        runs = [
            json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout) for _ in range(5)
        ]
    print(
        f"Versions: polars {version('polars')}, deltalake {version('deltalake')}; Python {sys.version.split()[0]}\n"
    )
    print("| rows in the ledger | computed | seconds (median of 5) | peak memory |")
    print("|---|---|---|---|")
    seconds = statistics.median(r["seconds"] for r in runs)
    peak = statistics.median(r["peak_gb"] for r in runs)
    FIGURES.add(f"a ledger of {options.rows:,} rows with nothing missing", seconds, "s", conditions="median of 5")
    FIGURES.add(f"peak memory of it, {options.rows:,} rows", peak, "GiB")
    print(f"| {runs[0]['rows']:,} | 0 | {seconds:.2f} | {peak:.2f} GB |")


if __name__ == "__main__":
    main()
    FIGURES.write()

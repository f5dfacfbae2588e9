"""What a command waits for before it works: the code location that Dagster loads, and the command line's help.

.venv/bin/python benchmarks/startup.py [--repeats N]

Each start is a process of its own; the imports are in the page cache, as on every start but the first.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

from _figures import FIGURES, ROOT

STARTS = {
    "loading the Dagster code location": ("-c", "from assets.definitions import defs; defs()"),
    "curation --help": ("-m", "curation.cli", "--help"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    print("| start | median seconds | slowest |\n|---|---|---|")
    for name, words in STARTS.items():
        seconds = []
        for _ in range(options.repeats + 1):
            started = time.perf_counter()
            subprocess.run([sys.executable, *words], cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
            seconds.append(time.perf_counter() - started)
        seconds = seconds[1:]
        FIGURES.add(
            f"start: {name}", statistics.median(seconds), "s", at_most=5, conditions=f"median of {len(seconds)}"
        )
        print(f"| {name} | {statistics.median(seconds):.2f} | {max(seconds):.2f} |")


if __name__ == "__main__":
    FIGURES.packages.append("dagster")
    main()
    FIGURES.write()

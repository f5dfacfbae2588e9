"""Faults at random moments: each run is disturbed, run again, and compared with a run that nothing disturbed.

    python benchmarks/faults.py --injections 200 [--at-once 2] [--seed 0]

Prints a line for each fault, and the table of docs/benchmarks/faults.md. Exit status 1: an outcome was wrong.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _figures import FIGURES

from tests.faults.injections import FAULTS
from tests.faults.trial import Trial, trial, undisturbed


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--injections", type=int, default=200)
    parser.add_argument("--at-once", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no fault after so many")
    options = parser.parse_args()
    started = time.monotonic()
    names = list(FAULTS)
    found: list[Trial] = []
    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        folder = Path(name)

        def lane(number: int) -> None:
            """A server's port is in the recipe, so each lane has its own and an undisturbed run of its own."""
            here = folder / f"lane-{number}"
            (here / "right").mkdir(parents=True)
            right, seconds, port = undisturbed(here / "right")
            for i in range(number, options.injections, options.at_once):
                if time.monotonic() - started > options.seconds:
                    return
                place = here / str(i)
                fault = names[i % len(names)]
                one = trial(place, fault, right=right, seconds=seconds, port=port, seed=options.seed + i)
                found.append(one)
                print(i, one._asdict(), flush=True)
                if not one.wrong:
                    shutil.rmtree(place)

        with ThreadPoolExecutor(options.at_once) as pool:
            list(pool.map(lane, range(options.at_once)))
    _print_table(found)
    print(f"\n{len(found)} faults in {time.monotonic() - started:.0f} s, seed {options.seed}")
    wrong = sum(bool(one.wrong) for one in found)
    FIGURES.add("faults at random moments with a wrong outcome", wrong, f"of {len(found)}", at_most=0)
    again = sum(one.again for one in found)
    FIGURES.add("paid answers asked for again after a fault", again, "answers")
    FIGURES.write()
    return int(wrong > 0)


def _print_table(found: list[Trial]) -> None:
    by_fault: dict[str, list[Trial]] = defaultdict(list)
    for one in found:
        by_fault[one.fault].append(one)
    print("\n| fault | injected | run ended by it | repaired | answers paid again | wrong outcomes |")
    print("|---|---|---|---|---|---|")
    for name, trials in by_fault.items():
        counts = (len(trials), sum(t.disturbed for t in trials), sum(t.repaired for t in trials),
                  sum(t.again for t in trials), sum(bool(t.wrong) for t in trials))  # fmt: skip
        print(f"| {name} | " + " | ".join(str(count) for count in counts) + " |")


if __name__ == "__main__":
    sys.exit(main())

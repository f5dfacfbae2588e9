"""``make bench``: every script of this folder in a process of its own, and one table of what they found.

    python benchmarks/_all.py [--only NAME ...] [--full] [--page]

Runs each script at the size of :data:`SIZES`, so that all of them end within half an hour on two cores; ``--full``
at its own defaults, which takes hours. A script that fails is marked, the others go on, and the status at the end
is 1. Figures go to ``benchmarks/figures.json``, ``docs/figures.md`` and the table of the README. Those of longer
runs, with the command of each, are in ``benchmarks/longer/`` (``BENCH_RESULTS=benchmarks/longer python …``) and
stand below. ``--page`` writes the pages again from what is there. How pages look is in ``_page.py``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _figures import ROOT, SKIPPED, machine, versions_of
from _page import write_pages

RESULTS: Final = ROOT / "benchmarks" / "results"
LONGER: Final = ROOT / "benchmarks" / "longer"
LIMIT: Final = 420
"""Seconds that a script may take at the size below."""

SIZES: Final[dict[str, tuple[str, ...]]] = {
    "ches_cost": ("--rows 100 --rows-of-four 50",),
    "ches_displacement": ("--rows 150 --seeds 2 --per-decile 1 --group 16",),
    "ches_memory": ("--rows 500 2000 --prompts 50000",),
    "decontaminate": ("--prompts 100000 --evaluations 10000",),
    "dedup": ("--documents 50000 --peers 2000 --repeats 1",),
    "faults": ("--seconds 60",),
    "generation_distilabel": ("--prompts 500",),
    "generation_faulty": ("--prompts 500 --kills 3",),
    "generation_memory": ("--prompts 200000 --answers 300",),
    "generation_overhead": ("server --requests 1500 --repeats 1", "vllm --prompts 32 --repeats 2"),
    "label_cleaning": ("--files ultrafeedback --rates 0.4 --seeds 1",),
    "label_noise": ("--seeds 0 --rates",),
    "negatives_speed": ("--sizes 20000x50000 --repeats 1",),
    "publish_scale": ("--prompts 100000 --compared 10000",),
    "refusals": ("--only chatgpt speed requests dsl --rounds 1",),
    "refusals_encoder": ("--folds 0",),
    "reward_heads": ("--pairs 2000 --dialogues 200",),
    "scale": ("tables --prompts 3000 30000 --retrieval 1000 4000", "models --sample 10 20 40"),
    "strength_scale": ("--rows 1000000 --models 10",),
}
"""Arguments by script, several for several runs of one. A script that is not here runs with its defaults."""


class Job(NamedTuple):
    """One run of one script."""

    script: Path
    arguments: tuple[str, ...]

    @property
    def name(self) -> str:
        return " ".join([self.script.stem, *self.arguments[:1]]) if self.arguments else self.script.stem

    @property
    def command(self) -> str:
        return " ".join([f"benchmarks/{self.script.name}", *self.arguments])


class Outcome(NamedTuple):
    """How it went."""

    status: str
    """done, skipped, failed or too long."""
    seconds: float
    note: str
    """of a script that did not get through: its last line."""


def jobs(*, full: bool, only: list[str]) -> Iterator[Job]:
    """Every script of the folder, in the order of their names."""
    for script in sorted((ROOT / "benchmarks").glob("[!_]*.py")):
        if only and script.stem not in only:
            continue
        for words in SIZES.get(script.stem, ("",)):
            # Without its sizes a script with several tasks still needs to be told which.
            given = tuple(words.split())
            yield Job(script, given if not full else tuple(w for w in given[:1] if w.isalpha()))


def run(job: Job, folder: Path, *, limit: float | None) -> Outcome:
    """Runs one; what it prints goes to the terminal and to a log beside its figures."""
    log = folder / f"{job.name.replace(' ', '_').replace('/', '_')}.log"
    command = [sys.executable, str(job.script), *job.arguments]
    environment = os.environ | {
        "BENCH_RESULTS": str(folder), "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
    }  # fmt: skip
    began = time.monotonic()
    with log.open("w") as file:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code = process.wait(timeout=limit)
        except subprocess.TimeoutExpired:
            # Its children go with it: a server that is left would be measured with the next one.
            os.killpg(process.pid, 9)
            process.wait()
            code = None
        except KeyboardInterrupt:
            os.killpg(process.pid, 9)
            raise
    seconds = time.monotonic() - began
    said = log.read_text(errors="replace")
    print(said, flush=True)
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    last = lines[-1] if lines else "it said nothing"
    if code == 0:
        return Outcome("done", seconds, "")
    if code is None:
        return Outcome("too long", seconds, f"stopped after {limit:.0f} s")
    if code == SKIPPED:
        return Outcome("skipped", seconds, last.removeprefix("skipped: "))
    return Outcome("failed", seconds, f"status {code}: {last[:200]}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="scripts, without .py")
    parser.add_argument("--full", action="store_true", help="each script at its own defaults: hours")
    parser.add_argument("--page", action="store_true", help="run nothing: write the pages from what is there")
    options = parser.parse_args()
    told = read_record() if options.only or options.page else {}
    if not options.page:
        told = run_all(options, told)
    told = {"machine": machine(), "versions": versions_of(), "date": "", **told}
    write_pages(told, read_folder(LONGER))
    bad = [name for name, one in told["runs"].items() if one["status"] in ("failed", "too long")]
    if bad:
        print(f"not through: {', '.join(bad)}")
    return int(bool(bad))


def run_all(options: argparse.Namespace, told: dict[str, Any]) -> dict[str, Any]:
    """Runs what is asked for; returns the record of the page, with what was there before for the others."""
    if not options.only:
        shutil.rmtree(RESULTS, ignore_errors=True)
    RESULTS.mkdir(parents=True, exist_ok=True)
    runs: dict[str, Any] = told.get("runs", {})
    began = time.monotonic()
    for job in jobs(full=options.full, only=options.only):
        print(f"== {job.command}", flush=True)
        outcome = run(job, RESULTS, limit=None if options.full else LIMIT)
        print(f"== {outcome.status} after {outcome.seconds:.0f} s {outcome.note}\n", flush=True)
        runs[job.command] = {"script": job.script.stem, **outcome._asdict()}
    return {
        "machine": machine(),
        "versions": versions_of("transformers", "dagster"),
        "date": datetime.now(UTC).date().isoformat(),
        "seconds": time.monotonic() - began if not options.only else told.get("seconds", 0.0),
        "runs": dict(sorted(runs.items())),
        "results": merged(told.get("results", []), read_folder(RESULTS)),
    }


def merged(before: list[dict[str, Any]], now: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The results of the record, with what was measured since in place of the same script's and task's."""
    found = {_task(result): result for result in [*before, *now]}
    return [found[task] for task in sorted(found)]


def _task(result: dict[str, Any]) -> tuple[str, str]:
    """A script, and its first argument where that names one of several tasks."""
    words = result["command"].split()[2:3]
    return result["script"], words[0] if words and words[0].isalpha() else ""


def read_folder(folder: Path) -> list[dict[str, Any]]:
    """The figures of every run in a folder."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def read_record() -> dict[str, Any]:
    """What the page was made from last time."""
    path = ROOT / "benchmarks" / "figures.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"runs": {}, "results": []}
    return found


if __name__ == "__main__":
    raise SystemExit(main())

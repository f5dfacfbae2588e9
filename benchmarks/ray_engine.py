"""The quickstart with ``engine: ray`` beside ``local``: seconds, what Ray's start costs, memory, equality.

    python benchmarks/ray_engine.py [--rows N]

Each run is a process of its own on a workspace of its own, with one thread a model in both engines. Ray is started
for its run, as a run without an address does; on two cores it has one worker a step, so it can only cost. What more
machines would bring is not measured here.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import polars as pl
import psutil
from _figures import FIGURES, ROOT, needs

_LOOK_EVERY: Final = 1.0
_START: Final = """
import time
from ray_engine import Nothing, rows
from curation.engine_ray import RayEngine
from curation.ledger import Ledger
from curation.recipe import Ray
from curation.workspace import Workspace
at = [time.monotonic()]
def told():
    at.append(time.monotonic())
    print(at[-1] - at[-2], flush=True)
engine = RayEngine(Ray(object_store_gb=0.2))
engine.cluster.connected()
told()
ledger = Ledger(Workspace({workspace!r}))
engine.run(Nothing("a"), rows(1), ledger)
told()
engine.run(Nothing("b"), rows(1), ledger)
told()
engine.close()
told()
"""


@dataclass(frozen=True)
class Nothing:
    """A step without a model: what it takes is what Ray takes."""

    producer: str
    name: str = "rewards"
    batch_rows: int = 8

    @property
    def key(self) -> Any:
        from curation.ledger import LedgerKey

        return LedgerKey("rewards", "candidate_id", "model", self.producer)

    def open(self) -> Nothing:
        return self

    def __call__(self, batch: pl.DataFrame) -> Any:
        from curation.engine import Batch, failures_frame

        return Batch(batch.select("candidate_id", rewards=pl.concat_list(pl.lit(1.0))), failures_frame([]))


def rows(count: int) -> pl.DataFrame:
    from curation.text import content_hash

    return pl.DataFrame({"candidate_id": [content_hash("row", str(n)) for n in range(count)]})


class Ran(NamedTuple):
    """One run of the command."""

    seconds: float
    peak_gib: float
    """Of all its processes at one moment, pages that several share counted once."""
    processes: int
    steps: pl.DataFrame
    """step, computed, seconds."""


def run(recipe: Path, workspace: Path, engine: str, limit: int | None) -> Ran:
    """``curation run`` once."""
    log = workspace.with_suffix(f".{time.monotonic_ns()}.jsonl")
    command = [sys.executable, "-m", "curation.cli", "run", str(recipe), "--workspace", str(workspace)]
    command += ["--engine", engine, *(() if limit is None else ("--limit", str(limit)))]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CURATION_LOG": str(log)}
    started = time.monotonic()
    said = workspace.with_suffix(".said")
    with said.open("wb") as file:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=file)
    most, count = [0.0], [0]
    watching = threading.Thread(target=_watch, args=(process.pid, most, count), daemon=True)
    watching.start()
    if process.wait() != 0:
        raise SystemExit(f"{said.read_text()}\n{' '.join(command)} ended with status {process.returncode}")
    seconds = time.monotonic() - started
    watching.join()
    events = [json.loads(line) for line in log.read_text().splitlines()]
    ended = [e for e in events if e["event"] == "step ended"]
    steps = pl.DataFrame(
        [{name: e[name] for name in ("step", "computed", "seconds")} for e in ended],
        schema={"step": pl.String, "computed": pl.Int64, "seconds": pl.Float64},
    )
    steps = steps.group_by("step", maintain_order=True).agg(pl.all().sum())
    return Ran(seconds, most[0] / 2**30, count[0], steps)


def _watch(process: int, most: list[float], count: list[int]) -> None:
    """Look at a process and all that it started until it is gone."""
    try:
        root = psutil.Process(process)
        while root.is_running() and root.status() != psutil.STATUS_ZOMBIE:
            everyone = [root, *root.children(recursive=True)]
            most[0] = max(most[0], sum(_memory(one) for one in everyone))
            count[0] = max(count[0], len(everyone))
            time.sleep(_LOOK_EVERY)
    except psutil.NoSuchProcess:
        return


def _memory(process: psutil.Process) -> float:
    """Its part of the memory, a page of several processes divided among them."""
    try:
        return float(process.memory_full_info().pss)
    except (psutil.Error, AttributeError):
        return 0.0


def start_of_ray(folder: Path) -> list[float]:
    """Seconds to start Ray, for the first batch of a step without a model, for that of another one, to end."""
    code = _START.format(workspace=str(folder / "nothing"))
    paths = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "benchmarks")])}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=paths, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{done.stderr}\nRay without a model ended with status {done.returncode}")
    return [float(line) for line in done.stdout.split()]


def differences(here: Path, there: Path) -> list[str]:
    """Tables and published files that are not the same; of a ledger's rows the order may differ."""
    from curation.workspace import Workspace
    from schemas import TABLES

    wrong = []
    for root in ("", "trial"):
        places = [Workspace(path, create=False, trial=bool(root)) for path in (here, there)]
        for name in TABLES:
            if name != "runs":
                one, other = (_sorted(place.read(name)) for place in places)
                wrong += [] if one.equals(other) else [f"{root}{name}"]
    files = [
        {p.relative_to(path): p.read_bytes() for p in path.rglob("datasets/**/*.parquet")} for path in (here, there)
    ]
    return wrong + ["published files"] * (files[0] != files[1])


def _sorted(table: pl.DataFrame) -> pl.DataFrame:
    return table.sort([name for name, dtype in table.schema.items() if dtype == pl.String])


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=None, help="of each source; all by default")
    options = parser.parse_args()
    needs("ray", install="pip install 'preference-curation[ray]'")
    recipe = ROOT / "examples" / "quickstart.yaml"
    with tempfile.TemporaryDirectory(prefix="ray-bench-") as name:
        folder = Path(name)
        starts = start_of_ray(folder)
        found = {engine: run(recipe, folder / engine, engine, options.rows) for engine in ("local", "ray")}
        again = {engine: run(recipe, folder / engine, engine, options.rows) for engine in ("local", "ray")}
        wrong = differences(folder / "local", folder / "ray")
    _print(found, again, starts)
    print(f"\ntables and files that differ: {', '.join(wrong) or 'none'}")
    _keep(found, again, starts, wrong)
    return int(bool(wrong))


def _print(found: dict[str, Ran], again: dict[str, Ran], starts: list[float]) -> None:
    here, there = found["local"], found["ray"]
    print("| | rows computed | local, s | ray, s | ray − local, s |\n|---|---:|---:|---:|---:|")
    both = here.steps.join(there.steps, on="step", suffix="_ray", maintain_order="left").filter(
        pl.col("computed") > 0
    )
    for step, computed, one, _, other in both.iter_rows():
        print(f"| {step} | {computed:,} | {one:.1f} | {other:.1f} | {other - one:+.1f} |")
    print(
        f"| **the whole run** | | {here.seconds:.1f} | {there.seconds:.1f} | {there.seconds - here.seconds:+.1f} |"
    )
    one, other = again["local"].seconds, again["ray"].seconds
    print(f"| a second run, nothing missing | 0 | {one:.1f} | {other:.1f} | {other - one:+.1f} |")
    print(f"\npeak memory: local {here.peak_gib:.2f} GiB in {here.processes} processes, ", end="")
    print(f"ray {there.peak_gib:.2f} GiB in {there.processes} processes")
    names = ("start", "first batch of a first step", "first batch of a second step", "end")
    print("Ray alone: " + ", ".join(f"{n} {s:.1f} s" for n, s in zip(names, starts, strict=True)))


def _keep(found: dict[str, Ran], again: dict[str, Ran], starts: list[float], wrong: list[str]) -> None:
    here, there = found["local"], found["ray"]
    computed = int(here.steps["computed"].sum())
    told = f"{computed:,} rows of {here.steps.filter(pl.col('computed') > 0).height} steps; one thread a model"
    FIGURES.packages.append("ray")
    FIGURES.add(
        "quickstart with engine ray", there.seconds, "s", peer="engine local", peer_value=here.seconds,
        better="lower", conditions=told,
    )  # fmt: skip
    FIGURES.add(
        "peak memory of the quickstart with engine ray", there.peak_gib, "GiB", peer="engine local",
        peer_value=here.peak_gib, better="lower", conditions="all processes together",
    )  # fmt: skip
    FIGURES.add(
        "quickstart with engine ray, nothing missing", again["ray"].seconds, "s", peer="engine local",
        peer_value=again["local"].seconds, better="lower",
    )  # fmt: skip
    FIGURES.add("start of Ray for a run", starts[0], "s", conditions="on this machine, nothing of it running")
    FIGURES.add("a step's first batch through a worker of Ray without a model", starts[2], "s")
    FIGURES.add("tables and files that differ between the engines", len(wrong), "tables", at_most=0)


if __name__ == "__main__":
    status = main()
    FIGURES.write()
    raise SystemExit(status)

"""What every script of this folder shares: its figures as JSON, and the machine that they were measured on.

A script prints what it prints, and hands each figure to :class:`Figures`. ``benchmarks/_all.py`` says where the
files go (``BENCH_RESULTS``) and makes ``docs/figures.md`` from them; alone, a script writes them to
``benchmarks/results/``, which git ignores. What a figure means, and how it was measured, is in its script.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, Literal

__all__ = [
    "FIGURES",
    "ROOT",
    "SKIPPED",
    "Figure",
    "Figures",
    "machine",
    "needs",
    "peak_gib",
    "shared_data",
    "skip",
    "versions_of",
]

ROOT: Final = Path(__file__).resolve().parents[1]
SKIPPED: Final = 77
"""The exit status of a script that cannot run here (as automake has it); its last line says why."""
_PACKAGES: Final = ("polars", "deltalake", "torch", "numpy")


@dataclass(frozen=True)
class Figure:
    """One number.

    Attributes:
        name: what was measured, in words.
        unit: of the value and of the peer's.
        peer: what it is measured beside, in the same run on the same rows.
        ratio: value over the peer's value, or the peer's over ours, so that more than 1 is in our favour.
        goal: what was to be reached, in words: ``at most 15``, ``at least 0.94``.
        reached: whether it was; None where there is no goal.
        conditions: sizes and settings that are not in the script's command.
    """

    name: str
    value: float
    unit: str
    peer: str | None = None
    peer_value: float | None = None
    ratio: float | None = None
    goal: str | None = None
    reached: bool | None = None
    conditions: str = ""


@dataclass
class Figures:
    """The figures of one run of one script, written once it is through without an error."""

    rows: list[Figure] = field(default_factory=list)
    packages: list[str] = field(default_factory=list)
    """whose versions are told besides polars, deltalake, torch and numpy; peers are."""

    def add(
        self,
        name: str,
        value: float,
        unit: str,
        *,
        peer: str | None = None,
        peer_value: float | None = None,
        better: Literal["lower", "higher"] | None = None,
        at_most: float | None = None,
        at_least: float | None = None,
        ratio_at_least: float | None = None,
        conditions: str = "",
    ) -> None:
        """Keep one figure.

        Args:
            better: which way the figure is better; needed for a ratio against the peer.
            at_most: the goal for the value.
            at_least: the same, from below.
            ratio_at_least: the goal for the ratio against the peer.
        """
        value = float(value)
        ratio = None
        if peer_value is not None:
            if peer is None or better is None:
                raise TypeError(f"{name}: a peer's value needs its name and a direction")
            above, below = (peer_value, value) if better == "lower" else (value, peer_value)
            # Nothing is so many times nothing.
            ratio = above / below if below else None
        goals = [
            (f"at most {at_most:g}", value <= at_most) if at_most is not None else None,
            (f"at least {at_least:g}", value >= at_least) if at_least is not None else None,
            (f"{ratio_at_least:g} times", ratio is not None and ratio >= ratio_at_least)
            if ratio_at_least is not None
            else None,
        ]
        given = [goal for goal in goals if goal is not None]
        self.rows.append(
            Figure(
                name, value, unit, peer, None if peer_value is None else float(peer_value), ratio,
                ", ".join(text for text, _ in given) or None,
                all(reached for _, reached in given) if given else None, conditions,
            )
        )  # fmt: skip

    def write(self) -> None:
        """Write what there is. A process that measured for another one has nothing."""
        if not self.rows:
            return
        script = Path(sys.argv[0]).resolve()
        folder = Path(os.environ.get("BENCH_RESULTS") or ROOT / "benchmarks" / "results")
        folder.mkdir(parents=True, exist_ok=True)
        command = " ".join(["python", f"benchmarks/{script.name}", *map(_plain, sys.argv[1:])])
        told: dict[str, Any] = {
            "script": script.name,
            "command": command,
            "machine": machine(),
            "versions": versions_of(*self.packages),
            "figures": [asdict(row) for row in self.rows],
        }
        # A script that is run with several first words (generation_overhead server, vllm) has a file for each.
        part = f"-{sys.argv[1]}" if len(sys.argv) > 1 and sys.argv[1].isalpha() else ""
        path = folder / f"{script.stem}{part}.json"
        path.write_text(json.dumps(told, indent=1) + "\n")


FIGURES: Final = Figures()
"""Those of the script that runs."""


def _plain(argument: str) -> str:
    """An argument as the page shows it: no folder of this machine."""
    return Path(argument).name if argument.startswith("/") else argument


def machine() -> dict[str, str]:
    """Processor, cores, memory, system and Python."""
    return {
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else "unknown"


def versions_of(*packages: str) -> dict[str, str]:
    """The installed versions; packages that are not there are left out."""
    found = {}
    for package in (*_PACKAGES, *packages):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def peak_gib() -> float:
    """Peak resident memory of this process so far."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)


def shared_data(given: Path | None = None) -> Path:
    """The folder with the public data sets, which are no part of the repository.

    Ends the script with :data:`SKIPPED` where there is none.
    """
    folder = given or ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        skip(f"there is no {folder}: give the folder with the public data sets as --data")
    return folder


def needs(module: str, *, install: str) -> None:
    """Ends the script with :data:`SKIPPED` where a module is not installed."""
    from importlib.util import find_spec

    if find_spec(module) is None:
        skip(f"{module} is not installed: {install}")


def skip(reason: str) -> None:
    """End the script: it cannot run here."""
    print(f"skipped: {reason}")
    raise SystemExit(SKIPPED)

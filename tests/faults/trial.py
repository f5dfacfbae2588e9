"""One injected fault: a run that is disturbed, then one that is not, and whether the outcome is the right one."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from tests.chat_server import running
from tests.faults.injections import FAULTS, ROOT, Run
from tests.faults.place import NEW_ROWS, Outcome, Place, write_sources

__all__ = ["Trial", "trial", "undisturbed"]


class Trial(NamedTuple):
    """What came of it.

    Attributes:
        wrong: everything that is not as it must be; empty for a right outcome.
        disturbed: whether the run under the fault did not end well.
        said: the last line of that run, for a person.
        again: requests that were sent again after they had been answered.
    """

    fault: str
    wrong: list[str]
    disturbed: bool
    repaired: bool
    said: str
    again: int


def undisturbed(folder: Path, port: int = 0) -> tuple[Outcome, float, int]:
    """The outcome of a run that nothing disturbs, its seconds, and the server's port: part of the recipe."""
    with running(folder / "log", "--delay", "0.05", "--port", str(port)) as server:
        recipe = write_sources(folder / "recipe", server, rows=NEW_ROWS)
        started = time.monotonic()
        run = Run(recipe, folder / "w", folder / "out")
        assert run.wait() == 0, run.said
        return Place(folder / "w").outcome(server), time.monotonic() - started, server.port


def trial(folder: Path, fault: str, *, right: Outcome, seconds: float, port: int, seed: int) -> Trial:
    """Inject a fault at a random moment of a run, run again, and compare."""
    draw = random.Random(f"{seed} {fault}")
    folder.mkdir(parents=True)
    with running(folder / "log", "--delay", "0.05", "--port", str(port)) as server:
        recipe = write_sources(folder / "recipe", server, rows=NEW_ROWS)
        run = Run(recipe, folder / "w", folder / "out")
        time.sleep(draw.uniform(0.1, 1.0) * seconds)
        FAULTS[fault].inject(run, draw, server)
        disturbed = run.process.returncode != 0
        place = Place(folder / "w")
        wrong = [f"published {p} is neither absent nor right" for p, data in place.published().items()
                 if right.published.get(p) != data]  # fmt: skip
        repaired = _run_again(recipe, folder, wrong)
        if not wrong or all(w.startswith("published") for w in wrong):
            wrong += _differences(right, place.outcome(server))
        again = len(server.sent_after_answer())
        if again > FAULTS[fault].again:
            wrong.append(f"{again} paid requests were sent again")
    return Trial(fault, wrong, disturbed, repaired, (run.said.strip().splitlines() or [""])[-1][:200], again)


def _run_again(recipe: Path, folder: Path, wrong: list[str]) -> bool:
    """Once more without a fault; where that run says so, after a repair. Returns whether there was one."""
    run = Run(recipe, folder / "w", folder / "again")
    if run.wait() == 0:
        return False
    if "curation repair" in run.said:
        command = [sys.executable, "-m", "curation.cli", "repair", str(folder / "w")]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        run = Run(recipe, folder / "w", folder / "repaired")
        if done.returncode == 0 and run.wait() == 0:
            return True
        wrong.append(f"the repair did not do: {done.stderr[-300:]}")
    wrong.append(f"the next run failed: {run.said[-500:]}")
    return False


def _differences(right: Outcome, found: Outcome) -> list[str]:
    wrong = [
        f"table {name} differs" for name, frame in right.tables.items() if not found.tables[name].equals(frame)
    ]
    if found.published != right.published:
        wrong.append("the datasets differ")
    if found.asked != right.asked:
        wrong.append("other requests were paid for")
    return wrong

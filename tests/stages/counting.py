"""Run a recipe in a process of its own, logging what each model is called for; optionally kill it on the way.

    python -m tests.stages.counting RECIPE WORKSPACE LOG [KILL_STEP KILL_AT]

The models are the real ones. With KILL_STEP the process kills itself (SIGKILL) in that step's call number
KILL_AT, after the model has answered and before the answer is kept: the worst moment.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import polars as pl

from curation.engine import Batch
from curation.pipeline import run
from curation.stages.embeddings import EmbeddingStep
from curation.stages.generations import GenerationStep
from curation.stages.policy_stats import PolicyStep
from curation.stages.refusal_step import RefusalStep
from curation.stages.rewards import RewardStep
from curation.streaming import Arrival

STEPS = (EmbeddingStep, RewardStep, RefusalStep, PolicyStep)


def counted(step_type: Any, log: Path, kill_step: str | None, kill_at: int) -> None:
    """Make a step's workers write the id of every row that they are given."""
    plain_open: Callable[[Any], Any] = step_type.open

    def open_counting(step: Any) -> Any:
        worker, calls = plain_open(step), 0

        def call(batch: pl.DataFrame) -> Batch:
            nonlocal calls
            calls += 1
            result: Batch = worker(batch)
            with log.open("a") as file:
                file.writelines(f"{step.name} {i}\n" for i in batch[step.key.id_column])
            if step.name == kill_step and calls == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call

    step_type.open = open_counting


def counted_stream(step_type: Any, log: Path, kill_step: str | None, kill_at: int) -> None:
    """The same for a step whose results arrive one by one: a call is an answer."""
    plain_open: Callable[[Any], Any] = step_type.open

    def open_counting(step: Any) -> Any:
        worker = plain_open(step)

        def call(rows: Iterable[dict[str, Any]]) -> Iterator[Arrival]:
            for calls, arrival in enumerate(worker(rows), start=1):
                with log.open("a") as file:
                    file.write(f"{step.name} {arrival.id}\n")
                if step.name == kill_step and calls == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)
                yield arrival

        return call

    step_type.open = open_counting


def main() -> None:
    recipe, workspace, log, *kill = sys.argv[1:]
    kill_step, kill_at = (kill[0], int(kill[1])) if kill else (None, 0)
    for step_type in STEPS:
        counted(step_type, Path(log), kill_step, kill_at)
    counted_stream(GenerationStep, Path(log), kill_step, kill_at)
    run(recipe, workspace=workspace)


if __name__ == "__main__":
    main()

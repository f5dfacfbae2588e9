"""Steps without a model that workers on a Ray cluster can run: they log what they are called for."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from curation.engine import Batch, failures_frame
from curation.errors import ModelError
from curation.ledger import Ledger, LedgerKey
from curation.models.chat import ChatAnswer
from curation.models.judging import CutReplies
from curation.text import content_hash


def items(numbers: range | list[int]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "candidate_id": [content_hash("row", str(n)) for n in numbers],
            "number": list(numbers),
            "messages": [[{"role": "user", "content": f"say {n}"}] for n in numbers],
        },
        schema={
            "candidate_id": pl.String,
            "number": pl.Int64,
            "messages": pl.List(pl.Struct({"role": pl.String, "content": pl.String})),
        },
    )


@dataclass(frozen=True)
class Thirds:
    """The reward of a number is a third of it; each batch is logged when it begins.

    Attributes:
        log: a file that all workers append to: the first number of each batch and the process.
        failing: numbers that have no reward.
        infinite: numbers whose reward breaks the table's schema.
        deadly: a number whose batch ends its process.
        hanging: a number whose batch never ends.
        broken: what open raises: ``model`` for an error of ours, ``bug`` for another one.
        together: so many workers are waited for before the first batch is done, else one may do them all.
    """

    log: str
    batch_rows: int = 4
    pause: float = 0.0
    failing: tuple[int, ...] = ()
    infinite: tuple[int, ...] = ()
    deadly: int | None = None
    out_of_memory: int | None = None
    hanging: int | None = None
    broken: str | None = None
    together: int = 1

    @property
    def name(self) -> str:
        return "rewards"

    @property
    def key(self) -> LedgerKey:
        return LedgerKey("rewards", "candidate_id", "model", "thirds@1")

    def open(self) -> Thirds:
        if self.broken == "model":
            raise ModelError("the weights are not there")
        if self.broken == "bug":
            raise ZeroDivisionError("a bug in a step")
        self._say("open")
        return self

    def __call__(self, batch: pl.DataFrame) -> Batch:
        numbers = batch["number"].to_list()
        assert [m[0]["content"] for m in batch["messages"].to_list()] == [f"say {n}" for n in numbers]
        self._say(str(numbers[0]))
        self._wait_for_the_others()
        time.sleep(self.pause)
        if self.deadly in numbers:
            os.kill(os.getpid(), signal.SIGKILL)
        while self.hanging in numbers:
            time.sleep(1)
        if self.out_of_memory in numbers:
            raise MemoryError
        rewards = [[n / 3, float("nan") if n in self.infinite else np.sqrt(n)] for n in numbers]
        bad = batch["number"].is_in(self.failing)
        rows = batch.select("candidate_id", rewards=pl.Series(rewards, dtype=pl.List(pl.Float64))).filter(~bad)
        failures: list[dict[str, Any]] = [
            {"row_id": c, "item_id": c, "rule": "odd", "value": None, "reason": "cannot"}
            for c in batch.filter(bad)["candidate_id"]
        ]
        return Batch(rows, failures_frame(failures), tokens=batch.height)

    def _wait_for_the_others(self) -> None:
        until = time.monotonic() + 300
        while len(self.workers()) < self.together:
            assert time.monotonic() < until, f"there are not {self.together} workers"
            time.sleep(0.05)

    def _say(self, what: str) -> None:
        with Path(self.log).open("a") as file:
            file.write(f"{what} {os.getpid()}\n")

    def begun(self) -> list[int]:
        """The first number of each batch that was begun, in that order."""
        lines = Path(self.log).read_text().split("\n") if Path(self.log).exists() else []
        return [int(line.split()[0]) for line in lines if line and not line.startswith("open")]

    def workers(self) -> set[int]:
        lines = Path(self.log).read_text().split("\n") if Path(self.log).exists() else []
        return {int(line.split()[1]) for line in lines if line and not line.startswith("open")}


@dataclass(frozen=True)
class AllCut(Thirds):
    """A judge all of whose replies are cut off."""

    def open(self) -> Any:
        replies = CutReplies()

        def judge(batch: pl.DataFrame) -> Batch:
            for _ in range(batch.height):
                replies.saw(ChatAnswer("{", "length", 1, 32), read=False)
            return Thirds.__call__(self, batch)

        return judge


def process_number(prompts: list[Any], responses: list[str]) -> list[float]:
    """A reward that says which process gave it."""
    return [float(os.getpid())] * len(responses)


def contents(ledger: Ledger) -> pl.DataFrame:
    """All that a step left in the ledger; the order of its rows is not part of it."""
    rows = ledger.workspace.read("rewards").sort("candidate_id")
    failures = ledger.workspace.read("failures").sort("row_id", "rule")
    return pl.concat([rows, failures], how="diagonal")

"""A small recipe with every bundled model and a server that is paid, and what its outcome must be."""

from __future__ import annotations

import json
import os
import shutil
import time
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import yaml

from curation.workspace import Workspace
from tests.chat_server import Running
from tests.stages.conftest import sentences

__all__ = ["CONCURRENCY", "NEW_ROWS", "OLD_ROWS", "Outcome", "Place", "write_sources"]

OLD_ROWS, NEW_ROWS = 8, 12
CONCURRENCY = 3
TABLES = (
    "inputs", "prompts", "candidates", "pairs", "pair_scores", "preference", "preference_unpaired", "rejects",
    "rewards", "generations",
)  # fmt: skip
VOLATILE = ("request_id", "latency", "seconds", "created_at", "cost")


def recipe(server: Running, **changes: Any) -> dict[str, Any]:
    generation = {
        "model": server.model, "revision": "v1", "samples": 2, "max_new_tokens": 8, "concurrency": CONCURRENCY,
        "timeout": 20, "patience": 20,
    }  # fmt: skip
    return {
        "name": "faulty",
        "sources": [{"path": "pairs.jsonl"}],
        "generation": [generation],
        "encoder": None,
        "rewards": [{"model": "python:tests.faults.place:reward", "batch_rows": 4}],
        "refusals": None,
        "policy": None,
        "pairs": {"strategies": ["provided", "best_vs_worst"]},
        "gates": {"max_tie_rate": 1.0, "max_duplicate_rate": 1.0},
        "publish": {"datasets": ["preference", "preference_unpaired"], "license": "apache-2.0"},
        **changes,
    }


def write_sources(folder: Path, server: Running, *, rows: int, **changes: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in sentences(rows)))
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe(server, **changes)))
    return path


def reward(prompts: list[Any], answers: list[str]) -> list[float]:
    """A reward model of a user's own; it hangs while a file says so, as a model on a lost device does."""
    stuck = os.environ.get("FAULTS_STUCK")
    while stuck and os.path.exists(stuck):
        time.sleep(0.05)
    return [float(zlib.crc32(answer.encode()) % 1000) / 100 for answer in answers]


class Outcome(NamedTuple):
    """All that a run is for."""

    tables: dict[str, pl.DataFrame]
    published: dict[str, bytes]
    asked: frozenset[str]
    """The requests that were paid for."""


class Place:
    """A workspace and the log of the server that is paid."""

    def __init__(self, workspace: Path) -> None:
        self.workspace = workspace

    def outcome(self, server: Running) -> Outcome:
        space = Workspace(self.workspace, create=False)
        tables = {name: _comparable(space.read(name)) for name in TABLES}
        return Outcome(tables, self.published(), frozenset(server.got()))

    def published(self) -> dict[str, bytes]:
        """Path to content of every published parquet file."""
        folder = self.workspace / "datasets"
        found = [p for p in sorted(folder.rglob("*.parquet")) if not any(x.startswith(".") for x in p.parts[-4:])]
        return {p.relative_to(folder).as_posix(): p.read_bytes() for p in found}

    def copy_from(self, other: Path) -> None:
        shutil.copytree(other, self.workspace)


def _comparable(frame: pl.DataFrame) -> pl.DataFrame:
    """The rows in an order of their own, without what differs from one answer to the next."""
    frame = frame.drop([c for c in VOLATILE if c in frame.columns])
    keys = [name for name, kind in frame.schema.items() if not kind.is_nested()]
    return frame.select(sorted(frame.columns)).sort(keys)

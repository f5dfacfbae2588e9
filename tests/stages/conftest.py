"""Small recipes on our own sentences, run with the bundled models."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pytest
import yaml

from curation.pipeline import run
from curation.workspace import Workspace

ROOT = Path(__file__).resolve().parents[2]

SMALL_RECIPE: dict[str, Any] = {
    "name": "small",
    "sources": [{"path": "pairs.jsonl"}],
    "generation": [{"samples": 1, "max_new_tokens": 8, "batch_rows": 4}],
    "encoder": {"batch_rows": 16},
    "rewards": [{"batch_rows": 8}],
    "refusals": {"batch_rows": 8},
    "policy": {"batch_rows": 4},
    "pairs": {"strategies": ["provided", "best_vs_worst"]},
    "selection": {"rules": [{"score": "ln_ches", "max_quantile": 0.9}]},
    "negatives": {"num_negatives": 2, "relative_margin": None},
    "gates": {"max_tie_rate": 1.0, "max_duplicate_rate": 1.0},
    "publish": {"datasets": ["preference", "preference_unpaired", "retrieval"], "license": "apache-2.0"},
}


def sentences(count: int) -> list[dict[str, str]]:
    """Pairs of our own, all different."""
    topics = ("bread", "rivers", "chess", "tides", "bicycles", "maps", "bees", "clocks", "paper", "sails")
    return [
        {
            "prompt": f"Tell me something about {topics[i % len(topics)]}, number {i}.",
            "chosen": f"People have known {topics[i % len(topics)]} for {100 + i} years, and still learn more.",
            "rejected": f"I do not care about {topics[i % len(topics)]}; ask {i} others.",
        }
        for i in range(count)
    ]


def with_rows(folder: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """The folder, with ``pairs.jsonl`` in it."""
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def run_recipe(folder: Path, recipe: Mapping[str, Any]) -> Workspace:
    """The folder's workspace after a run of the recipe in it."""
    (folder / "recipe.yaml").write_text(yaml.safe_dump(dict(recipe)))
    workspace = Workspace(folder / "w")
    run(folder / "recipe.yaml", workspace=workspace)
    return workspace


class Counted(NamedTuple):
    """A run in its own process."""

    returncode: int
    stderr: str


class Place:
    """A folder with a recipe, its source, a workspace and the log of model calls."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.workspace = folder / "workspace"
        self.log = folder / "calls.log"

    def write(self, rows: list[dict[str, str]], **changes: Any) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (self.folder / "recipe.yaml").write_text(yaml.safe_dump(SMALL_RECIPE | changes))

    def run(self, *kill: str) -> Counted:
        command = [sys.executable, "-m", "tests.stages.counting", str(self.folder / "recipe.yaml")]
        done = subprocess.run(
            [*command, str(self.workspace), str(self.log), *kill],
            cwd=ROOT, capture_output=True, text=True, check=False, timeout=1200,
        )  # fmt: skip
        return Counted(done.returncode, done.stderr)

    def succeed(self) -> None:
        done = self.run()
        assert done.returncode == 0, done.stderr

    def calls(self) -> Counter[str]:
        return Counter(self.log.read_text().splitlines()) if self.log.exists() else Counter()

    def forget_calls(self) -> None:
        self.log.unlink(missing_ok=True)

    def tables(self) -> dict[str, pl.DataFrame]:
        """The content of every table that a run's result consists of."""
        space = Workspace(self.workspace)
        names = (
            "inputs",
            "prompts",
            "candidates",
            "pairs",
            "pair_scores",
            "preference",
            "retrieval",
            "rejects",
        )
        return {name: space.read(name) for name in names}

    def published(self) -> dict[str, bytes]:
        """Path to content of every published parquet file."""
        folder = self.workspace / "datasets"
        return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.parquet"))}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "place")


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A whole run that nothing disturbed, of 24 pairs."""
    found = Place(tmp_path_factory.mktemp("undisturbed"))
    found.write(sentences(24))
    found.succeed()
    return found

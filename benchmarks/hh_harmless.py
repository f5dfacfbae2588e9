"""hh-rlhf harmless-base (test split, 2,312 pairs) curated end to end: its waterfall, and the time of each stage.

    python benchmarks/hh_harmless.py [--data ../shared/data] [--limit N] [--workspace DIR]

Prints Markdown. Every row of the file is published or rejected, exactly once, and the script fails otherwise.
"""

from __future__ import annotations

import argparse
import gzip
import json
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polars as pl
import yaml
from _figures import FIGURES, shared_data

from curation.pipeline import RunResult, run
from curation.progress import RichProgress
from curation.stages.context import StageResult

RECIPE: dict[str, Any] = {
    "name": "hh-harmless",
    "pairs": {"strategies": ["provided"]},
    "selection": {
        "drop_refusal_pairs": True,
        "rules": [
            {"score": "ln_ches", "max_quantile": 0.9},
            {"score": "strength_mean", "min_quantile": 0.2},
        ],
    },
    "publish": {"datasets": ["preference", "preference_unpaired"], "license": "mit"},
}


class Timed:
    """Seconds of each stage."""

    def __init__(self) -> None:
        self.last = time.perf_counter()
        self.stages: list[tuple[StageResult, float]] = []

    def __call__(self, result: StageResult) -> None:
        now = time.perf_counter()
        self.stages.append((result, now - self.last))
        self.last = now


def check_every_row_is_accounted_for(result: RunResult, rows: int) -> None:
    """Published pairs and rejected rows or pairs add up to the rows of the file, with none counted twice."""
    kept = result.workspace.read("preference")["pair_id"]
    rejects = result.workspace.read("rejects").filter(pl.col("table").is_in(["inputs", "pairs"]))
    gone = rejects["row_id"]
    if len(kept) + len(gone) != rows or kept.is_duplicated().any() or gone.is_duplicated().any():
        raise SystemExit(f"{len(kept)} published and {len(gone)} rejected are not the {rows} rows of the file")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--workspace", type=Path)
    options = parser.parse_args()
    source = (shared_data(options.data) / "hh_harmless" / "test.jsonl.gz").resolve()
    with gzip.open(source) as file:
        rows = min(sum(1 for _ in file), options.limit or 10**9)
    with tempfile.TemporaryDirectory() as name:
        recipe = Path(name) / "recipe.yaml"
        recipe.write_text(yaml.safe_dump(RECIPE | {"sources": [{"path": str(source), "name": "hh_harmless"}]}))
        workspace = options.workspace or Path(name) / "workspace"
        timed = Timed()
        result = run(recipe, workspace=workspace, limit=options.limit, progress=RichProgress(), on_stage=timed)
        check_every_row_is_accounted_for(result, rows)
        again = run(recipe, workspace=workspace, limit=options.limit)
        show(result, again, timed, rows)


def show(result: RunResult, again: RunResult, timed: Timed, rows: int) -> None:
    packages = ("polars", "torch", "transformers", "sentence-transformers", "deltalake")
    print(f"Versions: {', '.join(f'{p} {version(p)}' for p in packages)}\n")
    print("| rule | removed | left |\n|---|---:|---:|")
    print(f"| rows of the file | | {rows:,} |")
    rules = result.workspace.read("waterfall").filter(pl.col("dataset") == "preference").sort("position")
    for row in rules.iter_rows(named=True):
        print(f"| {row['stage']}: {row['rule']} | {row['removed']:,} | {row['left']:,} |")
    kept, gone = rules["left"][-1], rules["removed"].sum()
    print(f"\nEvery row is published or rejected, exactly once: {kept:,} + {gone:,} = {rows:,}.\n")
    print("| stage | rows | seconds |\n|---|---:|---:|")
    for stage, seconds in timed.stages:
        print(f"| {stage.stage} | {stage.rows:,} | {seconds:.1f} |")
    print(f"| **all** | | **{result.seconds:.1f}** |")
    print(f"\nA second run computed {again.computed} model results and took {again.seconds:.1f} s.")
    FIGURES.packages.extend(["transformers", "sentence-transformers"])
    name = f"hh-rlhf harmless end to end, {rows:,} pairs"
    FIGURES.add(
        name, result.seconds, "s", conditions=f"{kept:,} published, {gone:,} rejected, none unaccounted for"
    )
    FIGURES.add("a second run of it", again.seconds, "s", conditions=f"{again.computed} model results computed")
    failures = {
        s.stage: {k: v for k, v in s.facts.items() if "too long" in k or "candidates with" in k}
        for s, _ in timed.stages
    }
    print(f"\nCut or failed: {json.dumps({k: v for k, v in failures.items() if v})}")


if __name__ == "__main__":
    main()
    FIGURES.write()

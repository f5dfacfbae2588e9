"""Prompts × 4 answers through every stage: seconds, memory, disk and files at each size, and how they grow.

    python benchmarks/scale.py [--prompts 10000 100000 1000000] [--retrieval 5000 20000] [--scratch DIR]
    python benchmarks/scale.py models [--sample 50 100 200]

A million prompts take 15 GB of disk. With ``--scratch`` and ``--until SECONDS`` a machine that can be had alone for
minutes is enough: the same command goes on where it stopped.

Sources are drawn (``_scale_data.py``). Each stage runs in a process of its own, whose time is taken inside, without
imports, and whose peak memory is what the system says at its end. Verdicts of the refusal detector and embeddings
are drawn, too, and go through the same engine and ledger as a model's: what is measured there is this project's
part. ``retrieval`` runs at sizes of its own, since search grows faster. ``models`` runs the four steps with the
bundled models on samples instead, and extrapolates along the measured slope.

Growth is the exponent b of seconds ~ rows^b between the two largest sizes.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import numpy as np  # noqa: E402
import polars as pl  # noqa: E402
from _figures import FIGURES, peak_gib  # noqa: E402
from _scale_data import ANSWERS, SHARES, write_sources  # noqa: E402

DATASETS: Final = ("preference", "preference_unpaired", "reward", "sft", "refusal")
STAGES: Final = (
    "inputs", "hygiene", "prompts", "candidates", "refusals (ledger)", "pairs", "pair_scores", "pair_labels",
    "preference", "preference_unpaired", "refusal", "gates", *(f"publish_{name}" for name in DATASETS), "report",
    "refusals (nothing missing)",
)  # fmt: skip
RETRIEVAL_STAGES: Final = ("inputs", "prompts", "candidates", "embeddings (ledger)", "retrieval")
MODEL_STEPS: Final = ("embeddings", "rewards", "refusals", "policy_stats")
GOAL: Final = 1.1


class Measured(NamedTuple):
    """One stage at one size."""

    rows: int
    seconds: float
    peak: float
    """GiB."""
    disk: float
    """GiB that the workspace grew by."""
    files: int


def recipe(sources: Path, kind: str) -> dict[str, Any]:
    """``tables``: no model. ``retrieval``: the encoder and negatives. ``models``: all bundled models."""
    made: dict[str, Any] = {
        "name": "scale",
        "sources": [{"path": str(sources / f"{name}.parquet"), "name": name} for name in SHARES],
        "encoder": None, "rewards": [], "policy": None, "refusals": {"taxonomy": None},
        "pairs": {"strategies": ["best_vs_worst"], "score": "provided"},
        "refusal_dataset": {"contrast_per_refusal": 1.0},
        "publish": {"datasets": list(DATASETS), "license": "cc0-1.0"},
    }  # fmt: skip
    if kind == "tables":
        earlier = str(sources / "earlier.parquet")
        made["hygiene"] = {"prompts": [{"method": "exact", "against": [earlier]}, {"method": "minhash"}]}
    elif kind == "retrieval":
        made |= {
            "encoder": {},
            "negatives": {"relative_margin": None},
            "publish": {"datasets": ["retrieval"], "license": "cc0-1.0"},
        }
    else:
        made |= {"encoder": {}, "rewards": [{}], "policy": {}}
    return made


# ---- in a process of its own ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Drawn:
    """A step of the recipe whose model is replaced by draws: engine, ledger and key are the real ones."""

    step: Any
    kind: str

    @property
    def name(self) -> str:
        return str(self.step.name)

    @property
    def key(self) -> Any:
        return self.step.key

    @property
    def batch_rows(self) -> int:
        return int(self.step.batch_rows)

    def open(self) -> Any:
        return _draw_vectors if self.kind == "embeddings" else _draw_verdicts


def _draw_verdicts(batch: pl.DataFrame) -> Any:
    from curation.engine import Batch, failures_frame

    refuses = batch["response"].str.contains("^(I'm sorry|I cannot|As an AI|Sorry)")
    rows = batch.select("candidate_id").with_columns(
        refusal_probability=pl.when(refuses).then(0.97).otherwise(0.02),
        refusal_class=pl.when(refuses).then(pl.lit("full_refusal")).otherwise(pl.lit("compliance")),
        refusal_kind=pl.when(refuses).then(pl.lit("declined")),
        refusal_category=pl.lit(None, pl.String),
        refusal_truncated=pl.lit(value=False),
    )
    return Batch(rows, failures_frame([]))


def _draw_vectors(batch: pl.DataFrame) -> Any:
    from curation.engine import Batch, failures_frame

    rng = np.random.default_rng(int(batch["text_id"][0][:8], 16))
    # Topics, since vectors without any structure have no neighbours to speak of.
    topics = np.random.default_rng(0).standard_normal((200, 384)).astype(np.float32)
    vectors = topics[rng.integers(0, len(topics), batch.height)]
    vectors = vectors + 0.6 * rng.standard_normal(vectors.shape).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = batch.select("text_id").with_columns(
        vector=pl.Series(vectors, dtype=pl.Array(pl.Float32, 384)).arr.to_list(), truncated=pl.lit(value=False)
    )
    return Batch(rows, failures_frame([]))


def run_one(stage: str, workspace: Path, sources: Path, kind: str) -> None:
    """Runs a stage; prints rows, seconds and peak as JSON."""
    from curation.pipeline import run_stage, stage_named
    from curation.recipe import Recipe
    from curation.stages.answered import answered
    from curation.stages.context import Context
    from curation.stages.embeddings import _texts, embedding_step
    from curation.stages.refusals import refusal_step
    from curation.workspace import Workspace

    context = Context(Workspace(workspace), Recipe.model_validate(recipe(sources, kind)))
    started = time.perf_counter()
    if stage.startswith("refusals (") and kind == "tables":
        step = Drawn(refusal_step(context), "refusals")
        rows = context.compute(step, answered(context))  # type: ignore[arg-type]
        done = rows.computed + rows.reused
    elif stage.startswith("embeddings ("):
        step = Drawn(embedding_step(context), "embeddings")
        done = context.compute(step, _texts(context)).computed  # type: ignore[arg-type]
    else:
        result = run_stage(context, stage_named(stage))
        assert result is not None, f"stage {stage} is left out"
        done = result.rows
    print(json.dumps({"rows": done, "seconds": time.perf_counter() - started, "peak": peak_gib()}))


# ---- the table -----------------------------------------------------------------------------------------------


def measure(stage: str, workspace: Path, sources: Path, kind: str) -> Measured:
    before_bytes, before_files = contents(workspace)
    command = [sys.executable, __file__, "--stage", stage, "--workspace", str(workspace), "--sources", str(sources),
               "--kind", kind]  # fmt: skip
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    size, files = contents(workspace)
    return Measured(
        found["rows"], found["seconds"], found["peak"], (size - before_bytes) / 2**30, files - before_files
    )


def contents(folder: Path) -> tuple[int, int]:
    """Bytes and files under a folder."""
    files = [path for path in folder.rglob("*") if path.is_file()] if folder.exists() else []
    return sum(path.stat().st_size for path in files), len(files)


def growth(small: Measured, large: Measured, factor: float) -> float:
    """The exponent; stages that end within a tenth of a second at the smaller size have none to speak of."""
    if small.seconds < 0.1:
        return math.nan
    return math.log(large.seconds / small.seconds) / math.log(factor)


def sizes_table(sizes: list[int], stages: tuple[str, ...], kind: str, scratch: Path, until: float) -> None:
    """Measures what is not measured yet, and prints the table once everything is."""
    found: dict[int, dict[str, Measured]] = {}
    for prompts in sizes:
        sources, workspace = scratch / f"sources-{prompts}", scratch / f"workspace-{prompts}-{kind}"
        record = scratch / f"measured-{prompts}-{kind}.json"
        known = json.loads(record.read_text()) if record.exists() else {}
        found[prompts] = {stage: Measured(*one) for stage, one in known.items()}
        if not sources.exists() and len(known) < len(stages):
            write_sources(sources, prompts)
        for stage in stages:
            if stage in found[prompts]:
                continue
            if time.monotonic() > until:
                print("out of time: the same command goes on from here")
                return
            one = found[prompts][stage] = measure(stage, workspace, sources, kind)
            record.write_text(json.dumps(found[prompts]))
            print(
                f"  {prompts:>9,} {stage:<28} {one.rows:>10,} rows {one.seconds:>8.1f} s {one.peak:>6.2f} GiB "
                f"{one.disk:>6.2f} GiB on disk {one.files:>5} files", flush=True,
            )  # fmt: skip
        shutil.rmtree(workspace, ignore_errors=True)
        shutil.rmtree(sources, ignore_errors=True)
    print_table(found, stages, kind)


def print_table(found: dict[int, dict[str, Measured]], stages: tuple[str, ...], kind: str) -> None:
    sizes = sorted(found)
    heads = " | ".join(f"{n:,}: s | GiB | disk GiB | files" for n in sizes)
    print(f"\n| stage | {heads} | growth |\n|---|{'---|' * (4 * len(sizes) + 1)}")
    for stage in stages:
        cells = [found[n][stage] for n in sizes]
        shown = " | ".join(f"{c.seconds:.1f} | {c.peak:.2f} | {c.disk:.2f} | {c.files}" for c in cells)
        rate = growth(cells[-2], cells[-1], sizes[-1] / sizes[-2]) if len(cells) > 1 else math.nan
        print(f"| {stage} | {shown} | {'' if math.isnan(rate) else f'{rate:.2f}'} |")
        if not math.isnan(rate):
            limit = None if stage == "retrieval" else GOAL
            between = f"seconds between {sizes[-2]:,} and {sizes[-1]:,} prompts"
            FIGURES.add(f"growth of {stage}", rate, "exponent", at_most=limit, conditions=between)
    largest = found[sizes[-1]]
    seconds, peak = sum(m.seconds for m in largest.values()), max(m.peak for m in largest.values())
    disk, files = sum(m.disk for m in largest.values()), sum(m.files for m in largest.values())
    print(f"\nall stages at {sizes[-1]:,}: {seconds:.0f} s, peak {peak:.2f} GiB, {disk:.2f} GiB, {files:,} files")
    size = f"{sizes[-1]:,} prompts × {ANSWERS} answers ({kind})"
    FIGURES.add(f"all stages, {size}", seconds, "s", conditions="each in a process of its own, imports not counted")
    FIGURES.add(f"peak memory, {size}", peak, "GiB", conditions="of the stage that takes most")
    FIGURES.add(f"on disk, {size}", disk, "GiB")
    FIGURES.add(f"files, {size}", files, "files")


def models_table(samples: list[int], scratch: Path) -> None:
    """The bundled models on samples; seconds along the slope of the largest two, as if all rows were alike."""
    found: dict[int, dict[str, Measured]] = {}
    for prompts in samples:
        sources, workspace = scratch / f"sources-{prompts}", scratch / f"models-{prompts}"
        write_sources(sources, prompts)
        for stage in ("inputs", "prompts", "candidates"):
            measure(stage, workspace, sources, "models")
        found[prompts] = {stage: measure(stage, workspace, sources, "models") for stage in MODEL_STEPS}
        shutil.rmtree(workspace)
        shutil.rmtree(sources)
    heads = " | ".join(f"{n:,} prompts: s" for n in samples)
    targets = (10_000, 100_000, 1_000_000)
    print(f"\n| step | {heads} | GiB | rows/s | {' | '.join(f'{n:,}: hours' for n in targets)} |")
    print(f"|---|{'---|' * (len(samples) + 2 + len(targets))}")
    for stage in MODEL_STEPS:
        seconds = [found[n][stage].seconds for n in samples]
        slope, start = np.polyfit(samples, seconds, 1)
        rows = found[samples[-1]][stage].rows / samples[-1]
        hours = [(start + slope * n) / 3600 for n in targets]
        shown = " | ".join(f"{s:.1f}" for s in seconds)
        peak = found[samples[-1]][stage].peak
        print(f"| {stage} | {shown} | {peak:.2f} | {rows / slope:.0f} | {' | '.join(f'{h:.1f}' for h in hours)} |")
        FIGURES.add(
            f"{stage} with the bundled model, extrapolated to 1,000,000 prompts × {ANSWERS}", hours[-1], "hours",
            conditions=f"from {', '.join(f'{n:,}' for n in samples)} prompts of {ANSWERS} answers of 50 words",
        )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("tables", "models"), default="tables")
    parser.add_argument("--prompts", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--retrieval", type=int, nargs="*", default=[5_000, 20_000])
    parser.add_argument("--sample", type=int, nargs="+", default=[50, 100, 200])
    parser.add_argument("--scratch", type=Path, help="keep what is measured there, so that a second call goes on")
    parser.add_argument("--until", type=float, default=math.inf, help="start no stage after so many seconds")
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    parser.add_argument("--workspace", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--sources", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--kind", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stage:
        run_one(options.stage, options.workspace, options.sources, options.kind)
        return
    until = time.monotonic() + options.until
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.scratch or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if options.what == "models":
            models_table(sorted(options.sample), folder)
            return
        print(f"{pl.thread_pool_size()} polars threads")
        if options.prompts:
            sizes_table(sorted(options.prompts), STAGES, "tables", folder, until)
        if options.retrieval:
            sizes_table(sorted(options.retrieval), RETRIEVAL_STAGES, "retrieval", folder, until)


if __name__ == "__main__":
    main()
    FIGURES.write()

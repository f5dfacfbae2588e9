"""From tables of scored answers to published DPO, KTO and reward-model datasets: seconds and memory.

.venv/bin/python benchmarks/publish_scale.py [--prompts 100000] [--distilabel .venv-distilabel/bin/python]

Making the tables is not timed. A process of its own then reads them, builds best-versus-worst pairs, gathers
their evidence, measures the gates and writes the three datasets with their cards. With --distilabel (a Python in
which distilabel 1.5.3 is installed), pairs of the same rows are built by its FormatTextGenerationDPO, too.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
from _figures import FIGURES, ROOT

ANSWERS: Final = 4
STAGES: Final = (
    "pairs", "pair_scores", "pair_labels", "preference", "preference_unpaired", "gates", "publish_preference",
    "publish_preference_unpaired", "publish_reward",
)  # fmt: skip
WORDS: Final = (
    "the", "a", "of", "and", "to", "in", "is", "that", "it", "for", "was", "on", "are", "with", "as", "at", "be",
    "this", "have", "from", "or", "one", "had", "by", "word", "but", "not", "what", "all", "were", "we", "when",
    "your", "can", "said", "there", "use", "an", "each", "which", "she", "do", "how", "their", "if", "will", "up",
)  # fmt: skip
THEIRS: Final = """
import json, sys, time
import polars as pl
from distilabel.steps import FormatTextGenerationDPO
rows = pl.read_parquet(sys.argv[1]).to_dicts()
step = FormatTextGenerationDPO()
step.load()
batches = [rows[i : i + 1000] for i in range(0, len(rows), 1000)]
started = time.perf_counter()
made = [row for batch in batches for out in step.process(batch) for row in out]
seconds = time.perf_counter() - started
same = sum(row["chosen"] == row["rejected"] for row in made)
equal = sum(row["chosen_rating"] == row["rejected_rating"] for row in made)
print(json.dumps({"rows": len(made), "seconds": seconds, "same": same, "equal": equal}))
"""
THEIR_PIPELINE: Final = """
import json, sys, time
import polars as pl
from distilabel.pipeline import Pipeline
from distilabel.steps import FormatTextGenerationDPO, LoadDataFromDicts
if __name__ == "__main__":
    rows = pl.read_parquet(sys.argv[1]).to_dicts()
    with Pipeline(name="pairs") as pipeline:
        LoadDataFromDicts(data=rows, batch_size=1000) >> FormatTextGenerationDPO(input_batch_size=1000)
    started = time.perf_counter()
    made = pipeline.run(use_cache=False)["default"]["train"].num_rows
    print(json.dumps({"rows": made, "seconds": time.perf_counter() - started}))
"""


def recipe(source: str = "rows.jsonl") -> dict[str, Any]:
    return {
        "name": "scale",
        "sources": [{"path": source, "name": "rows"}],
        "encoder": None, "rewards": [], "refusals": None, "policy": None,
        "pairs": {"strategies": ["best_vs_worst"], "score": "provided"},
        "publish": {"datasets": ["preference", "preference_unpaired", "reward"], "license": "cc0-1.0"},
    }  # fmt: skip


def make_tables(folder: str, prompts: int, words: int) -> None:
    """Tables inputs, prompts and candidates; ratings are whole numbers from 1 to 5, so that many tie."""
    from hashlib import sha256

    from curation.workspace import Workspace
    from schemas import TABLES

    workspace, rng = Workspace(folder), np.random.default_rng(0)
    vocabulary = pl.Series(WORDS)
    answers = prompts * ANSWERS
    texts = pl.DataFrame({"row": np.repeat(np.arange(answers, dtype=np.int32), words)}).with_columns(
        vocabulary.gather(rng.integers(0, len(WORDS), answers * words, dtype=np.int32)).alias("word")
    )
    texts = texts.group_by("row", maintain_order=True).agg(pl.col("word").str.join(" "))
    number = pl.int_range(pl.len())
    ids = [sha256(b"p%d" % i).hexdigest()[:32] for i in range(prompts)]
    question = pl.format("Question {}: what do you make of it, and why?", number)
    empty = TABLES["prompts"].create_empty()
    frame = pl.DataFrame({"prompt_id": ids}).select(
        "prompt_id",
        messages=pl.concat_list(pl.struct(role=pl.lit("user"), content=question)),
        source=pl.lit("rows"),
        category=pl.concat_str(pl.lit("c"), (number % 20).cast(pl.String)),
        expected_behaviour=pl.lit(None, pl.String),
        family_id="prompt_id",
        split=pl.when(number % 10 == 9).then(pl.lit("test")).otherwise(pl.lit("train")),
    )
    frame = frame.with_columns(pl.lit(None, t).alias(c) for c, t in empty.schema.items() if c not in frame.columns)
    workspace.overwrite("prompts", frame.select(empty.columns).cast(dict(empty.schema)))
    empty = TABLES["candidates"].create_empty()
    candidates = pl.DataFrame(
        {
            "candidate_id": [sha256(b"c%d" % i).hexdigest()[:32] for i in range(answers)],
            "prompt_id": pl.Series(ids).gather(np.repeat(np.arange(prompts), ANSWERS)),
            "response": texts["word"],
            "provided_score": rng.integers(1, 6, answers).astype(float),
        }
    ).with_columns(origin=pl.lit("provided"), occurrences=pl.lit(1, pl.Int64))
    missing = [pl.lit(None, t).alias(c) for c, t in empty.schema.items() if c not in candidates.columns]
    workspace.overwrite(
        "candidates", candidates.with_columns(missing).select(empty.columns).cast(dict(empty.schema))
    )
    grouped = candidates.group_by("prompt_id", maintain_order=True).agg(
        responses="response", candidate_ids="candidate_id", scores="provided_score"
    )
    empty = TABLES["inputs"].create_empty()
    inputs = grouped.join(frame.select("prompt_id", "messages", "category"), on="prompt_id", maintain_order="left")
    inputs = inputs.with_row_index("row").with_columns(
        input_id=pl.format("rows#{}", "row"), source=pl.lit("rows"), kind=pl.lit("responses")
    )
    missing = [pl.lit(None, t).alias(c) for c, t in empty.schema.items() if c not in inputs.columns]
    workspace.overwrite("inputs", inputs.with_columns(missing).select(empty.columns).cast(dict(empty.schema)))


def publish(folder: str) -> None:
    """Run the stages on the tables; prints what each took, as JSON."""
    started = time.perf_counter()
    from curation.pipeline import run_stage, stage_named
    from curation.recipe import Recipe
    from curation.stages.context import Context
    from curation.workspace import Workspace

    context = Context(Workspace(folder), Recipe.model_validate(recipe()))
    rows, seconds = {}, {"start": time.perf_counter() - started}
    for name in STAGES:
        before = time.perf_counter()
        result = run_stage(context, stage_named(name))
        assert result is not None
        rows[name], seconds[name] = result.rows, time.perf_counter() - before
    total = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"rows": rows, "seconds": seconds, "total": total, "peak": peak}))


def pair_rates(folder: str, python: str, prompts: int) -> None:
    """Rows per second of pair building, ours and distilabel's, on the same rows one after the other."""
    from curation.pairs.construction import build_pairs
    from curation.publish.formats import preference_frame
    from curation.workspace import Workspace

    workspace = Workspace(folder)
    frame = workspace.scan("prompts").head(prompts).collect()
    candidates = workspace.scan("candidates").head(prompts * ANSWERS).collect()
    rows = candidates.group_by("prompt_id", maintain_order=True).agg(
        generations="response", ratings="provided_score", generation_models=pl.lit("m").repeat_by(pl.len()).first()
    )
    rows = rows.join(frame.select("prompt_id", "messages"), on="prompt_id", maintain_order="left").with_columns(
        instruction=pl.col("messages").list.get(0).struct.field("content")
    )
    path = Path(folder, "rows.parquet")
    rows.select("instruction", "generations", "ratings", "generation_models").write_parquet(path)
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        built = build_pairs(candidates, score="provided_score")
        unknown = (pl.lit(None, pl.Float64).alias(c) for c in ("strength_mean", "chosen_logp", "rejected_logp"))
        scores = built.pairs.select("pair_id", *unknown)
        made = preference_frame(pairs=built.pairs, prompts=frame, candidates=candidates, pair_scores=scores)
        seconds.append(time.perf_counter() - started)
    ours = sorted(seconds)[1]
    same, ties = made.filter(pl.col("chosen") == pl.col("rejected")).height, (made["margin"] == 0).sum()
    done = subprocess.run([python, "-c", THEIRS, str(path)], capture_output=True, text=True, check=True)
    theirs = json.loads(done.stdout.splitlines()[-1])
    # Its worker processes import the main module again, so this one has to be a file.
    script = Path(folder, "pipeline.py")
    script.write_text(THEIR_PIPELINE)
    done = subprocess.run([python, str(script), str(path)], capture_output=True, text=True, check=True)
    pipeline = json.loads(done.stdout.splitlines()[-1])
    rate, their_rate = prompts / ours, prompts / theirs["seconds"]
    print(
        "\n| pair building | prompts | pairs | prompts/s | chosen == rejected | equal ratings |\n"
        "|---|---|---|---|---|---|"
    )
    print(f"| this package (median of 3) | {prompts:,} | {made.height:,} | {rate:,.0f} | {same / made.height:.2%} "
          f"| {ties / made.height:.2%} |")  # fmt: skip
    print(f"| distilabel FormatTextGenerationDPO | {prompts:,} | {theirs['rows']:,} | {their_rate:,.0f} "
          f"| {theirs['same'] / theirs['rows']:.2%} | {theirs['equal'] / theirs['rows']:.2%} |")  # fmt: skip
    pipeline_rate = prompts / pipeline["seconds"]
    print(f"| the same in a distilabel Pipeline | {prompts:,} | {pipeline['rows']:,} | {pipeline_rate:,.0f} | | |")
    given = f"{prompts:,} prompts x {ANSWERS} answers; distilabel 1.5.3"
    for peer, theirs_a_second, goal in (
        ("distilabel, in a Pipeline", pipeline_rate, 50), ("distilabel, the bare step", their_rate, None)
    ):  # fmt: skip
        FIGURES.add(
            "building pairs", rate, "prompts/s", peer=peer, peer_value=theirs_a_second, better="higher",
            ratio_at_least=goal, conditions=given,
        )  # fmt: skip
    print(f"\n{rate / their_rate:.1f} times the bare step, {rate / pipeline_rate:.0f} times the pipeline")


def child(*arguments: str) -> str:
    done = subprocess.run([sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=100_000)
    parser.add_argument("--words", type=int, default=50, help="words of an answer")
    parser.add_argument("--distilabel", help="a Python with distilabel 1.5.3; .venv-distilabel where it is there")
    parser.add_argument("--compared", type=int, default=20_000, help="prompts for the comparison")
    parser.add_argument("--tables", help="keep the tables there, or take those that are there")
    parser.add_argument("--step", choices=["make", "publish"], help=argparse.SUPPRESS)
    parser.add_argument("--data", help="not used: the rows are drawn")
    options = parser.parse_args()
    if options.step:
        make = options.step == "make"
        make_tables(options.tables, options.prompts, options.words) if make else publish(options.tables)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.tables or temporary
        if not Path(folder, "workspace.json").exists():
            child(
                "--step",
                "make",
                "--tables",
                folder,
                "--prompts",
                str(options.prompts),
                "--words",
                str(options.words),
            )
        found = json.loads(child("--step", "publish", "--tables", folder))
        print(f"polars {pl.__version__}, Python {platform.python_version()}, {pl.thread_pool_size()} threads\n")
        print(f"{options.prompts:,} prompts with {ANSWERS} answers of {options.words} words\n")
        print("| stage | rows | seconds |\n|---|---|---|")
        for name, seconds in found["seconds"].items():
            print(f"| {name} | {found['rows'].get(name, 0):,} | {seconds:.1f} |")
        print(f"| **all** | | **{found['total']:.1f}** |\n\npeak memory {found['peak']:.2f} GiB")
        size = f"{options.prompts:,} prompts x {ANSWERS} answers"
        small, large = options.prompts <= 100_000, options.prompts <= 1_000_000
        FIGURES.add(
            f"tables to published datasets, {size}", found["total"], "s",
            at_most=15 if small else 180 if large else None, conditions="DPO, KTO and reward, with cards",
        )  # fmt: skip
        FIGURES.add(
            f"peak memory of it, {size}", found["peak"], "GiB", at_most=3 if small else 8 if large else None
        )
        theirs = options.distilabel or str(ROOT / ".venv-distilabel" / "bin" / "python")
        if options.distilabel or Path(theirs).exists():
            pair_rates(folder, theirs, min(options.compared, options.prompts))


if __name__ == "__main__":
    main()
    FIGURES.write()

"""Does CHES say which pairs push the chosen answer down? DPO on real pairs, with TRL, by deciles and by halves.

    python benchmarks/ches_displacement.py --data ../shared/data [--policy embedded] [--seeds 3]

Needs ``trl`` (not a dependency of this project): ``pip install trl``.

Single pairs: for each seed some pairs from every decile of length-normalised CHES; each one is trained on alone,
from the same weights, and the change of its chosen answer's log-probability is measured. Groups: for each seed
as many pairs from the lowest half, from all, and from the highest half, one pass each.
"""

from __future__ import annotations

import argparse
import copy
import gzip
import json
import logging
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
import transformers
from _figures import FIGURES, needs, shared_data
from scipy import stats as scipy_stats

from curation.models.policy import PolicyStats, open_policy
from curation.prompts.rows import normalise
from curation.prompts.shapes import resolve
from curation.scores.ches import pair_scores_from_stats

MEASURES = {
    "length-normalised CHES": "ln_ches",
    "CHES": "ches",
    "1 − normalised edit distance": "edit_similarity",
    "last-hidden inner product": "last_hidden",
    "chosen tokens": "chosen_tokens",
}


def read_pairs(data: Path, rows: int, seed: int) -> pl.DataFrame:
    with gzip.open(data / "hh_harmless" / "test.jsonl.gz", "rt") as file:
        frame = pl.DataFrame([json.loads(line) for line in file])
    pairs, _ = normalise(frame, resolve(frame, name="hh_harmless", shapes=("pair",)))
    return pairs.sample(rows, seed=seed, shuffle=True)


def scored(policy: Any, pairs: pl.DataFrame, longest: int) -> pl.DataFrame:
    """The pairs whose two texts are short enough, with all measures."""
    answers = [list(two) for two in zip(pairs["chosen"], pairs["rejected"], strict=True)]
    rows = []
    for stats in policy.stats(pairs["prompt"].to_list(), answers):
        if isinstance(stats, PolicyStats) and not stats.faults:
            scores = pair_scores_from_stats(stats, [0], [1])
            row = {name: float(getattr(scores, name)[0]) for name in
                   ("ches", "ln_ches", "last_hidden", "edit_distance", "chosen_logp", "chosen_tokens")}  # fmt: skip
            length = stats.prompt_tokens + int(stats.tokens.max())
            rows.append(row | {"edit_similarity": 1 - row.pop("edit_distance"), "length": length})
        else:
            rows.append({"length": longest + 1})
    return pl.concat([pairs, pl.DataFrame(rows)], how="horizontal").filter(pl.col("length") <= longest)


def chosen_logps(policy: Any, model: Any, pairs: pl.DataFrame) -> np.ndarray:
    """log π(chosen | prompt) under a trained copy of the policy's model."""
    policy.model.load_state_dict(model.state_dict())
    answers = [[chosen] for chosen in pairs["chosen"]]
    return np.array([float(s.logps[0]) for s in policy.stats(pairs["prompt"].to_list(), answers)])


class Training:
    """TRL's DPOTrainer over some pairs, run again and again from the same weights."""

    def __init__(self, start: Any, tokenizer: Any, pairs: pl.DataFrame, *, rate: float, batch: int) -> None:
        from datasets import Dataset
        from trl import DPOConfig, DPOTrainer

        rows = [
            {"prompt": row["prompt"], "chosen": [{"role": "assistant", "content": row["chosen"]}],
             "rejected": [{"role": "assistant", "content": row["rejected"]}]}
            for row in pairs.iter_rows(named=True)
        ]  # fmt: skip
        options = DPOConfig(
            output_dir=tempfile.mkdtemp(), per_device_train_batch_size=batch, learning_rate=rate,
            lr_scheduler_type="constant", warmup_steps=0, beta=0.1, report_to="none", save_strategy="no",
            logging_strategy="no", use_cpu=not torch.cuda.is_available(), bf16=False, max_length=None,
            gradient_checkpointing=False, disable_tqdm=True, optim="rmsprop",
        )  # fmt: skip
        self._start = start.state_dict()
        self._trainer = DPOTrainer(
            model=copy.deepcopy(start),
            args=options,
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
        )
        self._trainer.remove_callback(transformers.PrinterCallback)
        self._rows = self._trainer.train_dataset

    def run(self, chosen: list[int], *, steps: int, seed: int) -> Any:
        """The model after some steps of DPO on some of the pairs, from the same weights each time."""
        trainer = self._trainer
        trainer.model.load_state_dict(self._start)
        trainer.optimizer = trainer.lr_scheduler = None
        trainer.args.max_steps, trainer.args.seed, trainer.args.data_seed = steps, seed, seed
        trainer.train_dataset = self._rows.select(chosen)
        trainer.train()
        return trainer.model.eval()


def rank_correlation(name: str, frame: pl.DataFrame, fall: str, seed: int) -> dict[str, Any]:
    """Spearman's ρ of a measure with the fall of the chosen answer: per seed, and pooled with a bootstrap."""
    column = MEASURES[name]
    per_seed = [
        float(scipy_stats.spearmanr(part[column], part[fall]).statistic)
        for part in frame.partition_by("seed", maintain_order=True)
    ]
    draw = np.random.default_rng(seed)
    x, y = frame[column].to_numpy(), frame[fall].to_numpy()
    again = [
        float(scipy_stats.spearmanr(x[picked], y[picked]).statistic)
        for picked in (draw.integers(0, len(x), len(x)) for _ in range(2000))
    ]
    low, high = np.nanpercentile(again, [2.5, 97.5])
    pooled = float(scipy_stats.spearmanr(x, y).statistic)
    return {"measure": name, "pooled": pooled, "low": low, "high": high, "seeds": per_seed}


def singles(policy: Any, start: Any, tokenizer: Any, pairs: pl.DataFrame, arguments: Any) -> pl.DataFrame:
    ranked = (
        pairs.sort("ln_ches")
        .with_row_index("rank")
        .with_columns(decile=(pl.col("rank") * 10 // pairs.height).cast(pl.Int64))
    )
    picked = pl.concat([
        part.sample(arguments.per_decile, seed=seed + 100).with_columns(seed=pl.lit(seed))
        for seed in range(arguments.seeds)
        for part in ranked.partition_by("decile", maintain_order=True)
    ])  # fmt: skip
    training = Training(start, tokenizer, picked, rate=arguments.rate, batch=1)
    before = chosen_logps(policy, start, picked)
    after = np.array([
        chosen_logps(policy, training.run([i], steps=arguments.steps, seed=0), picked[i : i + 1])[0]
        for i in range(picked.height)
    ])  # fmt: skip
    fall = before - after
    return picked.with_columns(fall=fall, fall_per_token=fall / picked["chosen_tokens"].to_numpy())


def groups(policy: Any, start: Any, tokenizer: Any, pairs: pl.DataFrame, arguments: Any) -> pl.DataFrame:
    ranked = pairs.sort("ln_ches")
    half = ranked.height // 2
    pools = {"lowest half": range(half), "random": range(ranked.height), "highest half": range(half, ranked.height)}
    training = Training(start, tokenizer, ranked, rate=arguments.group_rate, batch=4)
    rows = []
    for seed in range(arguments.seeds):
        draw = np.random.default_rng(seed)
        for name, pool in pools.items():
            size = min(arguments.group, len(pool))
            places = [int(i) for i in draw.choice(np.array(pool), size=size, replace=False)]
            model = training.run(places, steps=-(-size // 4), seed=seed)
            part = ranked[places]
            change = chosen_logps(policy, model, part) - chosen_logps(policy, start, part)
            rows.append({"pairs": name, "seed": seed, "change": change.mean(), "fell": (change < 0).mean(),
                         "per_token": (change / part["chosen_tokens"].to_numpy()).mean()})  # fmt: skip
    return pl.DataFrame(rows)


def show_singles(single: pl.DataFrame, arguments: Any) -> None:
    for fall, label in (("fall", "the chosen answer's log-probability"), ("fall_per_token", "the same per token")):
        print(
            f"\nSpearman's ρ with the fall of {label} (positive: predicts displacement), "
            f"{single.height} single pairs, {arguments.steps} steps\n"
        )
        print("| measure | ρ pooled | 95 % bootstrap | ρ per seed |\n|---|---|---|---|")
        for name in MEASURES:
            r = rank_correlation(name, single, fall, 0)
            if fall == "fall":
                interval = f"95 % {r['low']:.2f} to {r['high']:.2f}; {single.height} pairs trained on alone"
                FIGURES.add(
                    f"rank correlation of {name} with displacement", r["pooled"], "rho", conditions=interval
                )
            per_seed = ", ".join(f"{s:.2f}" for s in r["seeds"])
            print(f"| {name} | {r['pooled']:.2f} | {r['low']:.2f} to {r['high']:.2f} | {per_seed} |")
    print("\n| decile of length-normalised CHES | pairs | median change of log π(chosen) | share that fell |")
    print("|---|---|---|---|")
    for part in single.sort("decile").partition_by("decile", maintain_order=True):
        print(
            f"| {part['decile'][0] + 1} | {part.height} | {-part['fall'].median():+.3f} | "
            f"{(part['fall'] > 0).mean():.0%} |"
        )


def show_groups(grouped: pl.DataFrame) -> None:
    print(
        "\n| trained on | change of log π(chosen), mean over pairs: per seed | mean ± sd over seeds | per token | "
        "share that fell |\n|---|---|---|---|---|"
    )
    for part in grouped.partition_by("pairs", maintain_order=True):
        per_seed = ", ".join(f"{c:+.2f}" for c in part["change"])
        spread = part["change"].std() or 0.0
        FIGURES.add(
            f"change of log pi(chosen), trained on {part['pairs'][0]}", float(part["change"].mean()), "nats",
            conditions=f"{part.height} seeds, sd {spread:.2f}",
        )  # fmt: skip
        print(
            f"| {part['pairs'][0]} | {per_seed} | {part['change'].mean():+.2f} ± {spread:.2f} | "
            f"{part['per_token'].mean():+.3f} | {part['fell'].mean():.0%} |"
        )


def main() -> None:
    needs("trl", install="pip install trl")
    import trl

    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path)
    parser.add_argument("--policy", default="embedded")
    parser.add_argument("--rows", type=int, default=600)
    parser.add_argument("--longest", type=int, default=256, help="tokens of prompt and answer together")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--per-decile", type=int, default=4)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rate", type=float, default=1e-4)
    parser.add_argument("--group", type=int, default=64)
    parser.add_argument("--group-rate", type=float, default=1e-4)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    arguments.data = shared_data(arguments.data)
    FIGURES.packages.extend(["transformers", "trl"])
    torch.set_num_threads(arguments.threads)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("datasets").setLevel(logging.ERROR)
    import datasets

    datasets.disable_progress_bars()
    warnings.filterwarnings("ignore")
    began = time.perf_counter()
    policy: Any = open_policy(arguments.policy)
    start = copy.deepcopy(policy.model)
    start.set_attn_implementation("sdpa")
    tokenizer = transformers.AutoTokenizer.from_pretrained(policy.model.name_or_path)
    pairs = scored(policy, read_pairs(arguments.data, arguments.rows, 0), arguments.longest)
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, trl {trl.__version__}; policy "
          f"{policy.fingerprint}, {sum(p.numel() for p in start.parameters()) / 1e6:.1f} M parameters; "
          f"{pairs.height} pairs of hh_harmless of at most {arguments.longest} tokens; DPO, beta 0.1, RMSprop, "
          f"rate {arguments.rate:g} (groups {arguments.group_rate:g}, {arguments.group} pairs, batches of 4)\n",
          flush=True)  # fmt: skip
    single = singles(policy, start, tokenizer, pairs, arguments)
    show_singles(single, arguments)
    show_groups(groups(policy, start, tokenizer, pairs, arguments))
    print(f"\n{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
    FIGURES.write()

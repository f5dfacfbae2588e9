"""Strength against people: the five levels of tulu1_human_eval, and the ties of pandalm.

    .venv/bin/python benchmarks/strength_human.py [--data DIR]

Heads are trained on the decided pairs of both sets and cross-fitted by prompt, so every strength here is from heads
that have not seen the prompt; ties are in no fit. The bundled heads have seen four fifths of both sets, so they are
not used.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import polars as pl
from _figures import FIGURES, shared_data
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from curation.embedded.reward_data import read_pairs, read_tulu_judgements
from curation.models.encoder import open_encoder
from curation.models.rewards.heads import HeadsReward
from curation.scores.strength import preference_strength
from curation.scores.training import TrainingOptions, train_heads


def strength(model: HeadsReward, prompts: list[str], first: list[str], second: list[str]) -> pl.DataFrame:
    """Strength of second over first, a row a pair, out of fold."""
    messages = [[{"role": "user", "content": text}] for text in prompts]
    rewards = [model.score(messages, answers).tolist() for answers in (second, first)]
    frame = pl.DataFrame({"chosen_rewards": rewards[0], "rejected_rewards": rewards[1]})
    return preference_strength(frame).frame


def interval(first: np.ndarray, second: np.ndarray, draws: int = 1000) -> tuple[float, float]:
    """95 % bootstrap interval of Spearman's correlation, over rows."""
    random = np.random.default_rng(0)
    found = []
    for _ in range(draws):
        rows = random.integers(0, len(first), len(first))
        found.append(spearmanr(first[rows], second[rows]).statistic)
    return float(np.quantile(found, 0.025)), float(np.quantile(found, 0.975))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    options = parser.parse_args()
    options.data = shared_data(options.data)
    encoder = open_encoder("embedded", device="cpu")
    pairs = read_pairs(options.data, ["pandalm", "tulu1_human_eval"])
    trained = train_heads(
        pairs["prompt"].to_list(), pairs["chosen"].to_list(), pairs["rejected"].to_list(),
        encoder=encoder, encoder_name="embedded", options=TrainingOptions(heads=10),
    )  # fmt: skip
    model = HeadsReward(trained.heads, encoder, fingerprint="benchmark")
    print(f"{pairs.height} decided pairs, 10 heads, 5 folds; agreement with people out of fold "
          f"{trained.accuracy:.3f}, the longer answer {trained.length_accuracy:.3f}\n")  # fmt: skip
    tulu(model, read_tulu_judgements(options.data))
    pandalm(model, json.loads((options.data / "pandalm" / "testset-v1.json").read_text(encoding="utf-8")))


def tulu(model: HeadsReward, judgements: pl.DataFrame) -> None:
    rows = judgements.sort("instance_id", "evaluator")
    asked, first, second = (rows[name].to_list() for name in ("prompt", "completion_a", "completion_b"))
    found = strength(model, asked, first, second)
    levels, mean = rows["level"].to_numpy(), found["strength_mean"].to_numpy()
    length = np.array([len(b) - len(a) for a, b in zip(first, second, strict=True)], dtype=np.float64)
    for name, values in (("strength", mean), ("length difference", length)):
        low, high = interval(levels, values)
        correlation = float(spearmanr(levels, values).statistic)
        given = f"{len(levels)} judgements of tulu1_human_eval, 95 % {low:.3f} to {high:.3f}"
        FIGURES.add(f"{name} against people's five levels", correlation, "rho", conditions=given)
        print(f"tulu1_human_eval, {len(levels)} judgements: Spearman of {name} with the five levels "
              f"{spearmanr(levels, values).statistic:.3f} (95 % {low:.3f} to {high:.3f})")  # fmt: skip
    print("\n| people say of b against a | judgements | mean strength of b |\n|---|---|---|")
    words = {-2: "worse", -1: "slightly worse", 0: "tie", 1: "slightly better", 2: "better"}
    for level, word in words.items():
        print(f"| {word} | {(levels == level).sum()} | {mean[levels == level].mean():+.2f} |")
    print()


def pandalm(model: HeadsReward, rows: list[dict[str, object]]) -> None:
    votes = [[row[f"annotator{n}"] for n in (1, 2, 3)] for row in rows]
    asked = [str(row["instruction"]) + (f"\n\n{row['input']}" if row["input"] else "") for row in rows]
    found = strength(model, asked, [str(row["response1"]) for row in rows], [str(row["response2"]) for row in rows])
    tie = np.array([vote.count(0) >= 2 for vote in votes])
    certain = found["strength_mean"].abs().to_numpy()
    half = np.abs(found["agreement"].to_numpy() - 0.5)
    print(f"pandalm, {len(rows)} pairs, {tie.sum()} ties by majority of three votes; chance is 0.500\n")
    print("| tie detector | ROC AUC | ties among the least certain tenth |\n|---|---|---|")
    for name, score in {
        "small |strength_mean|": -certain,
        "little agreement of the heads": -half,
        "small |length difference|": -np.array(
            [abs(len(str(row["response1"])) - len(str(row["response2"]))) for row in rows], dtype=np.float64
        ),
    }.items():
        most = np.argsort(-score, kind="stable")[: len(score) // 10]
        FIGURES.add(f"finding ties by {name}", float(roc_auc_score(tie, score)), "ROC AUC", conditions="pandalm")
        print(f"| {name} | {roc_auc_score(tie, score):.3f} | {tie[most].mean():.3f} (of all: {tie.mean():.3f}) |")


if __name__ == "__main__":
    main()
    FIGURES.write()

"""Label noise on UltraFeedback pairs: finding the flipped rows, and what cleaning is worth.

    .venv/bin/python benchmarks/label_noise.py [--data DIR] [--seeds 10]

The flags are read after everything is fitted, for scoring alone.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path

import numpy as np
import polars as pl
import sklearn
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from curation.models.encoder import SentenceEncoder, open_encoder
from curation.models.rewards.heads import features
from curation.scores.bradley_terry import fit_bradley_terry
from curation.scores.ensemble import feature_penalty, make_folds
from curation.scores.label_noise import label_noise
from curation.text import content_hash


def read(path: Path) -> tuple[pl.DataFrame, np.ndarray]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    frame = pl.DataFrame([{name: row[name] for name in ("prompt", "chosen", "rejected")} for row in rows])
    return frame, np.array([row.get("metadata", {}).get("noise", {}).get("selected", False) for row in rows])


def baseline(frame: pl.DataFrame, encoder: SentenceEncoder, *, length_only: bool) -> np.ndarray:
    """Cross-validated logistic regression on embedding differences and length: P(label right)."""
    chosen, rejected = frame["chosen"].to_list(), frame["rejected"].to_list()
    length = np.array([[np.log1p(len(c)) - np.log1p(len(r))] for c, r in zip(chosen, rejected, strict=True)])
    if not length_only:
        vectors = encoder.encode([*chosen, *rejected]).vectors
        length = np.hstack([vectors[: len(chosen)] - vectors[len(chosen) :], length])
    folds = make_folds([content_hash(prompt) for prompt in frame["prompt"]], 5, 0)
    found = np.empty(len(length))
    for fold in range(5):
        out = folds == fold
        seen = np.vstack([length[~out], -length[~out]])
        labels = np.r_[np.ones((~out).sum()), np.zeros((~out).sum())]
        model = LogisticRegression(fit_intercept=False, max_iter=1000).fit(seen, labels)
        found[out] = model.predict_proba(length[out])[:, 1]
    return found


def cleaning(
    noisy: np.ndarray, clean: np.ndarray, probability: np.ndarray, dimension: int, seeds: int
) -> dict[str, list[float]]:
    """Accuracy on held-out clean pairs of heads trained on noisy, cleaned and clean labels, per seed."""
    accuracy: dict[str, list[float]] = {"flipped": [], "cleaned": [], "clean": []}
    penalty = feature_penalty(clean, dimension, 200.0)
    for seed in range(seeds):
        order = np.random.default_rng(seed).permutation(len(clean))
        train, test = order[: len(order) * 4 // 5], order[len(order) * 4 // 5 :]
        heads = {
            "flipped": fit_bradley_terry(noisy[train], penalty=penalty),
            "cleaned": fit_bradley_terry(noisy[train], penalty=penalty, targets=probability[train]),
            "clean": fit_bradley_terry(clean[train], penalty=penalty),
        }
        for name, head in heads.items():
            margin = clean[test] @ head
            accuracy[name].append(float((margin > 0).mean() + 0.5 * (margin == 0).mean()))
    return accuracy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[1].parent / "shared/data")
    parser.add_argument("--seeds", type=int, default=10)
    options = parser.parse_args()
    folder = options.data / "ultrafeedback_noise"
    noisy, flipped = read(folder / "label_flip_20.jsonl")
    clean, _ = read(folder / "clean.jsonl")
    encoder = open_encoder("embedded", device="cpu")
    started = time.perf_counter()
    result = label_noise(noisy, encoder=encoder)
    seconds = time.perf_counter() - started
    probability = result.frame["label_probability"].to_numpy()
    length = baseline(noisy, encoder, length_only=True)
    simple = baseline(noisy, encoder, length_only=False)
    print(
        f"python {platform.python_version()}, numpy {np.__version__}, scikit-learn {sklearn.__version__}; ", end=""
    )
    print(f"{len(noisy)} rows, {flipped.sum()} flipped; {seconds:.0f} s\n")
    print("| finder | ROC AUC | flipped in the lowest decile |\n|---|---|---|")
    for name, score in {"length": length, "MiniLM + length": simple, "label_noise": probability}.items():
        lowest = np.argsort(score, kind="stable")[: len(score) // 10]
        print(f"| {name} | {roc_auc_score(~flipped, score):.3f} | {flipped[lowest].mean():.2f} |")
    print(f"\nused: {'; '.join(result.used)}; estimated share of right labels {result.right_share:.3f}\n")
    differences = []
    for frame in (noisy, clean):
        prompts = frame["prompt"].to_list()
        both = [features(prompts, frame[name].to_list(), encoder).values for name in ("chosen", "rejected")]
        differences.append(both[0] - both[1])
    accuracy = cleaning(differences[0], differences[1], probability, encoder.dimension, options.seeds)
    print(
        f"| heads trained on | accuracy on held-out clean pairs, {options.seeds} seeds | 95 % interval |\n"
        "|---|---|---|"
    )
    for name, values in accuracy.items():
        half = 1.96 * np.std(values, ddof=1) / np.sqrt(len(values))
        print(f"| {name} | {np.mean(values):.3f} | ± {half:.3f} |")
    cost = np.mean(accuracy["clean"]) - np.mean(accuracy["flipped"])
    gain = np.mean(accuracy["cleaned"]) - np.mean(accuracy["flipped"])
    print(f"\nthe noise cost {cost:.3f}; cleaning (soft labels) won {gain:+.3f} back")


if __name__ == "__main__":
    main()

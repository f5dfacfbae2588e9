"""Label noise on UltraFeedback pairs: finding the flipped rows, and what cleaning is worth.

    .venv/bin/python benchmarks/label_noise.py [--seeds 10] [--rates 0.1 0.2 0.3 0.4] [--language-model MODEL]

With a language model (``benchmarks/_smollm2.py`` makes a small one), label noise has it as a witness throughout.

The flags are read after everything is fitted, for scoring alone. Other flip rates are drawn anew from the clean
file, which nothing else reads.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import sklearn
from _figures import FIGURES, shared_data
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from curation.models.answer_states import open_answer_states
from curation.models.encoder import SentenceEncoder, open_encoder
from curation.models.identity import EMBEDDED_DIR
from curation.models.protocols import AnswerReader, AnswerStates, Encoded, Fault
from curation.models.rewards.heads import read_heads
from curation.scores.bradley_terry import fit_bradley_terry
from curation.scores.ensemble import make_folds
from curation.scores.label_noise import label_noise
from curation.scores.noise_features import pair_differences, state_differences
from curation.text import Message, as_messages, canonical_json, content_hash

FLIP_SEEDS = 2


class Remembering:
    """The encoder, so that a text is encoded once in the whole benchmark."""

    def __init__(self, encoder: SentenceEncoder) -> None:
        self.encoder = encoder
        self.fingerprint, self.dimension = encoder.fingerprint, encoder.dimension
        self.known: dict[str, np.ndarray] = {}

    def encode(self, texts: Sequence[str]) -> Encoded:
        new = [text for text in dict.fromkeys(texts) if text not in self.known]
        if new:
            self.known.update(zip(new, self.encoder.encode(new).vectors, strict=True))
        return Encoded(np.array([self.known[text] for text in texts]), np.zeros(len(texts), dtype=bool))


class Read:
    """The language model, so that an answer is read once in the whole benchmark."""

    def __init__(self, reader: AnswerReader) -> None:
        self.reader, self.fingerprint = reader, reader.fingerprint
        self.known: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def states(self, prompts: Sequence[Sequence[Message]], responses: Sequence[str]) -> AnswerStates:
        keys = [content_hash(canonical_json(list(p)), r) for p, r in zip(prompts, responses, strict=True)]
        new = [row for row, key in enumerate(keys) if key not in self.known]
        if new:
            found = self.reader.states([prompts[row] for row in new], [responses[row] for row in new])
            self.known.update(zip((keys[row] for row in new), zip(found.end, found.mean, strict=True), strict=True))
        end, mean = (np.array([self.known[key][part] for key in keys]) for part in (0, 1))
        unread = np.flatnonzero(np.isnan(end).any(axis=1)).tolist()
        return AnswerStates(end, mean, {row: Fault("unread", "", "see the first reading") for row in unread})


def read(path: Path) -> tuple[pl.DataFrame, np.ndarray]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    frame = pl.DataFrame([{name: row[name] for name in ("prompt", "chosen", "rejected")} for row in rows])
    return frame, np.array([row.get("metadata", {}).get("noise", {}).get("selected", False) for row in rows])


def flip(frame: pl.DataFrame, flipped: np.ndarray) -> pl.DataFrame:
    swap = pl.Series(flipped)
    return frame.with_columns(
        chosen=pl.when(swap).then("rejected").otherwise("chosen"),
        rejected=pl.when(swap).then("chosen").otherwise("rejected"),
    )


def lengths(frame: pl.DataFrame) -> np.ndarray:
    """(pairs, 2) characters of chosen and rejected."""
    return np.array([[len(c), len(r)] for c, r in frame.select("chosen", "rejected").iter_rows()], dtype=np.float64)


def regression(frame: pl.DataFrame, encoder: Remembering, length: np.ndarray) -> np.ndarray:
    """Cross-validated logistic regression on MiniLM differences and a length difference, (pairs,) log-odds.

    Both orders of each pair are in the fit and there is no intercept; C = 1, nothing is standardised.
    """
    chosen, rejected = frame["chosen"].to_list(), frame["rejected"].to_list()
    vectors = encoder.encode([*chosen, *rejected]).vectors
    design = np.hstack([vectors[: len(chosen)] - vectors[len(chosen) :], length[:, None]])
    folds = make_folds([content_hash(prompt) for prompt in frame["prompt"]], 5, 0)
    found = np.empty(len(design))
    for fold in range(5):
        out = folds == fold
        seen = np.vstack([design[~out], -design[~out]])
        labels = np.r_[np.ones((~out).sum()), np.zeros((~out).sum())]
        model = LogisticRegression(fit_intercept=False, max_iter=1000).fit(seen, labels)
        found[out] = design[out] @ model.coef_[0]
    return found


def finders(frame: pl.DataFrame, encoder: Remembering, model: Read | None) -> dict[str, np.ndarray]:
    """Every finder's score, higher for right labels. No flag is known here."""
    sizes = lengths(frame)
    characters = sizes[:, 0] - sizes[:, 1]
    ratio = np.log1p(sizes[:, 0]) - np.log1p(sizes[:, 1])
    found = {
        "length ratio (no fit)": ratio,
        "length difference in characters (no fit)": characters,
        "logistic regression, MiniLM + length ratio": regression(frame, encoder, ratio),
        "logistic regression, MiniLM + characters / 1,000": regression(frame, encoder, characters / 1000),
    }
    runs: list[tuple[str, str | None, Read | None]] = [
        ("label_noise without ready heads", None, None),
        ("label_noise", "embedded", None),
    ]
    runs += [("label_noise with a language model", "embedded", model)] if model else []
    for name, prior, reader in runs:
        started = time.process_time()
        result = label_noise(frame, encoder=encoder, prior=prior, language_model=reader)
        found[name] = result.frame["label_probability"].to_numpy()
        share = result.right_share
        print(f"{name}: {time.process_time() - started:.0f} s of processor time beside the encoder; estimated "
              f"share of right labels {share:.3f}, confident learning {1 - result.confident.noise_rate:.3f}; used: "
              f"{'; '.join(result.used)}\n")  # fmt: skip
    return found


def table(found: dict[str, np.ndarray], flipped: np.ndarray) -> None:
    area = {name: float(roc_auc_score(~flipped, score)) for name, score in found.items()}
    alone = max(value for name, value in area.items() if name.endswith("(no fit)"))
    FIGURES.add(
        "finding flipped labels, 20 % flipped", area["label_noise"], "ROC AUC", peer="length alone",
        peer_value=alone, better="higher", at_least=0.72,
        conditions="UltraFeedback, 1,000 pairs",
    )  # fmt: skip
    if "label_noise with a language model" in area:
        FIGURES.add(
            "finding flipped labels, 20 % flipped, with a language model of 135M parameters",
            area["label_noise with a language model"], "ROC AUC", peer="without it", peer_value=area["label_noise"],
            better="higher", at_least=0.72, conditions="UltraFeedback, 1,000 pairs; SmolLM2-135M-Instruct",
        )  # fmt: skip
    print("| finder | ROC AUC | flipped in the lowest decile | agrees with the given labels |\n|---|---|---|---|")
    for name, score in found.items():
        lowest = np.argsort(score, kind="stable")[: len(score) // 10]
        centre = 0.5 if score.min() >= 0 and score.max() <= 1 else 0.0
        print(f"| {name} | {roc_auc_score(~flipped, score):.3f} | {flipped[lowest].mean():.2f} "
              f"| {(score > centre).mean():.3f} |")  # fmt: skip
    print(flush=True)


def other_rates(clean: pl.DataFrame, encoder: Remembering, rates: Sequence[float], model: Read | None) -> None:
    print(
        f"| flip rate | ROC AUC, mean of {FLIP_SEEDS} draws | lowest | highest | estimated rate |\n"
        "|---|---|---|---|---|"
    )
    for rate in rates:
        areas, shares = [], []
        for seed in range(FLIP_SEEDS):
            flipped = np.random.default_rng(seed).random(clean.height) < rate
            result = label_noise(flip(clean, flipped), encoder=encoder, language_model=model)
            areas.append(roc_auc_score(~flipped, result.frame["label_probability"]))
            shares.append(1 - result.right_share)
        means = f"{np.mean(areas):.3f} | {min(areas):.3f} | {max(areas):.3f} | {np.mean(shares):.2f}"
        print(f"| {rate:.0%} | {means} |", flush=True)
    print()


def design(frame: pl.DataFrame, encoder: Remembering, model: Read | None) -> np.ndarray:
    """All differences that label noise looks at, each block of mean square 1 over a row."""
    prompts = frame["prompt"].to_list()
    found = pair_differences(
        prompts, frame["chosen"].to_list(), frame["rejected"].to_list(), encoder=encoder,
        heads=read_heads(EMBEDDED_DIR / "rewards"), prompt_ids=prompts,
    )  # fmt: skip
    blocks = dict(found.blocks)
    if model:
        asked = [as_messages(prompt) for prompt in prompts]
        blocks |= state_differences(asked, frame["chosen"].to_list(), frame["rejected"].to_list(), reader=model)[0]
    return np.hstack([block / np.sqrt((block**2).sum(axis=1).mean()) for block in blocks.values()])


def cleaning(
    frame: pl.DataFrame, clean: pl.DataFrame, flipped: np.ndarray, encoder: Remembering, seeds: int,
    model: Read | None,
) -> None:  # fmt: skip
    """Accuracy on held-out clean pairs of heads trained on flipped, cleaned and clean labels, per seed.

    The cleaned labels come from label noise fitted to the flipped training rows alone; held-out rows are in no fit.
    """
    truth = design(clean, encoder, model)
    sign = np.where(flipped, -1.0, 1.0)[:, None]
    accuracy: dict[str, list[float]] = {
        name: [] for name in ("flipped", "soft labels", "dropped", "flipped back", "clean")
    }
    for seed in range(seeds):
        order = np.random.default_rng(seed).permutation(len(truth))
        train, test = order[: len(order) * 4 // 5], order[len(order) * 4 // 5 :]
        found = label_noise(frame[train], encoder=encoder, seed=seed, language_model=model)
        right = found.frame["label_probability"].to_numpy()
        noisy = truth[train] * sign[train]
        keep = right >= 0.5
        turn = np.where(right < 0.5, -1.0, 1.0)[:, None]
        heads = {
            "flipped": fit_bradley_terry(noisy, penalty=1.0),
            "soft labels": fit_bradley_terry(noisy, penalty=1.0, targets=right),
            "dropped": fit_bradley_terry(noisy[keep], penalty=1.0),
            "flipped back": fit_bradley_terry(noisy * turn, penalty=1.0),
            "clean": fit_bradley_terry(truth[train], penalty=1.0),
        }
        for name, head in heads.items():
            margin = truth[test] @ head
            accuracy[name].append(float((margin > 0).mean() + 0.5 * (margin == 0).mean()))
    print(
        f"| heads trained on | accuracy on held-out clean pairs, {seeds} seeds | 95 % interval | won back |\n"
        "|---|---|---|---|"
    )
    cost = np.array(accuracy["clean"]) - np.array(accuracy["flipped"])
    for name, values in accuracy.items():
        half = 1.96 * np.std(values, ddof=1) / np.sqrt(len(values))
        gain = (np.mean(values) - np.mean(accuracy["flipped"])) / cost.mean() if cost.mean() > 0 else float("nan")
        print(f"| {name} | {np.mean(values):.3f} | ± {half:.3f} | {gain:.0%} |")
    half = 1.96 * cost.std(ddof=1) / np.sqrt(len(cost))
    print(f"\nthe noise cost {cost.mean():.3f} ± {half:.3f} of accuracy, seed by seed", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--language-model", help="a causal language model: a folder or a Hub id")
    parser.add_argument("--rates", type=float, nargs="*", default=[0.1, 0.2, 0.3, 0.4])
    options = parser.parse_args()
    model = Read(open_answer_states(options.language_model)) if options.language_model else None
    FIGURES.packages.append("scikit-learn")
    folder = shared_data(options.data) / "ultrafeedback_noise"
    noisy, flags = read(folder / "label_flip_20.jsonl")
    encoder = Remembering(open_encoder("embedded", device="cpu"))
    print(f"python {platform.python_version()}, numpy {np.__version__}, scikit-learn {sklearn.__version__}\n")
    table(finders(noisy, encoder, model), flags)
    clean, _ = read(folder / "clean.jsonl")
    if options.rates:
        other_rates(clean, encoder, options.rates, model)
    if options.seeds:
        cleaning(noisy, clean, flags, encoder, options.seeds, model)


if __name__ == "__main__":
    main()
    FIGURES.write()

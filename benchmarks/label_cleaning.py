"""What cleaning wins back of what flipped labels cost, where they cost something.

    .venv/bin/python benchmarks/label_cleaning.py [--data DIR] [--files …] [--rates 0.2 0.4] [--seeds 10]

Per seed: four fifths of the prompts are trained on, and a share of their labels is flipped; label noise is fitted
to these alone. Heads (those of ``curation rewards train``: five, their penalty by cross-validation on the labels
they are given) are then fitted to the flipped, the cleaned and the clean labels, and tested on the clean labels of
the other prompts. Ready heads are a witness where they have not seen the file. "Dropped" and "flipped back" go by
``label_probability`` below a half, "contradicted" by ``label_margin`` below 0: the text model alone, without the
prior that nine labels in ten are right.
"""

from __future__ import annotations

import argparse
import gzip
import json
import platform
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import sklearn
from _figures import FIGURES, shared_data
from label_noise import Remembering, flip
from label_noise import read as read_flagged
from sklearn.metrics import roc_auc_score

from curation.embedded.reward_data import read_pairs
from curation.models.encoder import open_encoder
from curation.models.rewards.heads import last_user_text
from curation.scores.ensemble import choose_penalty, feature_penalty, fit_heads, make_folds
from curation.scores.label_noise import label_noise
from curation.scores.training import pair_features
from curation.text import as_messages, prompt_id

MOST_PAIRS = 1_000
CLEANED = ("soft labels", "dropped", "flipped back", "contradicted dropped", "contradicted flipped")


class File(NamedTuple):
    """Pairs with labels that count as clean here."""

    frame: pl.DataFrame
    prior: str | None
    """Ready heads as a witness; None where they have learned from the file."""


def ultrafeedback(data: Path) -> File:
    return File(read_flagged(data / "ultrafeedback_noise" / "clean.jsonl")[0], "embedded")


def people(data: Path) -> File:
    """Decided pairs of pandalm and tulu1_human_eval."""
    return File(read_pairs(data, ["pandalm", "tulu1_human_eval"]).select("prompt", "chosen", "rejected"), None)


def harmless(data: Path) -> File:
    return File(read_pairs(data, ["hh_harmless"]).select("prompt", "chosen", "rejected").head(MOST_PAIRS), None)


def arguments(data: Path) -> File:
    """Pairs of arguments on which the crowd is decided; debate and side are the prompt, 32 in all."""
    rows = []
    with gzip.open(data / "ukpconvarg1" / "ukpconvarg1_full_votes.jsonl.gz", "rt", encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            if row["gold"] in ("a1", "a2"):
                sides = ("arg1", "arg2") if row["gold"] == "a1" else ("arg2", "arg1")
                rows.append((f"{row['title']}: {row['stance']}", *(row[side] for side in sides)))
    frame = pl.DataFrame(rows, schema=["prompt", "chosen", "rejected"], orient="row")
    return File(frame.sample(MOST_PAIRS, seed=0), None)


FILES = {"ultrafeedback": ultrafeedback, "people": people, "harmless": harmless, "arguments": arguments}


class Heads:
    """What ``curation rewards train`` fits, on features that are made once."""

    def __init__(self, file: File, encoder: Remembering) -> None:
        prompts = [as_messages(prompt) for prompt in file.frame["prompt"].to_list()]
        asked = [last_user_text(prompt) for prompt in prompts]
        first, second = pair_features(
            asked, file.frame["chosen"].to_list(), file.frame["rejected"].to_list(), encoder
        )
        self.differences, self.dimension = first - second, encoder.dimension
        self.groups = np.array([prompt_id(prompt) for prompt in prompts])

    def penalty(self, rows: np.ndarray, sign: np.ndarray, seed: int) -> np.ndarray:
        """By cross-validation on the labels that are given."""
        given = self.differences[rows] * sign[:, None]
        folds = make_folds(list(self.groups[rows]), 3, seed)
        chosen = choose_penalty(given, folds, lambda value: feature_penalty(given, self.dimension, value))
        return feature_penalty(given, self.dimension, chosen)

    def accuracy(
        self, rows: np.ndarray, sign: np.ndarray, test: np.ndarray, *, seed: int, penalty: np.ndarray,
        targets: np.ndarray | None = None,
    ) -> float:  # fmt: skip
        heads = fit_heads(
            self.differences[rows] * sign[:, None], list(self.groups[rows]), heads=5, seed=seed, penalty=penalty,
            targets=targets,
        )  # fmt: skip
        margin = (self.differences[test] @ heads.T).mean(axis=1)
        return float((margin > 0).mean() + 0.5 * (margin == 0).mean())


def one_seed(
    file: File, heads: Heads, encoder: Remembering, rate: float, seed: int
) -> tuple[dict[str, float], float]:
    """Held-out accuracy by training labels, and the ROC AUC of finding the flips."""
    random = np.random.default_rng(seed)
    fold = make_folds(list(heads.groups), 5, seed)
    train, test = np.flatnonzero(fold != 0), np.flatnonzero(fold == 0)
    flipped = random.random(len(train)) < rate
    sign = np.where(flipped, -1.0, 1.0)
    right = label_noise(flip(file.frame[train], flipped), encoder=encoder, prior=file.prior, seed=seed)
    believed = right.frame["label_probability"].to_numpy()
    assert len(believed) == len(train)
    contradicted = right.frame["label_margin"].to_numpy() < 0
    one = np.ones(len(train))
    given, clean = heads.penalty(train, sign, seed), heads.penalty(train, one, seed)

    def without(gone: np.ndarray) -> float:
        kept = ~gone
        return heads.accuracy(train[kept], sign[kept], test, seed=seed, penalty=given)

    def turned(back: np.ndarray) -> float:
        return heads.accuracy(train, np.where(back, -sign, sign), test, seed=seed, penalty=given)

    found = {
        "flipped": heads.accuracy(train, sign, test, seed=seed, penalty=given),
        "soft labels": heads.accuracy(train, sign, test, seed=seed, penalty=given, targets=believed),
        "dropped": without(believed < 0.5),
        "flipped back": turned(believed < 0.5),
        "contradicted dropped": without(contradicted),
        "contradicted flipped": turned(contradicted),
        "clean": heads.accuracy(train, one, test, seed=seed, penalty=clean),
    }
    return found, float(roc_auc_score(~flipped, believed))


def half(values: np.ndarray) -> float:
    """Of a 95 % interval of the mean over seeds."""
    return float(1.96 * values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")


def won_back(gain: np.ndarray, cost: np.ndarray) -> tuple[float, float, float]:
    """Mean gain over mean cost, and its 95 % interval by a bootstrap over seeds."""
    drawn = np.random.default_rng(0).integers(0, len(cost), (10_000, len(cost)))
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = gain[drawn].mean(axis=1) / cost[drawn].mean(axis=1)
        low, high = np.nanquantile(shares, (0.025, 0.975))
        return float(gain.mean() / cost.mean()), float(low), float(high)


def report(name: str, rate: float, rows: list[dict[str, float]], areas: list[float]) -> None:
    columns = {key: np.array([row[key] for row in rows]) for key in rows[0]}
    cost = columns["clean"] - columns["flipped"]
    cells = [f"{name} | {rate:.0%} | {np.mean(areas):.3f}"]
    cells += [f"{columns[key].mean():.3f}" for key in ("clean", "flipped")]
    cells.append(f"{cost.mean():+.3f} ± {half(cost):.3f}")
    for key in CLEANED:
        gain = columns[key] - columns["flipped"]
        share, low, high = won_back(gain, cost)
        cells.append(f"{gain.mean():+.3f} ± {half(gain):.3f} ({share:.0%}, {low:.0%} to {high:.0%})")
        FIGURES.add(
            f"won back by cleaning ({key}), {name}, {rate:.0%} flipped", share, "share of the cost", at_least=0.5,
            conditions=f"{len(rows)} seeds, 95 % {low:.2f} to {high:.2f}; the noise cost {cost.mean():.3f} "
            f"± {half(cost):.3f} of accuracy",
        )  # fmt: skip
    print("| " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--files", nargs="+", choices=FILES, default=list(FILES))
    parser.add_argument("--rates", type=float, nargs="+", default=[0.2, 0.4])
    parser.add_argument("--seeds", type=int, default=10)
    options = parser.parse_args()
    FIGURES.packages.append("scikit-learn")
    data = shared_data(options.data)
    print(f"python {platform.python_version()}, numpy {np.__version__}, scikit-learn {sklearn.__version__}\n")
    print("| file | flipped | AUC of finding them | clean | flipped labels | the noise cost | "
          + " | ".join(f"{name} won back" for name in CLEANED) + " |")  # fmt: skip
    print("|" + "---|" * (6 + len(CLEANED)), flush=True)
    encoder = Remembering(open_encoder("embedded", device="cpu"))
    for name in options.files:
        file = FILES[name](data)
        heads = Heads(file, encoder)
        for rate in options.rates:
            started = time.monotonic()
            found = []
            for seed in range(options.seeds):
                found.append(one_seed(file, heads, encoder, rate, seed))
                said = ", ".join(f"{key} {value:.4f}" for key, value in found[-1][0].items())
                print(f"<!-- seed {seed}: {said}, AUC {found[-1][1]:.3f} -->", flush=True)
            report(name, rate, [row for row, _ in found], [area for _, area in found])
            print(f"<!-- {len(file.frame)} pairs, {time.monotonic() - started:.0f} s -->", flush=True)


if __name__ == "__main__":
    main()
    FIGURES.write()

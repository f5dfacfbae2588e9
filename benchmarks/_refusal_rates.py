"""The part ``dsl`` of ``refusals.py``: how often 95 % intervals of a refusal rate cover it, in simulations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
from _figures import FIGURES

from curation.refusals.estimation import dsl_rate, naive_rate, sample_for_labelling

RUNS, ROWS, RATE, SIZE = 2_000, 1_000, 0.3, 200

Floats = npt.NDArray[np.float64]
Detector = Callable[[np.random.Generator, Floats], Floats]


class Drawn(NamedTuple):
    """Labels (NaN where there is none) and the probabilities with which they were drawn."""

    labels: Floats
    probability: Floats


def says(miss: float, false: float) -> Detector:
    """A detector of classes: misses so many refusals, and takes so many answers for refusals."""
    return lambda rng, y: np.where(y == 1, rng.random(len(y)) >= miss, rng.random(len(y)) < false).astype(float)


def thinks(shift: float, surely_wrong: float = 0.0) -> Detector:
    """A detector of probabilities whose logits are shifted, and some of which stand for the opposite."""

    def detect(rng: np.random.Generator, y: Floats) -> Floats:
        p = 1 / (1 + np.exp(-(shift + 3 * (2 * y - 1) + rng.normal(0, 1.5, len(y)))))
        return np.where(rng.random(len(y)) < surely_wrong, 1 - p, p)

    return detect


def uniformly(rng: np.random.Generator, p: Floats, y: Floats, size: int) -> Drawn:
    """Each answer with the same probability."""
    return Drawn(np.where(rng.random(len(y)) < size / len(y), y, np.nan), np.full(len(y), size / len(y)))


def as_the_command(rng: np.random.Generator, p: Floats, y: Floats, size: int) -> Drawn:
    """As ``curation refusals sample-for-labelling`` draws: more of what the detector is unsure of."""
    frame = pl.DataFrame({"refusal_probability": p})
    sheet = sample_for_labelling(frame, size=size, seed=int(rng.integers(2**32)))
    rows = sheet["row"].to_numpy()
    labels, probability = np.full(len(y), np.nan), np.ones(len(y))
    labels[rows], probability[rows] = y[rows], sheet["sampling_probability"].to_numpy()
    return Drawn(labels, probability)


CASES = (
    ("misses a third", says(0.33, 0.02), uniformly, SIZE),
    ("false alarms", says(0.02, 0.15), uniformly, SIZE),
    ("fair", says(0.1, 0.043), uniformly, SIZE),
    ("probabilities too low", thinks(-2.0), as_the_command, SIZE),
    ("probabilities too high", thinks(2.0), as_the_command, SIZE),
    ("surely wrong for one in twelve", thinks(0.0, 1 / 12), as_the_command, SIZE),
    ("surely wrong for one in twelve, few labels", thinks(0.0, 1 / 12), as_the_command, 60),
)


def dsl(data: Path) -> None:
    """Coverage of 95 % intervals over simulated biased detectors, by the labels drawn."""
    print(f"\n### DSL: {RUNS:,} runs, {ROWS:,} answers, true rate {RATE:.0%}\n")
    head = (
        "detector",
        "drawn",
        "labels",
        "least probability",
        "DSL covers %",
        "naive covers %",
        "DSL bias",
        "naive bias",
    )
    for cells in (head, ["---"] * len(head)):
        print("| " + " | ".join(cells) + " |")
    for title, detect, draw, size in CASES:
        rng = np.random.default_rng(0)
        found, naive, least = [], [], 1.0
        for run in range(RUNS):
            y = (rng.random(ROWS) < RATE).astype(float)
            p = detect(rng, y)
            drawn = draw(rng, p, y, size)
            least = min(least, float(drawn.probability.min()))
            found.append(dsl_rate(p, drawn.labels, drawn.probability, seed=run))
            naive.append(naive_rate(p))
        covers, naive_covers = (
            100 * float(np.mean([e.low <= RATE <= e.high for e in some])) for some in (found, naive)
        )
        bias, naive_bias = (np.mean([e.rate for e in some]) - RATE for some in (found, naive))
        how = "uniformly" if draw is uniformly else "as the command draws"
        FIGURES.add(
            f"95 % intervals that cover, detector {title}", covers, "%", peer="naive intervals",
            peer_value=naive_covers, better="higher", conditions=f"{RUNS:,} simulations, {size} labels drawn {how}",
        )  # fmt: skip
        shares = (f"{covers:.1f}", f"{naive_covers:.1f}", f"{bias:+.4f}", f"{naive_bias:+.4f}")
        print("| " + " | ".join((title, how, str(size), f"{least:.3f}", *shares)) + " |")

"""Formulas for noisy labels that need no text: RE-PO, per-annotator losses, confident-learning counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from curation.errors import InputError
from curation.scores.calibration import sigmoid

__all__ = [
    "Agreement",
    "ConfidentCounts",
    "annotator_losses",
    "confident_counts",
    "fit_noise",
    "label_agreement",
    "repo_posterior",
]

FloatArray = npt.NDArray[np.float64]
_HARDLY: Final = 0.53
"""At the interval's lower end. In docs/benchmarks/label_noise.md cleaning did harm below it as often as good."""


def repo_posterior(probability: npt.ArrayLike, eta: float) -> FloatArray:
    """w = pη / (pη + (1 − p)(1 − η)): P(label right) given the model's p and the share η (RE-PO, E-step)."""
    p = np.asarray(probability, dtype=np.float64)
    right, wrong = p * eta, (1 - p) * (1 - eta)
    total = right + wrong
    return np.where(total > 0, right / np.where(total > 0, total, 1.0), 0.5)


def fit_noise(margins: FloatArray, *, eta: float = 0.9, prior_rows: float = 20.0) -> tuple[float, float]:
    """The scale a of out-of-fold margins and the share η of right labels that fit the labels best.

    Maximises Σ_i log[η σ(a m_i) + (1 − η) σ(−a m_i)], RE-PO's marginal likelihood, over a grid, with a Beta
    prior of mean ``eta`` worth ``prior_rows`` rows. A ridge fit's margins are too small, and their
    posteriors then believe every label; the scale mends that.

    Args:
        margins: (n,) log-odds of the given labels under models that have not seen them.
    """
    sample = np.quantile(margins, np.linspace(0, 1, 2000)) if len(margins) > 2000 else margins
    weight = len(margins) / max(len(sample), 1)
    best, found = -np.inf, (1.0, eta)
    shares = np.linspace(0.5, 0.995, 100)
    prior = prior_rows * (eta * np.log(shares) + (1 - eta) * np.log(1 - shares))
    for scale in np.geomspace(0.1, 30, 40):
        p = sigmoid(scale * sample)
        likelihood = np.log(np.maximum(shares[:, None] * p + (1 - shares[:, None]) * (1 - p), 1e-300))
        # A weak pull of the scale to 1: with labels that a model predicts perfectly it has no maximum.
        total = weight * likelihood.sum(axis=1) + prior - 0.5 * np.log(scale) ** 2
        place = int(np.argmax(total))
        if total[place] > best:
            best, found = float(total[place]), (float(scale), float(shares[place]))
    return found


class Agreement(NamedTuple):
    """How often out-of-fold margins say what the given labels say; a margin of 0 is half a time."""

    share: float
    low: float
    high: float
    """The 95 % interval, with rows of one prompt taken together."""

    @property
    def hardly_better_than_a_coin(self) -> bool:
        return self.low < _HARDLY

    @property
    def worth_from(self) -> float:
        """The share of wrong labels above which a contradicted label is more often wrong than right.

        With model and labels erring apart, right with a and 1 − r, that is r > 1 − a, and the agreement g obeys
        2g − 1 = (2a − 1)(1 − 2r): hence r > (1 − √(2g − 1)) / 2.
        """
        return float((1 - np.sqrt(max(2 * self.share - 1, 0.0))) / 2)

    def __str__(self) -> str:
        return f"{self.share:.1%} (95 % interval {self.low:.1%} to {self.high:.1%})"


def label_agreement(margins: FloatArray, groups: Sequence[str]) -> Agreement:
    """The share of rows whose out-of-fold margin agrees with the label, and its interval over prompts.

    Args:
        margins: (n,) log-odds of the given labels under models that have not seen them.
        groups: (n,) the prompt of each row.
    """
    if not len(margins):
        return Agreement(0.5, 0.0, 1.0)
    hits = np.where(margins == 0, 0.5, margins > 0)
    share = float(hits.mean())
    _, index = np.unique(np.asarray(groups), return_inverse=True)
    of_group = np.bincount(index, weights=hits - share)
    # With few prompts, or none that errs, never surer than half a row.
    width = 1.96 * max(float(np.sqrt((of_group**2).sum())), 0.5) / len(hits)
    return Agreement(share, max(share - width, 0.0), min(share + width, 1.0))


class ConfidentCounts(NamedTuple):
    """The confident joint of Northcutt, Jiang and Chuang (2021), for given label against likely label."""

    joint: npt.NDArray[np.int64]
    """(2, 2): row the given label, column the confident one; index 1 is the first answer."""
    noise_rate: float
    """The share of off-diagonal mass after scaling the rows to the labels' counts."""


def confident_counts(probability: npt.ArrayLike, labels: npt.ArrayLike) -> ConfidentCounts:
    """Count the labels that an out-of-fold model confidently contradicts.

    Args:
        probability: (n,), out of fold, that the first answer is the better one.
        labels: (n,) Boolean, whether the given label says so.

    A row counts for class j when its probability of j reaches the mean probability of j among the rows
    labelled j (confident learning, equation 2).

    Raises:
        InputError: when only one class is labelled: swap the answers of a random half first.
    """
    p, given = np.asarray(probability, dtype=np.float64), np.asarray(labels, dtype=bool)
    if not given.any() or given.all():
        raise InputError("all labels are of one class: swap the two answers of a random half of the rows first")
    scores = np.stack([1 - p, p], axis=1)
    thresholds = np.array([scores[~given, 0].mean(), scores[given, 1].mean()])
    passes = scores >= thresholds
    likely = np.where(passes.all(axis=1), scores.argmax(axis=1), passes.argmax(axis=1))
    joint = np.zeros((2, 2), dtype=np.int64)
    np.add.at(joint, (given.astype(int)[passes.any(axis=1)], likely[passes.any(axis=1)]), 1)
    sizes = np.array([(~given).sum(), given.sum()])
    rows = joint / np.maximum(joint.sum(axis=1, keepdims=True), 1) * sizes[:, None]
    return ConfidentCounts(joint, float((rows[0, 1] + rows[1, 0]) / max(rows.sum(), 1e-12)))


def annotator_losses(losses: npt.ArrayLike, annotators: Sequence[str | None], *, min_rows: int = 5) -> pl.DataFrame:
    """How unusual each loss is among its own annotator's (PLD), not among all.

    Args:
        losses: (n,) nats of the given labels under an out-of-fold model.
        annotators: (n,), None where it is not known.
        min_rows: annotators with fewer rows, and rows without one, are judged by the whole set.

    Returns:
        ``loss``, ``annotator``, ``loss_rank`` (0 to 1, the share of the reference group's losses that are
        lower, ties half), ``excess`` (loss − median over 1.4826 × the median absolute deviation; 0 where
        that deviation is 0) and ``own`` (whether the reference group is the annotator's own).
    """
    frame = pl.DataFrame(
        {"loss": np.asarray(losses, dtype=np.float64), "annotator": pl.Series(list(annotators), dtype=pl.String)}
    )
    size = pl.len().over("annotator")
    frame = frame.with_columns(own=pl.col("annotator").is_not_null() & (size >= min_rows))
    parts = []
    numbered = frame.with_row_index("_row")
    own = numbered.filter("own")
    for part in own.partition_by("annotator", maintain_order=True):
        parts.append(_against(part, part["loss"].to_numpy()))
    parts.append(_against(numbered.filter(~pl.col("own")), frame["loss"].to_numpy()))
    columns = ["loss", "annotator", "loss_rank", "excess", "own"]
    return pl.concat(parts).sort("_row").select(columns)


def _against(part: pl.DataFrame, reference: FloatArray) -> pl.DataFrame:
    ordered = np.sort(reference)
    loss = part["loss"].to_numpy()
    below = np.searchsorted(ordered, loss, side="left") + np.searchsorted(ordered, loss, side="right")
    middle = float(np.median(ordered)) if len(ordered) else 0.0
    spread = 1.4826 * float(np.median(np.abs(ordered - middle))) if len(ordered) else 0.0
    excess = (loss - middle) / spread if spread > 0 else np.zeros_like(loss)
    return part.with_columns(
        pl.Series("loss_rank", below / (2 * max(len(ordered), 1)), dtype=pl.Float64),
        pl.Series("excess", excess, dtype=pl.Float64),
    )

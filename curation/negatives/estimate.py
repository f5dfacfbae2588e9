"""How many of the mined negatives are false: an estimate with an interval, from a few labels."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from curation.errors import InputError

__all__ = ["Share", "labelled_share", "predicted_share"]


class Share(NamedTuple):
    """A share with its interval."""

    share: float
    low: float
    high: float
    labels: int
    """How many labels it rests on."""


def labelled_share(false_negatives: int, labels: int, *, confidence: float = 0.95) -> Share:
    """The share of false negatives from labels of a uniform random sample of the negatives.

    The interval is Clopper and Pearson's (1934): it covers the truth at least as often as it says, for
    any sample size.

    Raises:
        InputError: when the counts or the confidence are impossible.
    """
    from scipy.special import betaincinv

    if labels < 1 or not 0 <= false_negatives <= labels:
        raise InputError(
            f"labels: found {false_negatives} false negatives of {labels} labels, "
            f"expected at least one label and no more false negatives than labels"
        )
    _check_confidence(confidence)
    tail, k = (1 - confidence) / 2, false_negatives
    low = 0.0 if k == 0 else float(betaincinv(k, labels - k + 1, tail))
    high = 1.0 if k == labels else float(betaincinv(k + 1, labels - k, 1 - tail))
    return Share(k / labels, low, high, labels)


def predicted_share(
    predictions: Any, labels: Any, *, labelled: Any, probability: Any, confidence: float = 0.95
) -> Share:
    """The share of false negatives from a prediction for every negative and labels for some.

    Design-based supervised learning (Egami et al. 2023): pseudo = ĝ + (R/π)(y − ĝ); the estimate is its
    mean and its standard error sd/√n. The predictions may be biased; the estimate is not, as long as the
    labelled rows were drawn with the probabilities that are given and the predictor did not see their
    labels. The interval is normal: with few labels it can leave [0, 1] and is cut there, and with fewer than some
    ten labelled false negatives it covers the truth too seldom (about 90 % in place of 95): give more labels, or
    use :func:`labelled_share`. Where all labels agree their spread says nothing, so the interval reaches at least
    as far as :func:`labelled_share`'s.

    Args:
        predictions: (n,) the predicted probability that each negative is false.
        labels: (n,) 1 where a negative is false, 0 where it is not; read where ``labelled``.
        labelled: (n,) whether the row has a label (R).
        probability: the probability with which each row was drawn for labelling (π): a number, or (n,).
        confidence: of the interval.

    Raises:
        InputError: when a prediction or a probability is not one, a label is neither 0 nor 1, or nothing is
            labelled.
    """
    from scipy.special import ndtri

    _check_confidence(confidence)
    guess = np.asarray(predictions, dtype=np.float64)
    given = np.asarray(labelled, dtype=np.bool_)
    drawn = np.broadcast_to(np.asarray(probability, dtype=np.float64), guess.shape)
    truth = np.where(given, np.asarray(labels, dtype=np.float64), 0.0)
    if not ((guess >= 0) & (guess <= 1)).all():
        raise InputError("predictions: found a value outside [0, 1] or NaN, expected a probability for every row")
    if not given.any():
        raise InputError("labelled: no row has a label, expected a few drawn at random")
    if not ((drawn > 0) & (drawn <= 1)).all():
        raise InputError("probability: found a value outside (0, 1], expected each row's chance of a label")
    if not np.isin(truth[given], (0.0, 1.0)).all():
        raise InputError("labels: found a value that is neither 0 nor 1")
    pseudo = guess + given / drawn * (truth - guess)
    mean, error = (
        float(pseudo.mean()),
        float(pseudo.std(ddof=1) / np.sqrt(len(pseudo))) if len(pseudo) > 1 else np.inf,
    )
    reach = float(ndtri(1 - (1 - confidence) / 2)) * error
    low, high, count, false = mean - reach, mean + reach, int(given.sum()), int(truth[given].sum())
    if false in (0, count):
        sure = labelled_share(false, count, confidence=confidence)
        low, high = min(low, sure.low), max(high, sure.high)
    return Share(mean, max(0.0, low), min(1.0, high), count)


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise InputError(f"confidence: found {confidence}, expected a number between 0 and 1, such as 0.95")

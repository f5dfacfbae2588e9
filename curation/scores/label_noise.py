"""Which labels are probably wrong: a cross-fitted preference model, and every other witness there is.

The text model is fitted without the row it judges. What voters say is in ``voters``, what ready rewards
say in ``strength``; reading and writing files is elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from curation.errors import InputError
from curation.models.protocols import Encoder
from curation.models.rewards.heads import Heads, block_slices, features, last_user_text
from curation.scores.bradley_terry import fit_bradley_terry
from curation.scores.calibration import sigmoid
from curation.scores.ensemble import choose_penalty, feature_penalty, make_folds
from curation.scores.margins import read_margins, scale_margins
from curation.scores.noise_models import fit_noise, repo_posterior
from curation.scores.strength import summarise
from curation.text import as_messages, fault_in_text, normalise, prompt_id

__all__ = ["ACTIONS", "LABEL_NOISE_COLUMNS", "LabelNoise", "label_noise", "suggest"]

FloatArray = npt.NDArray[np.float64]
ACTIONS: Final = ("keep", "drop", "flip")
LABEL_NOISE_COLUMNS: Final = ("label_probability", "label_margin", "suggested_action")
FLIP_BELOW: Final = 0.2
DROP_BELOW: Final = 0.5
_FIRST_ETA: Final = 0.9  # RE-PO's starting share of right labels
_EM_ROUNDS: Final = 4
_WITNESS_PRIOR: Final = 3.0  # prior std of a witness's weight, against 1 for a style feature


class LabelNoise(NamedTuple):
    """The judged rows, the rest, and what the judgement rests on."""

    frame: pl.DataFrame
    """The input rows that could be judged, in order, with ``LABEL_NOISE_COLUMNS``."""
    rejects: pl.DataFrame
    """``row``, ``rule``, ``value``, ``reason``."""
    used: list[str]
    """The witnesses that were combined, in words."""
    right_share: float
    """η, the estimated share of right labels."""


def label_noise(
    frame: pl.DataFrame,
    *,
    folds: int = 5,
    seed: int = 0,
    encoder: Encoder | str = "embedded",
    prior: Heads | str | None = "embedded",
    flip_below: float = FLIP_BELOW,
    drop_below: float = DROP_BELOW,
    advance: Callable[[int], None] = lambda rows: None,
) -> LabelNoise:
    """The probability that each preference label is right, from models that have not seen the row.

    A Bradley–Terry head over features of the two answers is fitted on the other folds (rows of one prompt
    share a fold) with the EM of RE-PO: the label of row i is right with probability
    w_i = p_i η / (p_i η + (1 − p_i)(1 − η)), p_i = σ(margin), η = mean w, starting at 0.9. The margins'
    scale and the final η are those that fit the given labels best out of fold. The penalty
    is chosen by cross-validated likelihood of the given labels. The bundled heads' margin and, where the
    frame has ``chosen_rewards`` and ``rejected_rewards``, those models' mean margin are features too:
    a witness that does not agree with the labels gets no weight.

    Args:
        frame: ``prompt``, ``chosen``, ``rejected``: strings or lists of messages.
        folds: how many; each prompt is in one.
        encoder: a loaded encoder, or a MODEL argument.
        prior: reward heads, a folder of them, ``embedded``, or None for none.
        flip_below, drop_below: ``suggested_action`` is flip, drop or keep by ``label_probability``.
        advance: called with a number of rows as they are done.

    Returns:
        ``label_probability`` (out of fold), ``label_margin`` (log-odds of the text model, out of fold)
        and ``suggested_action``. Equal answers have probability 0.5.

    Raises:
        InputError: when a column is missing, or there are fewer prompts than folds.
    """
    if not 0 <= flip_below <= drop_below <= 1:
        raise InputError(f"thresholds are flip {flip_below}, drop {drop_below}; expected 0 <= flip <= drop <= 1")
    texts = _read(frame)
    loaded = _open_encoder(encoder)
    heads = _open_prior(prior, loaded)
    groups = [texts.groups[row] for row in range(len(texts.rows))]
    fold = make_folds(groups, folds, seed)
    differences = _differences(texts, loaded, advance)
    design, ridge_of, used = _design(differences, loaded.dimension, heads, frame[texts.rows])
    raw = _out_of_fold(design, fold, ridge_of)
    scale, eta = fit_noise(raw)
    margins = scale * raw
    probability = repo_posterior(sigmoid(margins), eta)
    probability[~differences.any(axis=1)] = 0.5
    scored = frame[texts.rows].with_columns(
        pl.Series("label_probability", probability),
        pl.Series("label_margin", margins),
        pl.Series("suggested_action", suggest(probability, flip_below=flip_below, drop_below=drop_below)),
    )
    return LabelNoise(scored, texts.rejects, used, eta)


def suggest(probability: FloatArray, *, flip_below: float, drop_below: float) -> list[str]:
    """keep, drop or flip for each probability that the label is right."""
    return ["flip" if value < flip_below else "drop" if value < drop_below else "keep" for value in probability]


class _Texts(NamedTuple):
    rows: list[int]
    prompts: list[str]
    chosen: list[str]
    rejected: list[str]
    groups: list[str]
    rejects: pl.DataFrame


def _read(frame: pl.DataFrame) -> _Texts:
    """The three texts of each row, and the rows that have not got them."""
    missing = [name for name in ("prompt", "chosen", "rejected") if name not in frame.columns]
    if missing:
        raise InputError(
            f"column {missing[0]!r} is missing: found {', '.join(frame.columns)}; "
            f"expected prompt, chosen and rejected"
        )
    texts = _Texts([], [], [], [], [], pl.DataFrame())
    faults: list[tuple[int, str, str, str]] = []
    columns = (frame[name].to_list() for name in ("prompt", "chosen", "rejected"))
    for row, (prompt, chosen, rejected) in enumerate(zip(*columns, strict=True)):
        try:
            messages = as_messages(prompt)
            answers = [as_messages(value, role="assistant") for value in (chosen, rejected)]
        except ValueError as error:
            faults.append((row, "not_text", "", str(error)))
            continue
        first, second = ("\n\n".join(m["content"] for m in answer) for answer in answers)
        fault = fault_in_text(last_user_text(messages) or None)
        if fault:
            faults.append((row, f"{fault}_prompt", "prompt", "the prompt cannot be read"))
            continue
        texts.rows.append(row)
        texts.prompts.append(last_user_text(messages))
        texts.chosen.append(first)
        texts.rejected.append(second)
        texts.groups.append(prompt_id(messages))
    schema = {"row": pl.Int64, "rule": pl.String, "value": pl.String, "reason": pl.String}
    return texts._replace(rejects=pl.DataFrame(faults, schema=schema, orient="row"))


def _open_encoder(encoder: Encoder | str) -> Encoder:
    if isinstance(encoder, str):
        from curation.models.encoder import open_encoder

        return open_encoder(encoder)
    return encoder


def _open_prior(prior: Heads | str | None, encoder: Encoder) -> Heads | None:
    """The heads, when they read what this encoder writes."""
    if isinstance(prior, str):
        from pathlib import Path

        from curation.models.identity import resolve_model
        from curation.models.rewards.heads import read_heads

        prior = read_heads(Path(resolve_model(prior, embedded="rewards").location))
    if prior is None or prior.encoder_fingerprint != encoder.fingerprint:
        return None
    return prior


def _differences(texts: _Texts, encoder: Encoder, advance: Callable[[int], None]) -> FloatArray:
    """φ(chosen) − φ(rejected), (rows, features), some hundred rows at a time."""
    size = 256
    parts = []
    for start in range(0, len(texts.rows), size):
        part = slice(start, start + size)
        prompts = texts.prompts[part]
        chosen = [normalise(text) for text in texts.chosen[part]]
        rejected = [normalise(text) for text in texts.rejected[part]]
        values = features([*prompts, *prompts], [*chosen, *rejected], encoder).values
        parts.append(values[: len(prompts)] - values[len(prompts) :])
        advance(len(prompts))
    return np.vstack(parts)


def _design(
    differences: FloatArray, dimension: int, heads: Heads | None, frame: pl.DataFrame
) -> tuple[FloatArray, Callable[[float], FloatArray], list[str]]:
    """The model's inputs, the penalty of each for a strength, and the witnesses in words."""
    product = block_slices(dimension)["product"]
    content = np.delete(differences, np.arange(product.start, product.stop), axis=1)
    used = ["style, relevance and encoder features, cross-fitted"]
    witnesses: list[FloatArray] = []
    if heads is not None:
        witnesses.append(differences @ heads.weights.mean(axis=0))
        used.append(f"{len(heads.weights)} ready reward heads")
    rewards = _reward_margins(frame)
    if rewards is not None:
        witnesses.append(rewards)
        used.append("the rewards in chosen_rewards and rejected_rewards")
    columns = [values / (float(np.sqrt((values**2).mean())) or 1.0) for values in witnesses]
    design = np.column_stack([content, *columns])

    def ridge_of(penalty: float) -> FloatArray:
        kept = np.delete(feature_penalty(differences, dimension, penalty), np.arange(product.start, product.stop))
        return np.concatenate([kept, np.full(len(columns), penalty / _WITNESS_PRIOR**2)])

    return design, ridge_of, used


def _reward_margins(frame: pl.DataFrame) -> FloatArray | None:
    """The mean scaled margin of ready rewards, 0 on rows without; None without the columns."""
    if not {"chosen_rewards", "rejected_rewards"} <= set(frame.columns):
        return None
    margins = read_margins(frame, chosen="chosen_rewards", rejected="rejected_rewards")
    values = np.zeros(frame.height)
    if len(margins.kept):
        values[margins.kept] = summarise(scale_margins(margins.values, "robust")[0]).mean
    return values


def _out_of_fold(
    design: FloatArray, fold: npt.NDArray[np.int64], ridge_of: Callable[[float], FloatArray]
) -> FloatArray:
    """The log-odds of each given label from heads without its fold, (rows,)."""
    penalty = choose_penalty(design, fold, ridge_of)
    ridge = ridge_of(penalty)
    margins = np.empty(len(design))
    for number in np.unique(fold):
        out = fold == number
        margins[out] = design[out] @ _repo_fit(design[~out], ridge)
    return margins


def _repo_fit(design: FloatArray, ridge: FloatArray) -> FloatArray:
    """RE-PO's EM: posteriors of the labels, then a fit to them."""
    eta = _FIRST_ETA
    right = np.full(len(design), eta)
    weights = np.zeros(design.shape[1])
    for _ in range(_EM_ROUNDS):
        weights = fit_bradley_terry(design, penalty=ridge, targets=right)
        right = repo_posterior(sigmoid(design @ weights), eta)
        eta = float(np.clip(right.mean(), 0.5, 0.99))
    return weights

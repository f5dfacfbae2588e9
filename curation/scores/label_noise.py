"""Which labels are probably wrong: a cross-fitted preference model, and every other witness there is.

The text model is fitted without the row it judges. Rows are read in ``noise_texts``, the model's inputs are in
``noise_inputs``, how far each kind of input is trusted in ``evidence``; votes and annotators are in
``noise_witnesses``. Reading and writing files is elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from curation.errors import InputError
from curation.models.protocols import AnswerReader, Encoder
from curation.models.rewards.heads import Heads
from curation.pairs.flipping import was_flipped
from curation.scores.bradley_terry import fit_bradley_terry
from curation.scores.calibration import sigmoid
from curation.scores.ensemble import make_folds
from curation.scores.evidence import choose_variances
from curation.scores.noise_features import BLOCK_WORDS
from curation.scores.noise_inputs import noise_inputs, open_readers
from curation.scores.noise_models import (
    Agreement,
    ConfidentCounts,
    confident_counts,
    fit_noise,
    label_agreement,
    repo_posterior,
)
from curation.scores.noise_texts import read_pairs
from curation.scores.noise_witnesses import (
    VOTER_SCHEMA,
    PeoplesVotes,
    annotator_column,
    by_annotator,
    people_columns,
    peoples_votes,
    unreadable_votes,
    with_votes,
)
from curation.scores.voters import Method

__all__ = ["LABEL_NOISE_COLUMNS", "LabelNoise", "label_noise", "suggest"]

FloatArray = npt.NDArray[np.float64]
LABEL_NOISE_COLUMNS: Final = ("label_probability", "label_margin", "suggested_action")
FLIP_BELOW: Final = 0.2
DROP_BELOW: Final = 0.5
_FIRST_ETA: Final = 0.9  # RE-PO's starting share of right labels
_EM_ROUNDS: Final = 4
_ANNOTATORS: Final = {
    "annotator": pl.String,
    "rows": pl.Int64,
    "right_share": pl.Float64,
    "median_loss": pl.Float64,
}


class LabelNoise(NamedTuple):
    """The judged rows, the rest, and what the judgement rests on."""

    frame: pl.DataFrame
    """The input rows that could be judged, in order, with ``LABEL_NOISE_COLUMNS``; ``annotator_loss_rank``
    where there are annotators, ``vote_probability`` where there are votes."""
    rejects: pl.DataFrame
    """``row``, ``rule``, ``value``, ``reason``."""
    used: list[str]
    """The witnesses that were combined, in words, and those that said nothing."""
    right_share: float
    """η, the estimated share of right labels."""
    voters: pl.DataFrame
    """``voter``, ``votes``, ``reliability``: people and reward models."""
    annotators: pl.DataFrame
    """``annotator``, ``rows``, ``right_share``, ``median_loss``; the least reliable first."""
    confident: ConfidentCounts
    """Labels that the out-of-fold model confidently contradicts, with the answers of a random half exchanged."""
    agreement: Agreement = Agreement(0.5, 0.0, 1.0)
    """How often the out-of-fold text model agrees with the given labels, where the two answers differ."""

    @property
    def warnings(self) -> list[str]:
        """What a reader must know before labels are cleaned by this."""
        if self.frame.is_empty() or not self.agreement.hardly_better_than_a_coin:
            return []
        return [
            f"WARNING: on rows that it has not seen, the text model agrees with {self.agreement} of the given "
            f"labels, hardly more than a coin would: to drop or turn the labels that it contradicts (label_margin "
            f"below 0) may well do harm"
        ]


def label_noise(
    frame: pl.DataFrame,
    *,
    folds: int = 5,
    seed: int = 0,
    encoder: Encoder | str = "embedded",
    prior: Heads | str | None = "embedded",
    language_model: AnswerReader | str | None = None,
    annotator: str | None = None,
    votes: str | None = None,
    vote_method: Method = "dawid_skene",
    flip_below: float = FLIP_BELOW,
    drop_below: float = DROP_BELOW,
    advance: Callable[[int], None] = lambda rows: None,
) -> LabelNoise:
    """The probability that each preference label is right, from models that have not seen the row.

    A Bradley–Terry model over differences of the two answers (extent, style, relevance, the encoder's vectors,
    ready heads, a language model's states, and the rewards in ``chosen_rewards`` and ``rejected_rewards``) is
    fitted on the other folds
    with the EM of RE-PO: label i is right with probability w_i = p_i η / (p_i η + (1 − p_i)(1 − η)),
    p_i = σ(margin), η = mean w, starting at 0.9. Rows of one prompt share a fold. How much each kind of
    difference counts is chosen by the marginal likelihood of the other folds' labels (``evidence``); a kind that
    does not agree with them gets no weight. Two numbers see all labels, each row's own among them: the margins'
    scale and the final η are those that fit the given labels best out of fold. With annotators, each has an η of
    their own. Votes of people add their log-odds.

    Args:
        frame: ``prompt``, ``chosen``, ``rejected``: strings or lists of messages; where a Boolean ``flipped`` is
            true, the label was turned round after its annotator gave it.
        folds: how many; each prompt is in one.
        encoder: a loaded encoder, or a MODEL argument.
        prior: reward heads, a folder of them, ``embedded``, or None for none.
        language_model: one that reads every answer with its prompt, and whose states then count as far as they
            agree with the labels: an open reader, a MODEL argument (a causal language model with a chat
            template), or None for none. The larger, the better it tells answers apart; it needs a GPU from
            about a billion parameters on.
        annotator: a column that says who gave the label; null where nobody knows.
        votes: a column of lists of {voter, vote}: chosen, rejected or tie.
        vote_method: how votes are joined, and how reliable reward models are as voters; see ``voters``.
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
    texts = read_pairs(frame, {} if votes is None else unreadable_votes(frame, votes))
    if not texts.rows:
        return _nothing(frame, texts.rejects)
    fold = make_folds(texts.groups, folds, seed)
    kept = frame[texts.rows]
    said = _votes(kept, votes, vote_method, seed)
    who = annotator_column(kept, annotator)
    readers = open_readers(encoder, prior, language_model)
    blocks, equal, used = noise_inputs(texts, kept, readers, advance=advance)
    raw = _out_of_fold(blocks, fold, used, seed)
    scale, eta = fit_noise(raw)
    margins = scale * raw
    probability = repo_posterior(sigmoid(margins), eta)
    people = None if who is None else by_annotator(margins, who, eta, turned=_turned(kept))
    if people is not None:
        probability = people.probability
    probability = with_votes(probability, said)
    probability[equal] = 0.5
    columns = [
        pl.Series("label_probability", probability),
        pl.Series("label_margin", margins),
        pl.Series("suggested_action", suggest(probability, flip_below=flip_below, drop_below=drop_below)),
    ]
    voters, more = people_columns(kept, people, said, used, method=vote_method, seed=seed)
    annotators = pl.DataFrame(schema=_ANNOTATORS) if people is None else people.table
    counts = _confident(margins, seed)
    agreement = label_agreement(margins[~equal], np.asarray(texts.groups)[~equal].tolist())
    judged = kept.with_columns(*columns, *more)
    return LabelNoise(judged, texts.rejects, used, eta, voters, annotators, counts, agreement)


def suggest(probability: FloatArray, *, flip_below: float, drop_below: float) -> list[str]:
    """keep, drop or flip for each probability that the label is right."""
    return ["flip" if value < flip_below else "drop" if value < drop_below else "keep" for value in probability]


def _nothing(frame: pl.DataFrame, rejects: pl.DataFrame) -> LabelNoise:
    """Of no row at all: the columns, and why."""
    kinds = zip(LABEL_NOISE_COLUMNS, (pl.Float64, pl.Float64, pl.String), strict=True)
    empty = frame.clear().with_columns(pl.Series(name, [], dtype=kind) for name, kind in kinds)
    nobody = pl.DataFrame(schema=VOTER_SCHEMA), pl.DataFrame(schema=_ANNOTATORS)
    counts = ConfidentCounts(np.zeros((2, 2), dtype=np.int64), 0.0)
    return LabelNoise(empty, rejects, ["nothing: no row is left"], _FIRST_ETA, *nobody, counts)


def _out_of_fold(
    blocks: dict[str, FloatArray], fold: npt.NDArray[np.int64], used: list[str], seed: int
) -> FloatArray:
    """The log-odds of each given label from models without its fold, (rows,); says what did not count.

    Which blocks count is chosen without the fold, too: chosen by all labels, blocks of mere noise agreed with 55 %
    of 120 labels, for those that happened to agree were the ones that counted.
    """
    margins = np.zeros(len(fold))
    numbers = np.unique(fold)
    counted = dict.fromkeys(blocks, 0)
    for number in numbers:
        out = fold == number
        rest = {name: block[~out] for name, block in blocks.items()}
        variances = choose_variances(rest, seed=seed).variances
        counting = [name for name, value in variances.items() if value > 0.0]
        for name in counting:
            counted[name] += 1
        if counting:
            # A block's features share its variance: their mean square over a row is 1 after this scaling.
            ridge = np.concatenate(
                [np.full(rest[n].shape[1], (rest[n] ** 2).sum(axis=1).mean() / variances[n]) for n in counting]
            )
            weights = _repo_fit(np.hstack([rest[name] for name in counting]), ridge)
            margins[out] = np.hstack([blocks[name][out] for name in counting]) @ weights
    _say_what_counted(counted, len(numbers), used)
    return margins


def _say_what_counted(counted: dict[str, int], folds: int, used: list[str]) -> None:
    with_weight = [
        BLOCK_WORDS[name] + (f" (in {times} of {folds} folds)" if times < folds else "")
        for name, times in counted.items()
        if times
    ]
    without = [BLOCK_WORDS[name] for name, times in counted.items() if not times]
    if with_weight:
        used.append(f"a model of the other folds' labels from {', '.join(with_weight)}")
    if without:
        used.append(f"without weight, for they do not agree with the labels: {', '.join(without)}")


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


def _votes(frame: pl.DataFrame, column: str | None, method: Method, seed: int) -> PeoplesVotes | None:
    return None if column is None else peoples_votes(frame, column, method=method, seed=seed)


def _turned(frame: pl.DataFrame) -> npt.NDArray[np.bool_]:
    turned: npt.NDArray[np.bool_] = frame.with_columns(_turned=was_flipped(frame))["_turned"].to_numpy()
    return turned


def _confident(margins: FloatArray, seed: int) -> ConfidentCounts:
    """Confident-learning counts with the answers of a random half exchanged, so that there are two classes."""
    first = np.random.default_rng(seed).permutation(len(margins)) % 2 == 0
    if first.all():
        return ConfidentCounts(np.zeros((2, 2), dtype=np.int64), 0.0)
    return confident_counts(sigmoid(np.where(first, margins, -margins)), first)

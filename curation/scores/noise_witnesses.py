"""Witnesses of a label besides its text: people's votes, reward models as voters, and who gave the label.

Each adds log-odds, or says how reliable somebody is. The text model is in ``label_noise``; the voter models are
crowd-kit's, in ``voters``.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from curation.errors import InputError
from curation.scores.calibration import sigmoid
from curation.scores.margins import read_margins
from curation.scores.noise_models import annotator_losses
from curation.scores.voters import METHOD_WORDS, Method, aggregate_votes, reliability, reward_votes

__all__ = [
    "Annotators",
    "PeoplesVotes",
    "annotator_column",
    "by_annotator",
    "model_reliability",
    "people_columns",
    "peoples_votes",
    "unreadable_votes",
    "with_votes",
]

FloatArray = npt.NDArray[np.float64]
_VOTES: Final = {"chosen": 1, "rejected": 0, "tie": None, "1": 1, "0": 0, "true": 1, "false": 0}
_NO_VOTE: Final = "a vote is none of chosen, rejected and tie (1, 0, null)"
_NOBODYS: Final = "a vote names no voter"
_MOST_LOG_ODDS: Final = 4.0  # five like votes of strangers are no proof
_MOST_PER_VOTE: Final = float(np.log(4.0))  # ours: a voter whom nobody checks is right four times in five, at best
_PRIOR_ROWS: Final = 20.0  # an annotator's share of right labels starts at everybody's, worth so many rows
_MIN_MODELS: Final = 3
_EM_ROUNDS: Final = 50
VOTER_SCHEMA: Final = {"voter": pl.String, "votes": pl.Int64, "reliability": pl.Float64}


class PeoplesVotes(NamedTuple):
    """What people say of the pairs."""

    log_odds: FloatArray
    """(rows,) that chosen is better; 0 where nobody voted."""
    voters: pl.DataFrame
    """``voter``, ``votes``, ``reliability``."""
    voted: int
    """Rows with a vote."""
    asked: npt.NDArray[np.bool_]
    """(rows,) whether anybody said something, be it a tie."""


class Annotators(NamedTuple):
    """Labels judged against their own annotator."""

    probability: FloatArray
    """(rows,) that the label is right, with the annotator's own share of right labels."""
    loss_rank: FloatArray
    """(rows,) share of the annotator's losses that are lower (PLD); the whole file's without an annotator."""
    table: pl.DataFrame
    """``annotator``, ``rows``, ``right_share``, ``median_loss``; the least reliable first."""
    unknown: int
    """Rows without an annotator."""
    turned: int
    """Rows with one whose label was turned round since."""


def peoples_votes(
    frame: pl.DataFrame, column: str, *, method: Method = "dawid_skene", seed: int = 0
) -> PeoplesVotes:
    """Votes that stand in a column: lists of {voter, vote}, vote being chosen, rejected or tie (1, 0 or null).

    Where ``frame`` has ``prompt``, ``chosen`` and ``rejected``, noisy Bradley–Terry knows an answer again that
    stands in several rows of a prompt.

    Where one person alone votes on a pair, every method takes the vote for the truth and the voter for perfect. So
    each vote moves the odds of its pair by no more than 4 to 1, and a voter's reliability follows from that.

    Raises:
        InputError: when the column is missing or is something else.
    """
    votes = _vote_rows(frame, column)
    found = np.zeros(frame.height)
    asked = np.isin(np.arange(frame.height), votes["pair"].to_numpy())
    if votes["vote"].null_count() == votes.height:
        return PeoplesVotes(found, pl.DataFrame(schema=VOTER_SCHEMA), 0, asked)
    said = aggregate_votes(votes, method=method, seed=seed)
    probability = np.clip(said.pairs["probability"].to_numpy(), 1e-6, 1 - 1e-6)
    most = np.minimum(_MOST_LOG_ODDS, _MOST_PER_VOTE * said.pairs["votes"].to_numpy())
    rows = said.pairs["pair"].to_numpy()
    found[rows] = np.clip(np.log(probability) - np.log1p(-probability), -most, most)
    chances = said.pairs.select("pair", probability=pl.Series(sigmoid(found[rows]), dtype=pl.Float64))
    return PeoplesVotes(found, reliability(votes.drop_nulls(), chances), said.pairs.height, asked)


def unreadable_votes(frame: pl.DataFrame, column: str) -> dict[int, tuple[str, str]]:
    """The rows with a vote that is none, or nobody's: that vote, and the reason.

    Raises:
        InputError: when the column is missing or is something else, be it in every row that has votes.
    """
    words = _vote_words(frame, column)
    nobody = pl.col("voter").fill_null("") == ""
    unread = pl.col("word").is_not_null() & ~pl.col("word").is_in(list(_VOTES))
    wrong = words.filter(nobody | unread).unique("pair", keep="first", maintain_order=True)
    wrong = wrong.with_columns(reason=pl.when(nobody).then(pl.lit(_NOBODYS)).otherwise(pl.lit(_NO_VOTE)))
    if wrong.height and wrong.height == words["pair"].n_unique():
        _, _, vote, reason = wrong.row(0)
        raise InputError(f"column {column!r}: {reason}; found {vote!r}")
    return {row: (vote or "", reason) for row, _, vote, reason in wrong.iter_rows()}


def _vote_rows(frame: pl.DataFrame, column: str) -> pl.DataFrame:
    """``pair`` (row number), ``voter``, ``vote``, of rows whose votes can be read."""
    rows = _vote_words(frame, column)
    votes = rows.select("pair", "voter", vote=pl.col("word").replace_strict(_VOTES, return_dtype=pl.Int64))
    if not {"prompt", "chosen", "rejected"} <= set(frame.columns):
        return votes
    answers = frame.select(
        first=pl.concat_str(pl.struct("prompt").hash(), pl.struct("chosen").hash(), separator=" "),
        second=pl.concat_str(pl.struct("prompt").hash(), pl.struct("rejected").hash(), separator=" "),
    )
    return votes.hstack(answers[votes["pair"]])


def _vote_words(frame: pl.DataFrame, column: str) -> pl.DataFrame:
    """``pair`` (row number), ``voter``, ``word``: every vote as it is written."""
    if column not in frame.columns:
        raise InputError(f"column {column!r} of votes is missing: found {', '.join(frame.columns)}")
    kind = frame.schema[column]
    inner = kind.inner if isinstance(kind, pl.List) else None
    names = {field.name for field in inner.fields} if isinstance(inner, pl.Struct) else set()
    if not {"voter", "vote"} <= names:
        raise InputError(f"column {column!r} is {kind}, expected a list of {{voter, vote}} in each row")
    rows = frame.select(pair=pl.int_range(pl.len()), said=pl.col(column)).explode("said", empty_as_null=True)
    rows = rows.drop_nulls("said").unnest("said").select("pair", pl.col("voter").cast(pl.String), "vote")
    return rows.select("pair", "voter", word=_as_word(pl.col("vote").cast(pl.String)))


def _as_word(vote: pl.Expr) -> pl.Expr:
    return vote.str.strip_chars().str.to_lowercase().str.replace(r"\.0$", "")


def model_reliability(frame: pl.DataFrame, *, method: Method = "dawid_skene", seed: int = 0) -> pl.DataFrame | None:
    """Reward models as voters: ``voter``, ``votes``, ``reliability``; None with fewer than three."""
    margins = read_margins(frame, chosen="chosen_rewards", rejected="rejected_rewards").values
    if margins.shape[1] < _MIN_MODELS or not np.isfinite(margins[margins != 0]).any():
        return None
    names = [f"reward model {number}" for number in range(margins.shape[1])]
    said = aggregate_votes(reward_votes(margins, names), method=method, seed=seed)
    return said.voters.select(list(VOTER_SCHEMA))


def by_annotator(
    margins: FloatArray, annotators: pl.Series, right_share: float, *, turned: npt.NDArray[np.bool_] | None = None
) -> Annotators:
    """Each label's posterior with its own annotator's share of right labels, and its rank among their losses.

    The share of annotator a is (k·η + Σ w_i) / (k + n_a), w_i the posteriors of their labels under that share,
    by EM; k = 20 rows, so that somebody with few labels is taken for average. A label that was turned round is
    nobody's: its annotator is judged by the other one, which they gave, and the row by the whole file.

    Args:
        margins: (rows,) out-of-fold log-odds of the given labels.
        annotators: (rows,) of any type, null where nobody knows.
        right_share: η of the whole file.
        turned: (rows,) whether chosen and rejected have changed places since the annotator said which is which.
    """
    names = annotators.cast(pl.String)
    away = np.zeros(len(margins), dtype=bool) if turned is None else turned & names.is_not_null().to_numpy()
    theirs = np.where(away, -margins, margins)
    likely = sigmoid(theirs)
    codes = names.rank("dense").fill_null(0).to_numpy().astype(np.int64)  # 0: nobody knows
    rows = np.bincount(codes)
    shares = np.full(len(rows), right_share)
    for _ in range(_EM_ROUNDS):
        own = shares[codes]
        total = np.bincount(codes, weights=likely * own / (likely * own + (1 - likely) * (1 - own)))
        shares[1:] = ((total + _PRIOR_ROWS * right_share) / (rows + _PRIOR_ROWS))[1:]
    own = shares[codes]
    given, prior = sigmoid(margins), np.where(away, right_share, own)
    right, wrong = given * prior, (1 - given) * (1 - prior)
    ranks = annotator_losses(np.logaddexp(0.0, -margins), names.set(pl.Series(away), None).to_list())
    losses = pl.DataFrame({"annotator": names, "loss": np.logaddexp(0.0, -theirs)})
    medians = losses.drop_nulls("annotator").group_by("annotator").agg(median_loss=pl.col("loss").median())
    known = pl.DataFrame({"annotator": names, "rows": rows[codes], "right_share": own}).drop_nulls("annotator")
    table = known.unique("annotator").join(medians, on="annotator").sort("right_share", "annotator")
    return Annotators(
        right / (right + wrong),
        ranks["loss_rank"].to_numpy(),
        table.select("annotator", "rows", "right_share", "median_loss"),
        int(names.null_count()),
        int(away.sum()),
    )


def annotator_column(frame: pl.DataFrame, column: str | None) -> pl.Series | None:
    if column is None:
        return None
    if column not in frame.columns:
        raise InputError(f"column {column!r} of annotators is missing: found {', '.join(frame.columns)}")
    who = frame[column]
    if who.dtype == pl.String:  # an empty cell, as of a CSV file, names nobody
        who = frame.select(pl.when(pl.col(column).str.strip_chars() != "").then(column))[column]
    return who if who.null_count() < len(who) else None


def with_votes(probability: FloatArray, said: PeoplesVotes | None) -> FloatArray:
    """Log-odds add up: given which answer is better, a vote does not depend on the text model's error."""
    if said is None:
        return probability.copy()
    inside = np.clip(probability, 1e-9, 1 - 1e-9)
    return sigmoid(np.log(inside) - np.log1p(-inside) + said.log_odds)


def people_columns(
    frame: pl.DataFrame,
    people: Annotators | None,
    said: PeoplesVotes | None,
    used: list[str],
    *,
    method: Method = "dawid_skene",
    seed: int = 0,
) -> tuple[pl.DataFrame, list[pl.Series]]:
    """Everybody's reliability, and the columns that people add (null where nobody voted); says what was used."""
    voters, more = [pl.DataFrame(schema=VOTER_SCHEMA)], []
    if people is not None:
        more.append(pl.Series("annotator_loss_rank", people.loss_rank))
        used.append(
            f"{people.table.height} annotator{'s' * (people.table.height != 1)}, "
            "each with their own share of right labels and losses"
            + (f" ({people.unknown:,} rows without one are judged by the whole file)" if people.unknown else "")
            + (f" ({people.turned:,} labels were turned round since, column flipped: each annotator is judged by "
               "what they said, and these rows by the whole file)" if people.turned else "")
        )  # fmt: skip
    if said is not None:
        likely = pl.Series("vote_probability", sigmoid(said.log_odds))
        more.append(likely.set(pl.Series(~said.asked), None))
        voters.append(said.voters)
        joined = f", joined by {METHOD_WORDS[method]}" if said.voted else ""
        people_named = "1 person" if said.voters.height == 1 else f"{said.voters.height:,} people"
        used.append(f"votes of {people_named} on {said.voted:,} row{'s' * (said.voted != 1)}{joined}")
    if {"chosen_rewards", "rejected_rewards"} <= set(frame.columns):
        models = model_reliability(frame, method=method, seed=seed)
        if models is not None:
            voters.append(models)
            used.append(f"{METHOD_WORDS[method]} over the reward models, for their reliability only")
    return pl.concat(voters), more

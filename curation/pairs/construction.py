"""Pairs as a view over candidates: which two answers to a prompt are compared.

Everything is a polars expression; no row is visited in Python but to hash its identifiers. The strategies
are in :mod:`curation.pairs.strategies`, ``tournament`` and ``behaviour``; pairs that the sources bring in
``provided``. Which of the pairs are kept is :mod:`curation.pairs.selection`.
"""

from __future__ import annotations

import math
from hashlib import sha256
from typing import Final, Literal, NamedTuple, get_args

import polars as pl

from curation.errors import InputError, closest
from curation.pairs import strategies
from curation.pairs.ranking import Ranking, rank_candidates
from curation.pairs.tournament import tournament_pairs
from curation.tables import concat_rejects, rejects_frame
from curation.text import pair_id

__all__ = [
    "ORDER_IS_KNOWN",
    "PAIR_KEY",
    "BuiltPairs",
    "Strategy",
    "build_pairs",
    "once_each",
    "pair_ids",
    "without_conflicts",
]

Strategy = Literal[
    "best_vs_worst", "best_vs_random", "best_vs_median", "best_vs_each", "margin_window", "all", "first_round",
    "tournament", "diverse",
]  # fmt: skip
"""The ways of pairing that go by a score."""

ORDER_IS_KNOWN: Final = ("constructed", "template_vs_forget", "refusal_vs_compliance", "refusal_faults")
"""Strategies whose pairs rest on no label: how the answers were made, or what is expected, says which is better."""
PAIR_KEY: Final = ("prompt_id", "chosen_id", "rejected_id")
_ID: Final = r"^[0-9a-f]{32}$"


class BuiltPairs(NamedTuple):
    """Pairs, and what could not become one."""

    pairs: pl.DataFrame
    """pair_id, prompt_id, chosen_id, rejected_id, margin, strategy; margin_scale where it is known."""
    rejects: pl.DataFrame
    """rows of table ``rejects``."""


def build_pairs(
    candidates: pl.DataFrame,
    *,
    strategy: Strategy = "best_vs_worst",
    score: str = "score",
    within: str | None = None,
    scale: str | None = None,
    min_margin: float = 0.0,
    max_margin: float = math.inf,
    per_prompt: int = 2,
    seed: int = 0,
) -> BuiltPairs:
    """Pairs of the candidates of each prompt, ranked by a score.

    A pair's margin is the difference of its scores, and it must be *greater* than ``min_margin``: equal
    scores never make a pair. Candidates without a finite score take no part. Ties for the best or the
    worst are broken by identifier, so the order of the rows does not matter.

    Args:
        candidates: columns ``prompt_id``, ``candidate_id`` and the score; one row a candidate.
        strategy: which answers meet:

            - ``best_vs_worst``;
            - ``best_vs_random``: a seeded draw among those scored lower (UltraFeedback, Cui et al. 2023);
            - ``best_vs_median``: of an even number of answers, the lower of the two in the middle;
            - ``best_vs_each``: every other answer (Curry-DPO, Pattnaik et al. 2024);
            - ``margin_window``: every pair with a margin of at most ``max_margin``;
            - ``all``: every pair above the margin;
            - ``first_round``, ``tournament``: seeded matches, one round or until one is left (RSO, Liu et al.
              2023);
            - ``diverse``: ``per_prompt`` pairs in which answers recur as seldom as they can.
        score: the column that ranks; higher is better.
        within: a column; only candidates of one prompt with the same value there are compared. A candidate may
            stand in several rows, with the score that it has among those of each.
        scale: a column with the unit of the score, one for all that are compared: the pairs' ``margin_scale``.
        min_margin: in the unit of the score, at least 0.
        max_margin: for ``margin_window``.
        per_prompt: for ``diverse``.
        seed: of the draws.

    Returns:
        The pairs in the order of the prompts, the largest margin first; and one reject for each prompt that
        has none (``one_candidate``, ``scores_not_comparable``, ``tied_scores``, ``margin_too_small``,
        ``margin_outside_window``), each unscored candidate (``no_score``) and each match without a winner
        (``match_tied``, ``match_too_close``).

    Raises:
        InputError: for a strategy that is not known, or bounds that leave no room.
    """
    _checked(strategy, min_margin, max_margin, per_prompt)
    ranking = rank_candidates(candidates, score=score, within=within, scale=scale)
    undecided: pl.DataFrame | None = None
    match strategy:
        case "best_vs_random":
            found = strategies.best_vs_random(ranking, min_margin=min_margin, seed=seed)
        case "margin_window":
            found = strategies.margin_window(ranking, min_margin=min_margin, max_margin=max_margin)
        case "diverse":
            found = strategies.diverse_pairs(ranking, min_margin=min_margin, per_prompt=per_prompt)
        case "first_round" | "tournament":
            rounds = 1 if strategy == "first_round" else None
            found, undecided = tournament_pairs(ranking, min_margin=min_margin, seed=seed, rounds=rounds)
        case _:
            found = _PLAIN[strategy](ranking, min_margin=min_margin)
    found = found.sort("prompt", "margin", "high", "low", descending=[False, True, False, False])
    matches = () if undecided is None else (_undecided(ranking, undecided, min_margin),)
    window = strategy == "margin_window"
    rejects = concat_rejects(_unscored(ranking), *matches, _without_pair(ranking, found, min_margin, window=window))
    named = _named(ranking, found).with_columns(strategy=pl.lit(strategy))
    if scale is not None:
        named = named.with_columns(margin_scale=ranking.scales.gather(found["prompt"]))
    pairs = pair_ids(named)
    return BuiltPairs(pairs.unique("pair_id", keep="first", maintain_order=True) if within else pairs, rejects)


_PLAIN: Final = {
    "best_vs_worst": strategies.best_vs_worst,
    "best_vs_median": strategies.best_vs_median,
    "best_vs_each": strategies.best_vs_each,
    "all": strategies.all_pairs,
}


def _checked(strategy: str, min_margin: float, max_margin: float, per_prompt: int) -> None:
    known = get_args(Strategy)
    if strategy not in known:
        raise InputError(f"strategy is {strategy!r}{closest(strategy, known)}, expected one of {', '.join(known)}")
    if not min_margin >= 0:
        raise InputError(f"min_margin is {min_margin}, expected a number of at least 0")
    if not max_margin > min_margin:
        raise InputError(f"max_margin is {max_margin}, expected more than min_margin, {min_margin}")
    if per_prompt < 1:
        raise InputError(f"per_prompt is {per_prompt}, expected at least 1")


def _named(ranking: Ranking, found: pl.DataFrame) -> pl.DataFrame:
    """Pairs of row numbers with the identifiers of their prompt and answers."""
    candidates = ranking.frame["candidate_id"]
    return found.select(
        ranking.prompts.gather(found["prompt"]).alias("prompt_id"),
        candidates.gather(found["high"]).alias("chosen_id"),
        candidates.gather(found["low"]).alias("rejected_id"),
        "margin",
    )


def _unscored(ranking: Ranking) -> pl.DataFrame:
    return rejects_frame(
        ranking.unscored,
        table="candidates",
        stage="pairs",
        row_id=pl.col("candidate_id"),
        rule="no_score",
        value=pl.col("score"),
        reason="the candidate has no finite score, so it cannot be ranked",
    )


def _undecided(ranking: Ranking, matches: pl.DataFrame, min_margin: float) -> pl.DataFrame:
    """The matches of a tournament that made no pair."""
    tied = pl.col("margin") == 0
    return rejects_frame(
        pair_ids(_named(ranking, matches)),
        table="pairs",
        stage="pairs",
        row_id=pl.col("pair_id"),
        rule=pl.when(tied).then(pl.lit("match_tied")).otherwise(pl.lit("match_too_close")),
        value=pl.col("margin"),
        threshold=str(min_margin),
        reason=pl.when(tied)
        .then(pl.lit("the two answers that were drawn have the same score"))
        .otherwise(pl.format("the two answers that were drawn differ by {}", "margin")),
    )


def _without_pair(ranking: Ranking, found: pl.DataFrame, min_margin: float, *, window: bool) -> pl.DataFrame:
    """Why a prompt is in no pair."""
    left = _prompts_left(ranking, found)
    few, apart = pl.col("n") < 2, pl.col("most") < 2
    tied, small = pl.col("spread") == 0, pl.col("spread") <= min_margin
    other = "margin_outside_window" if window else "margin_too_small"
    text = "no margin of its pairs lies in the window; the largest is {}" if window else (
        "no two answers that were compared differ enough; the largest margin is {}"
    )  # fmt: skip
    return rejects_frame(
        left,
        table="prompts",
        stage="pairs",
        row_id=pl.col("prompt_id"),
        rule=pl.when(few)
        .then(pl.lit("one_candidate"))
        .when(apart)
        .then(pl.lit("scores_not_comparable"))
        .when(tied)
        .then(pl.lit("tied_scores"))
        .when(small)
        .then(pl.lit("margin_too_small"))
        .otherwise(pl.lit(other)),
        value=pl.col("spread"),
        threshold=pl.lit(str(min_margin)),
        reason=pl.when(few)
        .then(pl.format("the prompt has {} scored candidates, a pair needs two", "n"))
        .when(apart)
        .then(pl.format("no two of the prompt's {} scored candidates have scores on one scale", "n"))
        .when(tied)
        .then(pl.format("all {} candidates of the prompt that were compared have the same score", "most"))
        .when(small)
        .then(pl.format("the largest margin is {}", "spread"))
        .otherwise(pl.format(text, "spread")),
    )


def _prompts_left(ranking: Ranking, found: pl.DataFrame) -> pl.DataFrame:
    """The prompts without a pair: prompt_id, n (scored candidates), most (compared), spread (the largest)."""
    named = ranking.prompts.to_frame().with_row_index("prompt")
    paired = named.join(found.select("prompt"), on="prompt", how="semi")
    left = named.join(paired, on="prompt_id", how="anti", maintain_order="left")
    scored = left.join(ranking.frame, on="prompt", how="left", maintain_order="left")
    sets = scored.group_by("prompt_id", "prompt", maintain_order=True).agg(
        "candidate_id",
        most=pl.col("candidate_id").count(),
        spread=pl.col("score").max() - pl.col("score").min(),
    )
    return sets.group_by("prompt_id", maintain_order=True).agg(
        n=pl.col("candidate_id").list.explode().drop_nulls().n_unique(),
        most=pl.col("most").max(),
        spread=pl.col("spread").max(),
    )


def once_each(pairs: pl.DataFrame) -> pl.DataFrame:
    """Each pair once, under the first strategy that built it; but under one that knows its order where one does."""
    known = pl.col("strategy").filter(pl.col("strategy").is_in(ORDER_IS_KNOWN)).first()
    named = pairs.with_columns(strategy=pl.coalesce(known, pl.col("strategy").first()).over("pair_id"))
    return named.unique("pair_id", keep="first", maintain_order=True)


def without_conflicts(pairs: pl.DataFrame, *, heard: pl.DataFrame | None = None) -> BuiltPairs:
    """Leave out pairs that stand in both directions: one of the two labels is wrong, and which is unknown.

    But one whose strategy knows its order stays where the other's does not.

    Args:
        heard: pairs of sources that are not to be built, but are as good a reason against one of the opposite.
    """
    pairs = pairs.with_columns(_known=pl.col("strategy").is_in(ORDER_IS_KNOWN))
    against = pairs
    if heard is not None:
        more = heard.join(pairs, on="pair_id", how="anti", maintain_order="left")
        against = pl.concat([pairs, more.with_columns(_known=pl.lit(value=False))], how="diagonal")
    reverse = against.select(
        "prompt_id", chosen_id="rejected_id", rejected_id="chosen_id", _other="pair_id", _other_known="_known"
    )
    both = pairs.join(reverse, on=PAIR_KEY, maintain_order="left")
    conflicts = both.filter(pl.col("_other_known") | ~pl.col("_known"))
    kept = pairs
    if conflicts.height:
        kept = pairs.join(conflicts, on="pair_id", how="anti", maintain_order="left")
    built = pl.col("_other").is_in(pairs["pair_id"].implode())
    who = pl.when(built).then(pl.format("pair {}", "_other")).otherwise(pl.lit("a source"))
    opposite = pl.concat_str(who, pl.lit(" says the opposite of the same two answers"))
    believed = pl.when("_other_known").then(pl.lit(", and its order is known")).otherwise(pl.lit(""))
    rejects = rejects_frame(
        conflicts,
        table="pairs",
        stage="pairs",
        row_id=pl.col("pair_id"),
        rule="contradictory_pair",
        value=pl.col("_other"),
        reason=pl.when("_known").then(opposite).otherwise(pl.concat_str(opposite, believed)),
    )
    return BuiltPairs(kept.drop("_known"), rejects)


def pair_ids(pairs: pl.DataFrame) -> pl.DataFrame:
    """The frame with its ``pair_id`` in front."""
    if pairs.select(pl.all_horizontal(pl.col(c).str.contains(_ID).all() for c in PAIR_KEY)).item():
        # The encoding of ``content_hash`` put together by polars: every part but the first is 32 bytes long.
        length = pl.lit((32).to_bytes(8, "little").decode())
        start = pl.lit((4).to_bytes(8, "little").decode() + "pair")
        parts = [part for column in PAIR_KEY for part in (length, pl.col(column))]
        encoded = pairs.select(pl.concat_str(start, *parts)).to_series()
        ids = [sha256(text.encode()).hexdigest()[:32] for text in encoded]
    else:
        ids = [pair_id(*key) for key in pairs.select(PAIR_KEY).iter_rows()]
    return pairs.select(pl.Series("pair_id", ids, dtype=pl.String), pl.all())

"""Duplicates as the recipe's section ``hygiene`` asks: of answers, of pairs, and what all share. No stage is here.

Duplicate prompts are dropped in the stage ``hygiene``. What a duplicate is, is decided in ``curation.hygiene``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import polars as pl

from curation.hygiene.duplicates import CONTRADICTORY, MEASURES, RULES, THRESHOLDS, deduplicate
from curation.pairs.construction import ORDER_IS_KNOWN, PAIR_KEY
from curation.publish.formats import strength_column
from curation.recipe.hygiene import AnswerDuplicates, Duplicates, PairDuplicates
from curation.stages.context import Context
from curation.stages.ledger_encoder import LedgerEncoder
from curation.tables import concat_rejects, empty_rejects, rejects_frame
from curation.text_columns import message_texts

__all__ = [
    "Distinct",
    "Repeats",
    "distinct_answers",
    "distinct_pairs",
    "naming_the_last",
    "repeats",
    "search_facts",
    "without_lost_answers",
    "without_lost_opposites",
]


class Distinct(NamedTuple):
    """Rows without their duplicates."""

    kept: pl.DataFrame
    rejects: pl.DataFrame
    facts: dict[str, Any]


class Repeats(NamedTuple):
    """Rows that repeat another one."""

    rows: pl.DataFrame
    """row, rule, duplicate_of, similarity, and value as in ``curation.hygiene.duplicates.Deduplicated``."""
    threshold: float
    """The one that held: the recipe's, or the default of the method."""
    recall: float
    truncated: int


def repeats(
    context: Context,
    texts: pl.DataFrame,
    options: Duplicates | AnswerDuplicates | PairDuplicates,
    *,
    within: str | None = None,
    against: pl.DataFrame | None = None,
) -> Repeats:
    """The rows of ``texts`` (text, and score where the best stays) that one step of the recipe lets go.

    Of pairs, ``texts`` has ``chosen`` and ``rejected``, so that contradictions are told from repeats.
    """
    threshold = options.threshold if options.threshold is not None else THRESHOLDS.get(options.method, 1.0)
    result = deduplicate(
        texts,
        column="text",
        method=options.method,
        threshold=threshold,
        keep=options.keep,
        score="score" if options.keep == "best" else None,
        against=against,
        within=within,
        sides=("chosen", "rejected") if "chosen" in texts.columns else None,
        ngram=options.ngram,
        look_alikes=options.look_alikes,
        encoder=LedgerEncoder(context) if options.method == "semantic" else "embedded",
        seed=context.recipe.seed,
        keys=context.band_keys,
    )
    return Repeats(result.rejects.drop_nulls("duplicate_of"), threshold, result.recall, result.truncated)


def distinct_answers(context: Context, candidates: pl.DataFrame, *, standings: pl.DataFrame) -> Distinct:
    """The candidates without those that nearly repeat another one; see ``recipe.hygiene.AnswerDuplicates``.

    Args:
        standings: by which the best stays, as ``pairs.source_scores.standings`` gives them.
    """
    kept, rejects, facts = candidates, empty_rejects(), dict[str, Any]()
    for options in context.recipe.hygiene.answers:
        within = "prompt_id" if options.scope == "prompt" else None
        told = kept.select("candidate_id", "prompt_id", text="response")
        texts = told.join(standings, on="candidate_id", how="left", maintain_order="left").rename(
            {"standing": "score"}
        )
        gone = _duplicates(context, texts, options, key="candidate_id", what="the answer", within=within)
        kept = kept.join(
            gone.rejects.select(candidate_id="row_id"), on="candidate_id", how="anti", maintain_order="left"
        )
        rejects = concat_rejects(rejects, gone.rejects.with_columns(table=pl.lit("candidates")))
        facts = _added(facts, gone.facts)
    return Distinct(kept, naming_the_last(rejects, own="row_id", kept="value"), facts)


def distinct_pairs(context: Context, frame: pl.DataFrame) -> Distinct:
    """Rows of ``preference`` without those that nearly repeat another; see ``recipe.hygiene.PairDuplicates``."""
    kept, rejects, facts = frame, empty_rejects(), dict[str, Any]()
    for options in context.recipe.hygiene.pairs:
        sides = {side: message_texts(kept[side]) for side in ("chosen", "rejected")}
        texts = kept.select(
            "pair_id", text=_joined(kept), score=pl.col(strength_column(kept)).cast(pl.Float64), **sides
        )
        gone = _duplicates(context, texts, options, key="pair_id", what="the pair", within=None)
        kept = kept.join(gone.rejects.select(pair_id="row_id"), on="pair_id", how="anti", maintain_order="left")
        rejects = concat_rejects(rejects, gone.rejects.with_columns(table=pl.lit("pairs")))
        facts = _added(facts, gone.facts)
    return Distinct(kept, _naming_the_contradicted(rejects), facts)


def _naming_the_contradicted(rejects: pl.DataFrame) -> pl.DataFrame:
    """Each repeat naming a pair that stays to the end, or that it was contradicted in a later step."""
    contradicts = pl.col("rule") == CONTRADICTORY
    opposed = rejects.filter(contradicts)
    repeated = naming_the_last(rejects.filter(~contradicts), own="row_id", kept="value")
    gone = pl.col("value").is_in(opposed["row_id"].implode())
    said = pl.col("reason").str.replace(r" (which )?stays \(", " ${1}was then contradicted (")
    reason = pl.when(gone).then(said).otherwise("reason")
    return concat_rejects(repeated.with_columns(reason=reason), opposed)


def without_lost_answers(context: Context, pairs: pl.DataFrame) -> Distinct:
    """Pairs of which both answers are in ``candidates``; the rejects say why the other answers are not."""
    candidates = context.workspace.scan("candidates").select("candidate_id").collect()
    why = (
        context.workspace.scan("rejects")
        .filter((pl.col("stage") == "candidates") & (pl.col("table") == "candidates"))
        .select("row_id", why="reason")
        .unique("row_id", keep="first", maintain_order=True)
        .collect()
    )
    lost = pl.concat(
        [
            pairs.join(candidates, left_on=side, right_on="candidate_id", how="anti", maintain_order="left").select(
                "pair_id", answer=side, side=pl.lit(side.removesuffix("_id"))
            )
            for side in ("chosen_id", "rejected_id")
        ]
    ).unique("pair_id", keep="first", maintain_order=True)
    lost = lost.join(why, left_on="answer", right_on="row_id", how="left", maintain_order="left")
    rejects = rejects_frame(
        lost,
        table="pairs",
        stage="pairs",
        row_id=pl.col("pair_id"),
        rule="answer_dropped",
        value=pl.col("answer"),
        reason=pl.format(
            "its {} answer was dropped: {}", "side", pl.col("why").fill_null("it is not among the candidates")
        ),
    )
    kept = pairs.join(lost, on="pair_id", how="anti", maintain_order="left")
    return Distinct(kept, rejects, {"pairs whose answer was dropped": lost.height} if lost.height else {})


def without_lost_opposites(context: Context, pairs: pl.DataFrame, *, lost: pl.DataFrame) -> Distinct:
    """Pairs that no pair contradicts which went because an answer of it nearly repeats one of theirs.

    That pair cannot be published, but what it says of the two answers is as good as the opposite label: which is
    right is unknown, as of pairs that stand in both directions.

    Args:
        pairs: those that are left, with ``strategy``.
        lost: likewise, pairs of which an answer was dropped.
    """
    repeats = [f"{rule}_answer" for rule in RULES.values()]
    stays = (
        context.workspace.scan("rejects")
        .filter((pl.col("stage") == "candidates") & pl.col("rule").is_in(repeats))
        .select("row_id", "value")
        .collect()
    )
    named = lost
    for side in ("chosen_id", "rejected_id"):
        other = stays.rename({"row_id": side, "value": f"_{side}"})
        named = named.join(other, on=side, how="left", maintain_order="left")
        named = named.with_columns(pl.coalesce(f"_{side}", side).alias(side)).drop(f"_{side}")
    reverse = named.select(
        "prompt_id", chosen_id="rejected_id", rejected_id="chosen_id", _other="pair_id", _said="strategy"
    ).unique(PAIR_KEY, keep="first", maintain_order=True)
    against = pairs.join(reverse, on=PAIR_KEY, maintain_order="left")
    against = against.filter(pl.col("_said").is_in(ORDER_IS_KNOWN) | ~pl.col("strategy").is_in(ORDER_IS_KNOWN))
    rejects = rejects_frame(
        against,
        table="pairs",
        stage="pairs",
        row_id=pl.col("pair_id"),
        rule=CONTRADICTORY,
        value=pl.col("_other"),
        reason=pl.format("pair {} says the opposite, of an answer that nearly repeats one of this pair", "_other"),
    )
    kept = pairs.join(against, on="pair_id", how="anti", maintain_order="left")
    name = "pairs that a pair with a repeated answer contradicts"
    return Distinct(kept, rejects, {name: against.height} if against.height else {})


def _duplicates(
    context: Context,
    texts: pl.DataFrame,
    options: AnswerDuplicates | PairDuplicates,
    *,
    key: str,
    what: str,
    within: str | None,
) -> Distinct:
    """The rows that go, as rejects that name the row that stays."""
    found = repeats(context, texts, options, within=within)
    gone = found.rows
    ids = texts[key]
    rows = gone.select(
        ids.gather(gone["row"]).alias("id"), ids.gather(gone["duplicate_of"]).alias("kept"), "similarity", "rule"
    )
    opposite = pl.col("rule") == CONTRADICTORY
    repeat = f"{RULES[options.method]}_{what.removeprefix('the ')}"
    rejects = rejects_frame(
        rows,
        table="",
        stage="",
        row_id=pl.col("id"),
        rule=pl.when(opposite).then("rule").otherwise(pl.lit(repeat)),
        value=pl.col("kept"),
        threshold=str(found.threshold),
        reason=pl.when(opposite)
        .then(pl.format("pair {} has nearly the same answers the other way round", "kept"))
        .otherwise(
            pl.format(
                "{} nearly repeats {}, which stays ({} {})",
                pl.lit(what),
                "kept",
                pl.lit(MEASURES[options.method]),
                pl.col("similarity").round(4),
            )
        ),
    )
    name = f"{options.method} duplicates of {what.removeprefix('the ')}s"
    contradictions = rows.filter(opposite).height
    facts: dict[str, Any] = {name: rejects.height - contradictions}
    if contradictions:
        facts["near pairs that contradict each other"] = contradictions
    facts |= search_facts(found, name)
    return Distinct(texts, rejects, facts)


def naming_the_last(rows: pl.DataFrame, *, own: str, kept: str) -> pl.DataFrame:
    """Rows that go, each naming one that stays to the end: what one step keeps, a later step may let go.

    Args:
        rows: ``own`` (the row, each once), ``kept`` (the one in whose place it goes), ``reason``.
    """
    later = rows.select(pl.col(own).alias(kept), pl.col(kept).alias("_last"))
    found, last = rows, pl.coalesce("_last", kept).alias(kept)
    # A step refers to rows that only later steps drop, so that this comes to an end.
    while not found.join(later, on=kept, how="semi").is_empty():
        found = found.join(later, on=kept, how="left", maintain_order="left").with_columns(last).drop("_last")
    named = rows.with_columns(found[kept].alias("_last"))
    stays = pl.format(", in whose place {} stays", "_last")
    said = pl.col("reason").str.replace(", which stays", stays, literal=True)
    moved = pl.col("_last") != pl.col(kept)
    named = named.with_columns(pl.when(moved).then(said).otherwise("reason").alias("reason"))
    return named.with_columns(pl.col("_last").alias(kept)).drop("_last")


def search_facts(found: Repeats, name: str) -> dict[str, Any]:
    """What the report says of a search that was not complete."""
    facts: dict[str, Any] = {}
    if found.recall < 1:
        facts[f"{name}: recall of the search"] = found.recall
    if found.truncated:
        facts[f"{name}: texts read only in part"] = found.truncated
    return facts


def _added(facts: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """The facts of several steps: counts add up, of recalls the least is told."""
    both = dict(facts)
    for name, value in more.items():
        if name not in both:
            both[name] = value
        elif name.endswith("recall of the search"):
            both[name] = min(both[name], value)
        else:
            both[name] += value
    return both


def _joined(frame: pl.DataFrame) -> pl.Series:
    """Prompt, chosen and rejected answer of each row as one text."""
    sides = [message_texts(frame[side]).alias(side) for side in ("prompt", "chosen", "rejected")]
    return pl.DataFrame(sides).select(pl.concat_str(pl.all(), separator="\n\n").alias("text")).to_series()

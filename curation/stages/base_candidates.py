"""The answers that sources bring and models give, before any are constructed. No stage is here."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import polars as pl

from curation.candidates.checks import CUT_OFF
from curation.pairs.source_scores import standings, with_one_scale
from curation.stages.answer_checks import checked_answers
from curation.stages.brought import scores_of_sources
from curation.stages.chosen_samples import chosen_samples
from curation.stages.context import Context
from curation.stages.duplicates import distinct_answers
from curation.stages.forgotten import Forgotten, without_forgotten_answers
from curation.stages.generations import asked_of
from curation.stages.hygiene import prompted_inputs
from curation.tables import concat_rejects, empty_rejects, rejects_frame
from curation.text import canonical_json
from curation.text_columns import response_ids
from schemas import TABLES

__all__ = ["BaseCandidates", "base_candidates"]

_STAGE: Final = "candidates"


class BaseCandidates(NamedTuple):
    """Answers as rows of table ``candidates``, each once."""

    kept: pl.DataFrame
    weaker: pl.DataFrame
    """What only models said that the recipe marks ``only_as_rejected``."""
    rejects: pl.DataFrame
    facts: dict[str, Any]


def base_candidates(context: Context) -> BaseCandidates:
    """Every distinct answer of the sources and the generators. Reads the ledger; calls no generator."""
    provided = _provided(prompted_inputs(context)).collect()
    generated, rejects = _generated(context)
    columns = [*TABLES["candidates"].column_names(), "_weaker"]
    found = pl.concat([provided.select(columns), generated.select(columns)], how="vertical")
    found, forgotten = without_forgotten_answers(found, Forgotten(context.workspace), stage=_STAGE)
    # A provided answer comes first, so it keeps its origin when a model says the same. What one model says that
    # is not marked as worse is not worse because another one said it, too.
    found = found.sort("_weaker", maintain_order=True)
    together = ("candidate_id", "generator", "occurrences", "provided_score", "_weaker")
    # Who wrote a provided answer is what a source says, and not a model that says the same.
    alike = pl.col("origin") == pl.col("origin").first()
    candidates = found.group_by("candidate_id", maintain_order=True).agg(
        *(pl.col(c).first() for c in columns if c not in together),
        pl.col("generator").filter(alike).drop_nulls().first(),
        pl.col("occurrences").sum(),
        pl.col("_weaker").all(),
    )
    scores = scores_of_sources(context)
    candidates = candidates.join(with_one_scale(scores), on="candidate_id", how="left", maintain_order="left")
    merged = found.height - candidates.height
    cut = candidates.filter(pl.col("finish_reason").is_in(CUT_OFF)).height
    distinct = distinct_answers(
        context, candidates.filter(~pl.col("_weaker")).drop("_weaker"), standings=standings(scores)
    )
    facts = {"repeated answers merged": merged, "answers cut off": cut} | distinct.facts
    rejects = concat_rejects(rejects, forgotten, distinct.rejects)
    return BaseCandidates(distinct.kept, candidates.filter("_weaker").drop("_weaker"), rejects, facts)


def _provided(inputs: pl.LazyFrame) -> pl.LazyFrame:
    """The answers that the sources bring."""
    exploded = (
        inputs.filter(pl.col("responses").list.len() > 0)
        .with_columns(generators=pl.coalesce("generators", pl.col("responses").list.eval(pl.lit(None, pl.String))))
        .select("prompt_id", "responses", "candidate_ids", generator="generators")
        .explode("responses", "candidate_ids", "generator")
    )
    empty = TABLES["candidates"].create_empty().schema
    return exploded.select(
        "prompt_id",
        "generator",
        candidate_id=pl.col("candidate_ids"),
        response=pl.col("responses"),
        origin=pl.lit("provided"),
        occurrences=pl.lit(1, dtype=pl.Int64),
        provided_score=pl.lit(None, dtype=pl.Float64),
        _weaker=pl.lit(value=False),
        **{c: pl.lit(None, dtype=empty[c]) for c in _GENERATED_ONLY},
    )


def _generated(context: Context) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The answers that the recipe's generators gave, and what became of the rest."""
    prompts = context.workspace.read("prompts")
    empty = pl.DataFrame(TABLES["candidates"].create_empty())
    first = empty.with_columns(request_id=pl.lit(None, dtype=pl.String), _weaker=pl.lit(value=False))
    frames: list[pl.DataFrame] = [first.select("request_id", *empty.columns, "_weaker")]
    rejects = [empty_rejects()]
    for step, requests in asked_of(context, prompts):
        asked = requests["request_id"]
        answers = context.ledger.fetch(step.key, asked)
        kept, unfit = checked_answers(
            context, answers, prompts, model=step.options, row_id="request_id", stage=_STAGE
        )
        frames.append(
            kept.with_columns(
                candidate_id=response_ids(kept["prompt_id"], kept["response"]),
                origin=pl.lit("generated"),
                parameters=pl.lit(canonical_json(step.options.parameters)),
                parent_id=pl.lit(None, dtype=pl.String),
                occurrences=pl.lit(1, dtype=pl.Int64),
                provided_score=pl.lit(None, dtype=pl.Float64),
                _weaker=pl.lit(step.options.only_as_rejected),
            ).select("request_id", *empty.columns, "_weaker")
        )
        rejects.append(unfit)
        rejects.append(
            rejects_frame(
                context.ledger.failures(step.key, asked),
                table="candidates",
                stage=_STAGE,
                row_id=pl.col("row_id"),
                rule=pl.col("rule"),
                value=pl.col("value"),
                reason=pl.col("reason"),
            )
        )
    # Two entries of one model may draw the same system message for a sample: that is one answer, paid for once.
    answers = pl.concat(frames, how="vertical").sort("_weaker", maintain_order=True)
    answers = answers.unique(["generator", "request_id"], keep="first", maintain_order=True)
    chosen = chosen_samples(context, answers, prompts, stage=_STAGE)
    return chosen.kept.drop("request_id"), concat_rejects(*rejects, chosen.rejects)


_GENERATED_ONLY: Final = (
    "parameters",
    "sample_index",
    "finish_reason",
    "prompt_tokens",
    "completion_tokens",
    "cost",
    "parent_id",
    "reasoning",
)

"""Stage ``constructed``: answers made on purpose: subtle errors, refinements, off-topic answers, templates.

How each is made is in ``constructions``. They become candidates, and pairs of their own; no score chooses them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import polars as pl

from curation.candidates.trusted import source_verdicts
from curation.recipe.candidates import Constructed
from curation.stages import constructions
from curation.stages.base_candidates import base_candidates
from curation.stages.constructions import Given, Made
from curation.stages.context import Context, Stage, StageResult
from curation.stages.forgotten import Forgotten, without_forgotten_answers
from curation.stages.hygiene import prompted_inputs
from curation.tables import concat_rejects, rejects_frame
from curation.text import messages_text, response_id
from schemas import TABLES

__all__ = ["STAGE", "constructed_rows", "not_ranked"]

_STAGE: Final = "constructed"


def constructed_rows(context: Context) -> pl.DataFrame:
    """The table ``constructed``; nothing where the recipe makes none."""
    if not context.recipe.constructs:
        return pl.DataFrame(TABLES["constructed"].create_empty())
    return context.workspace.read("constructed")


def not_ranked(context: Context, *, but: tuple[str, ...] = ("refined",)) -> pl.DataFrame:
    """candidate_id of the constructed answers that neither a score nor a detector may choose.

    Args:
        but: constructions that may take part all the same.

    Returns:
        None at all where the recipe lets them be ranked (``pairs.rank_constructed``).
    """
    if context.recipe.pairs.rank_constructed:
        return pl.DataFrame(schema={"candidate_id": pl.String})
    return constructed_rows(context).filter(~pl.col("construction").is_in(but)).select("candidate_id")


def run(context: Context) -> StageResult:
    base = base_candidates(context)
    given = _given(context, base.kept, base.weaker)
    made = list(_made(context, given))
    rows = pl.concat([m.rows for m in made]) if made else TABLES["constructed"].create_empty().drop("candidate_id")
    ids = [response_id(p, r) for p, r in rows.select("prompt_id", "response").iter_rows()]
    rows = pl.DataFrame(rows).with_columns(candidate_id=pl.Series(ids, dtype=pl.String))
    known = rows.join(base.kept, on="candidate_id", how="semi", maintain_order="left")
    # A template may well say what an answer says; it is then that answer.
    rejects = rejects_frame(
        known, table="candidates", stage=_STAGE, rule="already_an_answer",
        row_id=pl.concat_str("candidate_id", pl.lit(" as "), "construction"), value=pl.col("candidate_id"),
        reason="the same text is an answer of a source or a model already, so nothing is known of it",
    )  # fmt: skip
    fresh = rows.join(base.kept, on="candidate_id", how="anti", maintain_order="left")
    repeated = fresh.filter(~pl.col("candidate_id").is_first_distinct())
    twice = rejects_frame(
        repeated.unique(["candidate_id", "construction"], keep="first", maintain_order=True), table="candidates",
        stage=_STAGE, rule="made_twice", row_id=pl.concat_str("candidate_id", pl.lit(" as "), "construction"),
        value=pl.coalesce("parent_id", "candidate_id"),
        reason="the same text was made for the prompt before, and stays as what it was made first",
    )  # fmt: skip
    fresh = fresh.unique("candidate_id", keep="first", maintain_order=True)
    fresh, forgotten = without_forgotten_answers(fresh, Forgotten(context.workspace), stage=_STAGE)
    facts = dict(fresh["construction"].value_counts(sort=True).iter_rows())
    facts["right answers to start from"] = given.right.height
    rejects = concat_rejects(rejects, twice, forgotten, *(m.rejects for m in made))
    return context.write(_STAGE, _STAGE, fresh, rejects=rejects, facts=facts)


def _made(context: Context, given: Given) -> Iterator[Made]:
    """Everything that the recipe asks for. What comes first keeps a text that two of them make."""
    options = context.recipe.constructed or Constructed()
    if options.template_refusals:
        yield constructions.refusals(context, given, options)
    if context.recipe.pairs.forget_sources:
        yield constructions.forget(context, given, options)
    if options.refinement is not None:
        yield constructions.refined(context, given, options.refinement, verifier=options.verifier)
    if options.subtle_errors is not None:
        yield constructions.with_errors(context, given, options)
    if options.word_errors is not None:
        yield constructions.with_word_errors(context, given, options.word_errors)
    if options.off_topic is not None:
        yield constructions.off_topic(context, given, options)
    if not given.weaker.is_empty():
        yield constructions.weaker(given)


def _given(context: Context, candidates: pl.DataFrame, weaker: pl.DataFrame) -> Given:
    prompts = context.workspace.scan("prompts").select(
        "prompt_id", "messages", "source", "expected_behaviour", "split", "family_id", "group_id"
    ).collect()  # fmt: skip
    texts = pl.Series("text", [messages_text(m) for m in prompts["messages"].to_list()], dtype=pl.String)
    prompts = prompts.with_columns(texts, group_id=pl.coalesce("group_id", "family_id"))
    answers = candidates.select("prompt_id", "candidate_id", "response")
    said = source_verdicts(prompted_inputs(context).collect()).drop("prompt_id")
    judged = answers.join(said, on="candidate_id", how="left", maintain_order="left")
    by_source = judged.filter(pl.col("right")).drop("right")
    known = by_source.group_by("prompt_id", maintain_order=True).agg(known="response")
    given = Given(prompts, by_source, judged.filter(~pl.col("right")).drop("right"), known, weaker)
    options = context.recipe.constructed
    if options is None or options.right == "sources":
        return given
    assert options.verifier is not None
    passed = constructions.verified(options.verifier, given, answers)
    return given._replace(right=answers.filter(passed), wrong=answers.filter(~passed))


STAGE = Stage(
    name=_STAGE,
    group="candidates",
    description="Answers made on purpose: subtle errors, refinements, off-topic answers, templates.",
    needs=("inputs", "hygiene", "prompts", "generations"),
    run=run,
    table=_STAGE,
    version=3,
    enabled=lambda recipe: recipe.constructs,
    uses_model=True,
)

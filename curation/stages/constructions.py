"""The ways of making answers that the recipe's section ``constructed`` asks for, one function each.

Each returns rows with ``prompt_id``, ``response``, ``construction``, ``detail``, ``role``, ``opponent_id``,
``origin``, ``parent_id`` and what is known of a model's reply. The stage that calls them is ``constructed``.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import polars as pl

from curation.candidates.off_topic import off_topic_answers
from curation.candidates.rewriting import ERROR_INSTRUCTION, REFINE_INSTRUCTION, check_rewrites, rewrite_request
from curation.candidates.subtle_errors import subtle_errors
from curation.candidates.templates import bundled_templates, template_answers
from curation.candidates.verifiers import verify
from curation.recipe.candidates import Constructed, Refinement, WordErrors
from curation.stages.answer_checks import checked_answers
from curation.stages.brought import prompts_of
from curation.stages.context import Context
from curation.stages.refusals import candidate_refusals, compute_refusals
from curation.stages.rewritten import rewritten
from curation.tables import concat_rejects, empty_rejects, rejects_frame

__all__ = [
    "Given",
    "Made",
    "forget",
    "off_topic",
    "refined",
    "refusals",
    "verified",
    "weaker",
    "with_errors",
    "with_word_errors",
]

_STAGE: Final = "constructed"


class Given(NamedTuple):
    """What there is to make answers from."""

    prompts: pl.DataFrame
    """prompt_id, messages, source, expected_behaviour, split, group_id, text."""
    right: pl.DataFrame
    """prompt_id, candidate_id, response of the answers that are right."""
    wrong: pl.DataFrame
    """The same of those that are known to be wrong."""
    known: pl.DataFrame
    """prompt_id, known: lists of the right answers of the sources."""
    weaker: pl.DataFrame
    """Candidates of the models that only ever answer worse."""


class Made(NamedTuple):
    """Constructed answers."""

    rows: pl.DataFrame
    rejects: pl.DataFrame


def with_errors(context: Context, given: Given, options: Constructed) -> Made:
    """Right answers with a number or a symbol made wrong."""
    assert options.subtle_errors is not None
    made = subtle_errors(
        given.right,
        kinds=options.subtle_errors.kinds,
        per_answer=options.subtle_errors.per_answer,
        seed=context.recipe.seed,
    )
    parents = given.right.select("prompt_id", parent_id="candidate_id")
    rows = made.edited.join(parents, on="parent_id", maintain_order="left")
    rejects = _rejects(
        made.untouched, "parent_id", "no_place_for_an_error", "the rules found no number or symbol to make wrong"
    )
    return Made(
        _as_rows(rows, "subtle_error", "rejected", "edited", detail=pl.col("kind"), opponent="parent_id"), rejects
    )


def with_word_errors(context: Context, given: Given, options: WordErrors) -> Made:
    """Right answers that a chat model made wrong in one place."""
    fit, unfit, rejects = _answers_rewritten(context, given, given.right, ERROR_INSTRUCTION, options)
    rows = _as_rows(fit, "subtle_error", "rejected", "edited", detail=pl.lit("words"), opponent="parent_id")
    return Made(rows, concat_rejects(rejects, unfit))


def refined(context: Context, given: Given, options: Refinement, *, verifier: str | None) -> Made:
    """Failing answers that a chat model corrected; the failing one is their opponent."""
    fit, unfit, rejects = _answers_rewritten(context, given, given.wrong, REFINE_INSTRUCTION, options)
    if verifier is not None and fit.height:
        passed = verified(verifier, given, fit).fill_null(value=False)
        failing = _rejects(fit.filter(~passed), "item_id", "refinement_still_wrong", "the verifier did not pass it")
        fit, unfit = fit.filter(passed), concat_rejects(unfit, failing)
    return Made(_as_rows(fit, "refined", "chosen", "edited", opponent="parent_id"), concat_rejects(rejects, unfit))


def _answers_rewritten(
    context: Context, given: Given, answers: pl.DataFrame, instruction: str, options: WordErrors | Refinement
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Answers that a chat model rewrote: those that fit, rejects of the others, and rejects without a reply."""
    items = _with_request(given, answers)
    asked = [
        rewrite_request(instruction, {"Request": p, "Answer": r})
        for p, r in items.select("text", "before").iter_rows()
    ]
    replies, rejects = rewritten(context, options.model, items, asked, table="candidates", stage=_STAGE)
    by_words = isinstance(options, WordErrors)
    return *_fit(context, given, replies, options, by_words=by_words), rejects


def off_topic(context: Context, given: Given, options: Constructed) -> Made:
    """For each prompt with a right answer, the right answer of another prompt of its split.

    From another split it would be an answer of the test set that training calls bad, word for word.
    """
    assert options.off_topic is not None
    comply = given.prompts.filter(pl.col("expected_behaviour").fill_null("") != "refuse")
    asked = comply.select("prompt_id", "text", "split", family_id="group_id")
    right = given.right.unique("prompt_id", keep="first", maintain_order=True)
    donors = right.join(asked, on="prompt_id", maintain_order="left")
    donors = _without_refusals(context, given, donors)
    asked = asked.join(right, on="prompt_id", how="semi", maintain_order="left")
    made = [
        off_topic_answers(
            asked.filter(pl.col("split") == split).drop("split"),
            donors.filter(pl.col("split") == split),
            max_similarity=options.off_topic.max_similarity,
            min_words=options.off_topic.min_words,
            seed=context.recipe.seed,
        )
        for split in asked["split"].unique().sort().to_list() or ["train"]
    ]
    rows = pl.concat([one.borrowed for one in made]).join(
        right.select("prompt_id", opponent="candidate_id"), on="prompt_id", maintain_order="left"
    )
    rejects = rejects_frame(
        pl.concat([one.none_found for one in made]), table="prompts", stage=_STAGE, row_id=pl.col("prompt_id"),
        rule="no_off_topic_answer", reason="no answer to another prompt of its split is far enough from the prompt",
    )  # fmt: skip
    return Made(_as_rows(rows, "off_topic", "rejected", "borrowed", opponent="opponent"), rejects)


def weaker(given: Given) -> Made:
    """Answers of the models that the recipe marks as worse, against a right answer where there is one."""
    right = given.right.unique("prompt_id", keep="first", maintain_order=True)
    rows = given.weaker.join(
        right.select("prompt_id", opponent="candidate_id"), on="prompt_id", how="left", maintain_order="left"
    )
    return Made(_as_rows(rows, "weaker_model", "rejected", "generated", opponent="opponent"), empty_rejects())


def refusals(context: Context, given: Given, options: Constructed) -> Made:
    """A template refusal for each prompt that is to be refused."""
    prompts = given.prompts.filter(pl.col("expected_behaviour") == "refuse")["prompt_id"]
    templates = options.refusal_templates or bundled_templates("refusal")
    rows = template_answers(prompts, templates=templates, seed=context.recipe.seed)
    return Made(_as_rows(rows, "template_refusal", "chosen", "template"), empty_rejects())


def forget(context: Context, given: Given, options: Constructed) -> Made:
    """A template that knows nothing for each prompt that is to be forgotten."""
    theirs = prompts_of(context, context.recipe.pairs.forget_sources)
    prompts = given.prompts.filter(pl.col("prompt_id").is_in(theirs.implode()))["prompt_id"]
    templates = options.forget_templates or bundled_templates("forget")
    rows = template_answers(prompts, templates=templates, seed=context.recipe.seed)
    return Made(_as_rows(rows, "template_forget", "chosen", "template"), empty_rejects())


def verified(verifier: str, given: Given, answers: pl.DataFrame) -> pl.Series:
    """Whether each answer is right by the verifier; null where that cannot be told."""
    rows = answers.select("prompt_id", "response").join(
        given.prompts.select("prompt_id", "messages"), on="prompt_id", how="left", maintain_order="left"
    )
    rows = rows.join(given.known, on="prompt_id", how="left", maintain_order="left")
    known = [one or [] for one in rows["known"].to_list()]
    return verify(verifier, rows["messages"].to_list(), rows["response"].to_list(), known)


def _with_request(given: Given, answers: pl.DataFrame) -> pl.DataFrame:
    """Answers to rewrite: item_id, parent_id, prompt_id, text (of the prompt), before."""
    texts = given.prompts.select("prompt_id", "text")
    return answers.select("prompt_id", parent_id="candidate_id", item_id="candidate_id", before="response").join(
        texts, on="prompt_id", maintain_order="left"
    )


def _fit(
    context: Context, given: Given, replies: pl.DataFrame, options: WordErrors | Refinement, *, by_words: bool
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Rewritten answers that are fit for use, and as rejects the rest."""
    sound, unsound = checked_answers(
        context, replies, given.prompts, model=options.model, row_id="item_id", stage=_STAGE
    )
    written = sound.with_columns(after=pl.col("response"))
    checked = check_rewrites(written, min_similarity=options.min_similarity, by_words=by_words)
    bad = checked.drop_nulls("rule")
    rejects = rejects_frame(
        bad, table="candidates", stage=_STAGE, row_id=pl.col("item_id"), rule=pl.col("rule"), value=pl.col("value"),
        threshold=str(options.min_similarity), reason=pl.col("reason"),
    )  # fmt: skip
    return checked.filter(pl.col("rule").is_null()).drop("rule", "value", "reason"), concat_rejects(
        unsound, rejects
    )


def _without_refusals(context: Context, given: Given, donors: pl.DataFrame) -> pl.DataFrame:
    """Donors that do not refuse: a refusal fits any prompt."""
    if context.recipe.refusals is None or donors.is_empty():
        return donors
    rows = donors.join(given.prompts.select("prompt_id", "messages"), on="prompt_id", maintain_order="left")
    compute_refusals(context, rows.select("candidate_id", "prompt_id", "messages", "response"))
    found = candidate_refusals(context, donors["candidate_id"])
    complying = found.filter(pl.col("refusal_class") == "compliance")
    return donors.join(complying, on="candidate_id", how="semi", maintain_order="left")


def _rejects(frame: pl.DataFrame, column: str, rule: str, reason: str) -> pl.DataFrame:
    return rejects_frame(frame, table="candidates", stage=_STAGE, row_id=pl.col(column), rule=rule, reason=reason)


def _as_rows(
    frame: pl.DataFrame,
    construction: str,
    role: str,
    origin: str,
    *,
    detail: pl.Expr | None = None,
    opponent: str | None = None,
) -> pl.DataFrame:
    """Rows of table ``constructed`` without their identifier."""
    nothing = pl.lit(None, dtype=pl.String)
    types = {
        "parent_id": pl.String, "generator": pl.String, "parameters": pl.String, "finish_reason": pl.String,
        "prompt_tokens": pl.Int64, "completion_tokens": pl.Int64, "cost": pl.Float64, "reasoning": pl.String,
    }  # fmt: skip
    rest = {
        name: pl.col(name) if name in frame.columns else pl.lit(None, dtype=dtype) for name, dtype in types.items()
    }
    return frame.select(
        "prompt_id",
        "response",
        construction=pl.lit(construction),
        detail=nothing if detail is None else detail,
        role=pl.lit(role),
        opponent_id=nothing if opponent is None else pl.col(opponent),
        origin=pl.lit(origin),
        **rest,
    )

"""R-Tuning's sure and unsure rows of dataset ``refusal``. No stage is here.

What makes an answer sure is in ``curation.refusals.certainty``. All that a model sampled counts, also what
``sampling`` or deduplication left out of the candidates: the spread of its answers is what is asked for.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import polars as pl

from curation.recipe.refusals import RTuning
from curation.refusals.building import RESPOND
from curation.refusals.certainty import r_tuning
from curation.stages.answer_checks import checked_answers
from curation.stages.brought import prompts_of
from curation.stages.context import Context
from curation.stages.drawn import right_answers
from curation.stages.generations import asked_of
from curation.stages.refusals import candidate_refusals
from curation.stages.requests import with_expectations
from curation.tables import concat_rejects, rejects_frame
from curation.text import response_id

__all__ = ["CERTAINTY_COLUMNS", "Certain", "certain_rows"]

CERTAINTY_COLUMNS: dict[str, Any] = {
    "certainty": pl.String,
    "answers_read": pl.Int64,
    "answer_entropy": pl.Float64,
    "answer_correct": pl.Boolean,
}
"""What these rows have beside the columns of ``refusal``: how sure, and from what it was told."""


class Certain(NamedTuple):
    """The rows and what was left out."""

    frame: pl.DataFrame
    """The columns of ``refusal`` but ``split``, and ``CERTAINTY_COLUMNS``."""
    rejects: pl.DataFrame
    facts: dict[str, int | str]


def certain_rows(context: Context, options: RTuning, *, stage: str) -> Certain:
    """One row a question of which it can be told how sure the model is; the others are rejects."""
    prompts = context.workspace.read("prompts")
    asked = _questions(context, with_expectations(context, prompts), prompts, options)
    answers = _answers(context, options, prompts)
    refused = asked.join(_refused(context, options, answers), on="prompt_id", maintain_order="left")
    questions = asked.join(refused, on="prompt_id", how="anti", maintain_order="left")
    found = r_tuning(
        questions.join(answers, on="prompt_id", how="left", maintain_order="left").join(
            right_answers(context).rename({"right": "gold"}), on="prompt_id", how="left", maintain_order="left"
        ),
        by=options.by,
        verifier=options.verifier,
        max_entropy=options.max_entropy,
        min_answers=options.min_answers,
        family="family_id",
        sure=options.sure,
        unsure=options.unsure,
    )
    stated = _with_verdicts(context, found.frame)
    complies = pl.col("refusal_class") == "compliance"
    rejects = concat_rejects(
        _reject(_named(found.rejects, questions), stage, pl.col("rule"), pl.col("value"), pl.col("reason")),
        _reject(
            refused, stage, pl.lit("answer_refuses"), pl.col("refusal_class"),
            pl.lit("most of the model's samples refuse, which says nothing of what it knows"),
        ),
        _reject(
            stated.filter(~complies), stage, pl.lit("answer_refuses"), pl.col("refusal_class"),
            pl.lit("what would be stated refuses, so it says nothing of what the model knows"),
        ),
        _reject(
            stated.filter(complies.is_null()), stage, pl.lit("refusal_not_detected"), pl.lit(None, dtype=pl.String),
            pl.lit("there is no verdict on whether what would be stated refuses"),
        ),
    )  # fmt: skip
    kept = stated.filter(complies)
    facts: dict[str, int | str] = {"questions": asked.height}
    if mutated := asked.height - asked["family_id"].n_unique():
        facts["of them mutated from another"] = mutated
    facts |= dict(kept["certainty"].value_counts().sort("certainty").iter_rows())
    return Certain(_published(kept, prepend=context.recipe.refusal_dataset.prepend), rejects, facts)


def _questions(context: Context, expected: pl.DataFrame, prompts: pl.DataFrame, options: RTuning) -> pl.DataFrame:
    """Never prompts that should be refused: being sure of an answer to them is the opposite of what is wanted.

    Args:
        expected: the prompts with the behaviour that is given or, where the recipe says so, predicted.
        prompts: the same with what is given.
    """
    unknown = prompts["expected_behaviour"].is_null()
    named = unknown
    if options.sources:
        named = prompts["prompt_id"].is_in(prompts_of(context, options.sources).implode())
    answered = expected["expected_behaviour"].ne_missing("refuse")
    asked = prompts.filter(named & answered).select("prompt_id", "messages", "category", "family_id", "mutation")
    # What a source brings stands before what was mutated from it, and has the vote where the half is sought.
    return asked.sort(pl.col("mutation").is_not_null(), maintain_order=True).drop("mutation")


def _answers(context: Context, options: RTuning, prompts: pl.DataFrame) -> pl.DataFrame:
    """prompt_id, answers: those that the model gave, the first sample first; unfit ones do not count."""
    (model,) = context.recipe.tuned_models(options)
    step, requests = next((s, r) for s, r in asked_of(context, prompts) if s.options == model)
    answers = context.ledger.fetch(step.key, requests["request_id"])
    if options.by == "correctness":
        answers = answers.filter(pl.col("sample_index") == 0)
    fit, _ = checked_answers(context, answers, prompts, model=model, row_id="request_id", stage="refusal")
    grouped = fit.sort("prompt_id", "sample_index").group_by("prompt_id", maintain_order=True)
    return grouped.agg(answers="response")


def _refused(context: Context, options: RTuning, answers: pl.DataFrame) -> pl.DataFrame:
    """The questions most of whose samples refuse: prompt_id, refusal_class. These agree, and know nothing.

    By ``correctness`` there are none: a refusal is not the right answer, and so the model is unsure.
    """
    said = answers.clear() if options.by == "correctness" else answers
    verdicts = _with_verdicts(context, said.explode("answers").rename({"answers": "stated"}))
    shares = verdicts.group_by("prompt_id", maintain_order=True).agg(
        refusing=pl.col("refusal_class").eq_missing("full_refusal").mean()
    )
    return shares.filter(pl.col("refusing") > 0.5).select("prompt_id", refusal_class=pl.lit("full_refusal"))


def _with_verdicts(context: Context, tuned: pl.DataFrame) -> pl.DataFrame:
    pairs = tuned.select("prompt_id", "stated").iter_rows()
    named = tuned.with_columns(candidate_id=pl.Series([response_id(p, s) for p, s in pairs], dtype=pl.String))
    verdicts = candidate_refusals(context, named["candidate_id"])
    wanted = verdicts.select("candidate_id", "refusal_probability", "refusal_class")
    return named.join(wanted, on="candidate_id", how="left", maintain_order="left")


def _named(rejects: pl.DataFrame, questions: pl.DataFrame) -> pl.DataFrame:
    ids = questions.select("prompt_id").with_row_index("row").with_columns(pl.col("row").cast(pl.Int64))
    return rejects.join(ids, on="row", how="left", maintain_order="left")


def _reject(frame: pl.DataFrame, stage: str, rule: pl.Expr, value: pl.Expr, reason: pl.Expr) -> pl.DataFrame:
    return rejects_frame(
        frame, table="refusal", stage=stage, row_id=pl.col("prompt_id"), rule=rule, value=value, reason=reason
    )


def _published(kept: pl.DataFrame, *, prepend: bool) -> pl.DataFrame:
    target = pl.format("{} {}", pl.lit(RESPOND), "target") if prepend else pl.col("target")
    answer = pl.concat_list(pl.struct(role=pl.lit("assistant"), content=target))
    missing = {name: kind for name, kind in CERTAINTY_COLUMNS.items() if name not in kept.columns}
    return kept.with_columns(
        messages=pl.concat_list("messages", answer),
        refusal_token=pl.lit(RESPOND),
        kind=pl.lit("uncertain"),
        **{name: pl.lit(None, dtype=kind) for name, kind in missing.items()},
    ).select(
        "candidate_id", "prompt_id", "messages", "refusal_token", pl.col("category").cast(pl.String), "kind",
        "refusal_probability", *CERTAINTY_COLUMNS,
    )  # fmt: skip

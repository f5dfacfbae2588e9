"""What dataset ``refusal`` and the strategy ``refusal_faults`` choose from. No stage is here."""

from __future__ import annotations

import polars as pl

from curation.candidates.trusted import source_verdicts
from curation.stages.constructed import constructed_rows, not_ranked
from curation.stages.context import Context
from curation.stages.hygiene import prompted_inputs
from curation.stages.quotas import as_named
from curation.stages.refusals import candidate_refusals
from curation.stages.requests import prompt_requests, with_expectations

__all__ = ["called_wrong", "refusal_rows"]


def refusal_rows(context: Context) -> pl.DataFrame:
    """One candidate a row, with its verdict and what is expected of an answer to its prompt."""
    workspace = context.workspace
    candidates = workspace.scan("candidates").select("candidate_id", "prompt_id", "response").collect()
    made = not_ranked(context, but=("refined", "template_refusal"))
    candidates = candidates.join(made, on="candidate_id", how="anti", maintain_order="left")
    prompts = workspace.scan("prompts").select("prompt_id", "messages", "category", "expected_behaviour").collect()
    judged = prompt_requests(context, prompts["prompt_id"]).select("prompt_id", _judged="refusal_category")
    prompts = with_expectations(context, prompts).join(judged, on="prompt_id", how="left", maintain_order="left")
    verdicts = candidate_refusals(context, candidates["candidate_id"]).select(
        "candidate_id", "refusal_probability", "refusal_class", "refusal_kind", _sorted="refusal_category"
    )
    joined = candidates.join(prompts, on="prompt_id", how="left", maintain_order="left").join(
        verdicts, on="candidate_id", how="left", maintain_order="left"
    )
    joined = joined.with_columns(as_named(context, joined["category"]))
    category = pl.coalesce("category", "_judged", "_sorted")
    return joined.with_columns(
        category=category, called_wrong=pl.col("candidate_id").is_in(called_wrong(context).implode())
    ).drop("_judged", "_sorted")


def called_wrong(context: Context) -> pl.Series:
    """The answers that a source calls wrong, and those that were made to be."""
    said = source_verdicts(prompted_inputs(context).collect()).filter(~pl.col("right"))["candidate_id"]
    made = constructed_rows(context).filter(pl.col("role") == "rejected")["candidate_id"]
    return pl.concat([said, made])

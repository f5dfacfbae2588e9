"""What the recipe's models read and wrote in this workspace, and what it cost: for the report. No stage is here."""

from __future__ import annotations

import polars as pl

from curation.stages.context import Context
from curation.stages.generations import generation_steps, rewriting_steps
from curation.stages.spending import judged

__all__ = ["token_facts"]


def token_facts(context: Context) -> dict[str, str]:
    """A line for each model that answers, rewrites or judges, over all runs: tokens, and money."""
    totals = (
        context.workspace.scan("generations")
        .group_by("generator")
        .agg(
            pl.len(),
            pl.col("prompt_tokens", "completion_tokens", "cost").sum(),
            uncounted=(pl.col("prompt_tokens") == 0).sum(),
        )
        .collect()
    )
    by_model = {row["generator"]: row for row in totals.iter_rows(named=True)}
    facts: dict[str, str] = {}
    steps = [("generation", step) for step in generation_steps(context)]
    steps += [("rewriting", step) for step in rewriting_steps(context)]
    for kind, step in steps:
        # A model that does both in one way has one line: the ledger does not say what an answer was for.
        row = by_model.pop(step.key.producer, None)
        if row is None:
            continue
        said = f"{row['len']:,} answers, {row['prompt_tokens']:,} tokens read, {row['completion_tokens']:,} written"
        money = f", {row['cost']:.6g} {context.recipe.costs.currency}" if step.price is not None else ""
        if row["uncounted"]:
            most = ", which count at the most they can cost" if money else ""
            money += f" (the server counted no tokens of {row['uncounted']:,} answers{most})"
        # One model may be asked in several ways.
        name = f"{kind} by {step.options.model}"
        facts[name if name not in facts else f"{name} ({step.key.producer[-20:]})"] = said + money
    for stage, paid in judged(context).items():
        money = f", {paid.cost:.6g} {context.recipe.costs.currency}" if paid.cost else ""
        most = f" (the server did not count {paid.estimated:,} of them: at most so many)" if paid.estimated else ""
        facts[f"judging by a server in stage {stage}"] = f"{paid.tokens:,} tokens{money}{most}"
    return facts

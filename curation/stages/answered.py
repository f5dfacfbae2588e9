"""Candidates beside their prompts: what the scoring steps read. No stage is here."""

from __future__ import annotations

import polars as pl

from curation.stages.context import Context

__all__ = ["answered"]


def answered(context: Context) -> pl.DataFrame:
    """One row a candidate: candidate_id, prompt_id, messages (of the prompt), response."""
    candidates = context.workspace.scan("candidates").select("candidate_id", "prompt_id", "response")
    prompts = context.workspace.scan("prompts").select("prompt_id", "messages")
    joined: pl.DataFrame = candidates.join(prompts, on="prompt_id", maintain_order="left").collect()
    return joined

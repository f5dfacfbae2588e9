"""All pairs with their texts, scores and fate: what the report, the plots and the UI show. No stage is here."""

from __future__ import annotations

import polars as pl

from curation.pairs.flipping import flip_pairs
from curation.stages.brought import pair_sources
from curation.stages.context import Context
from curation.stages.pair_labels import labelled_scores

__all__ = ["pair_evidence"]


def pair_evidence(context: Context, *, texts: bool = True) -> pl.DataFrame:
    """One row a pair that was built, as it stands after the decisions on labels: flipped ones are turned round.

    Args:
        texts: include ``prompt`` (messages), ``chosen`` and ``rejected``.

    Returns:
        ``pair_id``, ``prompt_id``, ``source``, ``category``, ``expected_behaviour``, ``split``, ``strategy``,
        the columns of ``pair_scores``, ``status`` (kept or dropped), ``rule`` and ``reason`` (null for kept
        ones), and the texts with ``generator_chosen`` and ``generator_rejected`` (null where nobody says
        who wrote the answer).
    """
    workspace = context.workspace
    prompts = workspace.scan("prompts").select(
        "prompt_id", "source", "category", "expected_behaviour", "split", prompt="messages"
    )
    kept = workspace.scan("preference").select("pair_id", _kept=pl.lit(True), _source="source")
    rejects = (
        workspace.scan("rejects")
        .filter(pl.col("table") == "pairs")
        .select("rule", "reason", pair_id="row_id")
        .unique("pair_id", keep="first", maintain_order=True)
    )
    frame = (
        workspace.scan("pairs")
        .join(prompts, on="prompt_id", how="left", maintain_order="left")
        .join(workspace.scan("pair_scores"), on="pair_id", how="left", maintain_order="left")
        .join(kept, on="pair_id", how="left", maintain_order="left")
        .join(rejects, on="pair_id", how="left", maintain_order="left")
        .with_columns(status=pl.when(pl.col("_kept")).then(pl.lit("kept")).otherwise(pl.lit("dropped")))
        .drop("_kept")
    )
    pairs = frame.collect()
    pairs = pairs.with_columns(pl.coalesce("_source", pair_sources(workspace, pairs)).alias("source")).drop(
        "_source"
    )
    frame = _as_labelled(context, pairs).lazy()
    if texts:
        answers = workspace.scan("candidates").select("candidate_id", "response", "generator")
        for side in ("chosen", "rejected"):
            named = answers.rename(
                {"candidate_id": f"{side}_id", "response": side, "generator": f"generator_{side}"}
            )
            frame = frame.join(named, on=f"{side}_id", how="left", maintain_order="left")
    else:
        frame = frame.drop("prompt")
    found: pl.DataFrame = frame.drop("chosen_id", "rejected_id").collect()
    return found


def _as_labelled(context: Context, pairs: pl.DataFrame) -> pl.DataFrame:
    """The pairs in the order that is published, with the CHES that they have in it."""
    turned = context.workspace.scan("pair_labels").filter("flipped").select("pair_id").collect()["pair_id"]
    if turned.is_empty():
        return pairs
    found = flip_pairs(pairs, pl.col("pair_id").is_in(turned.implode()))
    measured = labelled_scores(context).select("pair_id", _ches="ches", _ln_ches="ln_ches")
    found = found.join(measured, on="pair_id", how="left", maintain_order="left")
    again = [pl.when("flipped").then(f"_{name}").otherwise(name).alias(name) for name in ("ches", "ln_ches")]
    return found.with_columns(again).drop("_ches", "_ln_ches")

"""All pairs with their texts, scores and fate: what the report, the plots and the UI show. No stage is here."""

from __future__ import annotations

import polars as pl

from curation.pairs.views import flip_pairs
from curation.stages.brought import pair_sources
from curation.workspace import Workspace

__all__ = ["pair_evidence"]


def pair_evidence(workspace: Workspace, *, texts: bool = True) -> pl.DataFrame:
    """One row a pair that was built, as it stands after the decisions on labels: flipped ones are turned round.

    Args:
        texts: include ``prompt`` (messages), ``chosen`` and ``rejected``.

    Returns:
        ``pair_id``, ``prompt_id``, ``source``, ``category``, ``expected_behaviour``, ``split``, ``strategy``,
        the columns of ``pair_scores``, ``status`` (kept or dropped), ``rule`` and ``reason`` (null for kept
        ones), and the texts with ``generator_chosen`` and ``generator_rejected`` (null where a source brought the
        answer).
    """
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
    frame = _as_labelled(workspace, pairs).lazy()
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


def _as_labelled(workspace: Workspace, pairs: pl.DataFrame) -> pl.DataFrame:
    """The pairs in the order that is published. CHES of a flipped pair is known where the pair was kept."""
    turned = workspace.scan("pair_labels").filter("flipped").select("pair_id").collect()["pair_id"]
    if turned.is_empty():
        return pairs
    found = flip_pairs(pairs, pl.col("pair_id").is_in(turned.implode()))
    published = workspace.scan("preference")
    measured = [name for name in ("ches", "ln_ches") if name in published.collect_schema().names()]
    known = published.select("pair_id", *(pl.col(name).alias(f"_{name}") for name in measured)).collect()
    found = found.join(known, on="pair_id", how="left", maintain_order="left")
    again = [pl.when("flipped").then(f"_{name}").otherwise(name).alias(name) for name in measured]
    return found.with_columns(again).drop(f"_{name}" for name in measured)

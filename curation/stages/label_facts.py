"""What a run's pairs say of each other, of length and of the reward models: for terminal and report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from curation.scores.margins import read_margins
from curation.scores.structure import LONGER_PREFERRED, structure_counts
from curation.scores.voters import METHOD_WORDS, Method, aggregate_votes, reward_votes
from curation.stages.context import Context
from curation.stages.judgements import judge_facts
from curation.stages.pair_scores import strength_notes
from curation.stages.people import voter_facts
from curation.stages.rewards import reward_steps

__all__ = ["label_facts", "structure_facts"]

_MIN_VOTERS = 3


def structure_facts(
    context: Context, scored: pl.DataFrame, in_cycle: int, lengths: Sequence[Any]
) -> dict[str, int | float]:
    """Cycles, contradictions within and across sources, and length bias.

    Args:
        scored: pairs with ``strength_mean``.
        in_cycle: how many of them lie on a cycle.
        lengths: (pairs,) characters of chosen and of rejected.
    """
    margins = scored["strength_mean"]
    return structure_counts(_judged(context), in_cycle=in_cycle, margins=margins, lengths=lengths)


def label_facts(context: Context) -> dict[str, str]:
    """The same for the report, read from the tables of the last run, and how reliable each reward model is."""
    if not context.recipe.builds_pairs:
        return {}
    labels = context.workspace.read("pair_labels")
    scores = context.workspace.read("pair_scores")
    pairs = context.workspace.read("pairs").join(scores, on="pair_id", how="left", maintain_order="left")
    if labels.is_empty() or pairs.is_empty():
        return {}
    found = structure_facts(context, pairs, int(labels["in_cycle"].sum()), _lengths(context, pairs))
    facts = {name: f"{value:.1%}" if name == LONGER_PREFERRED else f"{value:,.6g}" for name, value in found.items()}
    done = labels.filter(pl.col("action") != "keep")["action"].value_counts(sort=True)
    facts |= {f"labels: {action}": f"{count:,}" for action, count in done.iter_rows()}
    if "noise_from" in labels.columns and labels["noise_from"][0]:
        facts["label noise"] = labels["noise_from"][0].replace("; ", "\n")
    if notes := strength_notes(context, scores):
        facts["preference strength"] = "\n".join(notes)
    return facts | judge_facts(context) | _reliability(context, pairs) | voter_facts(context)


def _lengths(context: Context, pairs: pl.DataFrame) -> list[Any]:
    """Characters of chosen and of rejected: those of the stage, for a ratio alone gives other numbers."""
    sizes = context.workspace.scan("candidates").select("candidate_id", size=pl.col("response").str.len_chars())
    sides = (pairs.lazy().select(candidate_id=f"{side}_id") for side in ("chosen", "rejected"))
    joined = (side.join(sizes, on="candidate_id", how="left", maintain_order="left").collect() for side in sides)
    return [side["size"].to_numpy() for side in joined]


def _reliability(context: Context, pairs: pl.DataFrame) -> dict[str, str]:
    """How reliable the reward models are as voters; nothing with fewer than three."""
    known = pairs.drop_nulls(["chosen_rewards", "rejected_rewards"])
    if known.is_empty():
        return {}
    margins = read_margins(known, chosen="chosen_rewards", rejected="rejected_rewards").values
    if margins.shape[1] < _MIN_VOTERS or not (np.isfinite(margins) & (margins != 0)).any():
        return {}
    scored = pl.concat([known["chosen_id"], known["rejected_id"]]).unique(maintain_order=True)
    names = _names(context, margins.shape[1], scored)
    noise = context.recipe.label_noise
    method: Method = "dawid_skene" if noise is None else noise.vote_method
    voters = aggregate_votes(reward_votes(margins, names), method=method, seed=context.recipe.seed).voters
    said = ", ".join(f"{name}: {share:.2f}" for name, share in voters.select("voter", "reliability").iter_rows())
    return {f"reliability of the reward models as voters ({METHOD_WORDS[method]})": said}


def _names(context: Context, width: int, candidates: pl.Series) -> list[str]:
    """A name for each reward: the model, and a number where it gives several.

    A model that has scored none of the candidates has no reward in the lists.
    """
    widths = [len(one["rewards"][0]) if (one := context.ledger.fetch(step.key, candidates)).height else 0
              for step in reward_steps(context)]  # fmt: skip
    if sum(widths) != width:
        return [f"reward {number}" for number in range(width)]
    models = zip((reward.model for reward in context.recipe.rewards), widths, strict=True)
    return [f"{model} {number}" if each > 1 else model for model, each in models for number in range(each)]


def _judged(context: Context) -> pl.DataFrame:
    """Every judgement that the sources bring: prompt_id, chosen_id, rejected_id, source."""
    rows = context.workspace.scan("inputs").filter(pl.col("kind") == "pair")
    judged: pl.DataFrame = rows.select(
        "prompt_id",
        "source",
        chosen_id=pl.col("candidate_ids").list.get(pl.col("chosen_index")),
        rejected_id=pl.col("candidate_ids").list.get(pl.col("rejected_index")),
    ).collect()
    return judged.filter(pl.col("chosen_id") != pl.col("rejected_id"))

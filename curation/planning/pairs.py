"""Which pairs there can be of answers that are not there yet: what a plan gives the judge in their place."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, combinations, islice
from math import comb

import polars as pl

from curation.planning.context import PlanContext
from curation.planning.requests import longest
from curation.recipe.pairs import PairStrategy
from curation.stages.judgements import comparison_id, judge_step
from curation.text import content_hash
from schemas import TABLES

__all__ = ["pairs_at_most"]


def pairs_at_most(context: PlanContext) -> pl.DataFrame:
    """As many pairs of each prompt as the strategies can build: those not judged yet, of the longest answers."""
    options = context.recipe.pairs
    judged = set(context.ledger.known_ids(judge_step(context).key)["id"])
    candidates = context.workspace.scan("candidates").select("prompt_id", "candidate_id", "origin", "response")
    ordered = candidates.sort(longest("response"), descending=True, maintain_order=True).collect()
    brought = (pl.col("origin") == "provided").sum()
    found = ordered.group_by("prompt_id", maintain_order=True).agg("candidate_id", brought=brought)
    rows = []
    for prompt, ids, provided in found.iter_rows():
        most = _most_pairs(options.strategies, options.per_prompt, len(ids), provided)
        fresh = (two for two in combinations(ids, 2) if comparison_id(prompt, *two) not in judged)
        known = (two for two in combinations(ids, 2) if comparison_id(prompt, *two) in judged)
        rows += [(content_hash("pair", *two), prompt, *two, "any") for two in islice(chain(fresh, known), most)]
    return pl.DataFrame(rows, schema=TABLES["pairs"].create_empty().schema, orient="row")


def _most_pairs(strategies: Sequence[PairStrategy], per_prompt: int, answers: int, provided: int) -> int:
    """How many pairs of a prompt's answers there can be; see docs/pairs.md."""
    every = comb(answers, 2)
    one = ("best_vs_worst", "best_vs_random", "best_vs_median", "ches_aware")
    most = dict.fromkeys(one, 1) | {
        "provided": comb(provided, 2),
        "best_vs_each": answers - 1,
        "tournament": answers - 1,
        "first_round": answers // 2,
        "diverse": per_prompt,
        "refusal_vs_compliance": per_prompt,
    }
    return min(every, sum(most.get(strategy, every) for strategy in strategies))

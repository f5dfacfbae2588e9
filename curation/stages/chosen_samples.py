"""Which sampled answers stay: no near-identical ones, and the best of n or a rejection sample. No stage is here.

An answer that goes is a reject, and stays in the ledger: another choice finds it there.
"""

from __future__ import annotations

from typing import NamedTuple

import polars as pl

from curation.candidates.diversity import near_identical
from curation.candidates.selection import best_of_n, rejection_sample
from curation.recipe.sampling import SampleChoice, Sampling
from curation.stages.context import Context
from curation.stages.sample_rewards import sample_rewards
from curation.tables import concat_rejects, empty_rejects, rejects_frame

__all__ = ["Chosen", "chosen_samples"]


class Chosen(NamedTuple):
    """The answers that stay, in their order, and the others."""

    kept: pl.DataFrame
    rejects: pl.DataFrame


def chosen_samples(context: Context, answers: pl.DataFrame, prompts: pl.DataFrame, *, stage: str) -> Chosen:
    """What the recipe's section ``sampling`` lets stay; everything where there is none.

    Args:
        answers: ``request_id``, ``candidate_id``, ``prompt_id``, ``sample_index``, ``response``, ``generator``,
            and ``_weaker``: true for those of models that are ``only_as_rejected``, which are left alone.
        prompts: ``prompt_id``, ``messages``.
    """
    sampling = context.recipe.sampling
    if sampling is None or (sampling.near_identical is None and sampling.choice is None):
        return Chosen(answers, empty_rejects())
    given, weaker = answers.filter(~pl.col("_weaker")), answers.filter("_weaker")
    kept, rejects = given, empty_rejects()
    if sampling.near_identical is not None:
        kept, rejects = _without_repeats(kept, threshold=sampling.near_identical, stage=stage)
    if sampling.choice is not None and not kept.is_empty():
        kept, others = _chosen(context, kept, prompts, sampling, sampling.choice, stage=stage)
        rejects = concat_rejects(rejects, others)
    # An answer that a better model gave, too, is not worse because that model's other answers were chosen.
    not_worse = given.join(kept, on="candidate_id", how="anti").select("candidate_id").unique()
    said_by_both = weaker.join(not_worse, on="candidate_id", how="semi", maintain_order="left")
    both = rejects_frame(
        said_by_both, table="candidates", stage=stage, row_id=pl.col("request_id"), rule="not_only_as_rejected",
        value=pl.col("candidate_id"),
        reason="a model that is not only_as_rejected said the same, which did not stay",
    )  # fmt: skip
    rest = weaker.join(not_worse, on="candidate_id", how="anti", maintain_order="left")
    return Chosen(pl.concat([kept, rest]), concat_rejects(rejects, both))


def _without_repeats(answers: pl.DataFrame, *, threshold: float, stage: str) -> Chosen:
    """Leave out what repeats a sample of the same model for the same prompt."""
    models = answers.partition_by("generator", maintain_order=True)
    found = pl.concat([
        answers.clear().with_columns(repeats=pl.lit(None, dtype=pl.Int64)),
        *(one.with_columns(near_identical(one, threshold=threshold)) for one in models),
    ])  # fmt: skip
    rejects = rejects_frame(
        found.drop_nulls("repeats"), table="candidates", stage=stage, row_id=pl.col("request_id"),
        rule="near_identical_sample", value=pl.col("repeats").cast(pl.String), threshold=f"{threshold:g}",
        reason="its word 3-grams are nearly those of the same model's sample with the index in value",
    )  # fmt: skip
    return Chosen(found.filter(pl.col("repeats").is_null()).drop("repeats"), rejects)


def _chosen(
    context: Context,
    answers: pl.DataFrame,
    prompts: pl.DataFrame,
    sampling: Sampling,
    choice: SampleChoice,
    *,
    stage: str,
) -> Chosen:
    """Keep so many of each prompt's answers, by reward. Equal texts are one answer."""
    distinct = answers.group_by("candidate_id", maintain_order=True).agg(
        pl.col("prompt_id", "response").first(), copies=pl.len()
    )
    distinct = distinct.join(prompts.select("prompt_id", "messages"), on="prompt_id", maintain_order="left")
    scored = distinct.with_columns(score=sample_rewards(context, sampling, distinct))
    if choice.method == "best_of_n":
        kept = best_of_n(scored, keep=choice.keep)
    else:
        seed = context.recipe.seed
        kept = rejection_sample(scored, n=choice.keep, beta=choice.beta, seed=seed, weight="copies")
    stays = answers.join(kept, on="candidate_id", how="semi", maintain_order="left")
    gone = answers.join(kept, on="candidate_id", how="anti", maintain_order="left").join(
        scored.select("candidate_id", "score"), on="candidate_id", maintain_order="left"
    )
    return Chosen(stays, _rejects(gone, choice, stage))


def _rejects(gone: pl.DataFrame, choice: SampleChoice, stage: str) -> pl.DataFrame:
    stay = f"{choice.keep} of its prompt stay"
    rules = {
        "best_of_n": ("not_best_of_n", f"others have a higher reward, and {stay}"),
        "rso": ("not_drawn", f"rejection sampling with beta {choice.beta:g} drew others, and {stay}"),
    }
    rule, reason = rules[choice.method]
    unscored = pl.col("score").is_null()
    return rejects_frame(
        gone, table="candidates", stage=stage, row_id=pl.col("request_id"), value=pl.col("score").cast(pl.String),
        rule=pl.when(unscored).then(pl.lit("no_reward")).otherwise(pl.lit(rule)),
        reason=pl.when(unscored)
        .then(pl.lit("sampling.reward has no value for it, so it cannot be chosen"))
        .otherwise(pl.lit(reason)),
    )  # fmt: skip

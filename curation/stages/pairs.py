"""Stage ``pairs``: build the pairs that the recipe's strategies ask for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, cast

import polars as pl

from curation.pairs.behaviour import FAULTS, fault_pairs, forget_pairs, refusal_pairs, without_chosen_faults
from curation.pairs.ches_aware import AwarePairs, ches_aware_pairs
from curation.pairs.constructed import constructed_pairs
from curation.pairs.construction import PAIR_KEY, BuiltPairs, Strategy, build_pairs, once_each, without_conflicts
from curation.pairs.margin_scales import with_one_scale_of_margins
from curation.pairs.provided import provided_pairs
from curation.pairs.source_scores import opposed_pairs
from curation.refusals.faults import NO_ANSWER, judged_rows, turned_round
from curation.scores.policy_table import explode_pairs
from curation.stages.brought import answers_of, prompts_of, score_scales
from curation.stages.constructed import constructed_rows, not_ranked
from curation.stages.context import Context, Stage, StageResult
from curation.stages.duplicates import Distinct, without_lost_answers, without_lost_opposites
from curation.stages.hygiene import prompted_inputs
from curation.stages.policy_stats import policy_inputs, policy_step
from curation.stages.ranking_scores import compared_column, scored_candidates
from curation.stages.refusal_rows import called_wrong, refusal_rows
from curation.stages.refusals import candidate_refusals
from curation.tables import concat_rejects, empty_rejects, rejects_frame

__all__ = ["STAGE", "ches_aware_facts"]

_OTHERS: Final = "best_vs_worst under pairs.strategies, or another, pairs answers by their scores"


def run(context: Context) -> StageResult:
    options = context.recipe.pairs
    built: list[BuiltPairs] = []
    facts: dict[str, Any] = {}
    candidates: pl.DataFrame | None = None
    told = _provided(context)
    judged = _judged(context) if FAULTS in options.strategies else None
    for strategy in options.strategies:
        if strategy == "provided":
            built.append(told)
        elif strategy == "refusal_vs_compliance":
            built.append(_by_refusal(context))
        elif judged is not None and strategy == FAULTS:
            built.append(fault_pairs(turned_round(judged), judged))
        elif strategy == "constructed":
            answers = context.workspace.scan("candidates").select("candidate_id").collect()["candidate_id"]
            built.append(constructed_pairs(constructed_rows(context), answers=answers))
        elif strategy == "template_vs_forget":
            built.append(_by_forgetting(context))
        else:
            candidates = scored_candidates(context) if candidates is None else candidates
            by_ches = strategy == "ches_aware"
            built.append(
                _ches_aware(context, candidates, facts) if by_ches else _by_score(context, candidates, strategy)
            )
    pairs = once_each(pl.concat([b.pairs for b in built], how="diagonal"))
    consistent = _consistent(context, pairs, told=told.pairs, judged=judged, candidates=candidates)
    rejects = concat_rejects(*(_without_success(b.rejects, pairs) for b in built), consistent.rejects)
    rejects = concat_rejects(rejects, _prompts_without_pair(context, pairs, rejects))
    facts |= {f"by {name}": n for name, n in consistent.kept["strategy"].value_counts(sort=True).iter_rows()}
    facts |= consistent.facts
    facts |= _against_sources(consistent.kept, told.pairs)
    facts |= {} if candidates is None else _compared_apart(candidates)
    if consistent.kept.is_empty() and options.strategies == ("provided",):
        facts["no source brings a pair"] = _OTHERS
    return context.write("pairs", "pairs", consistent.kept, rejects=rejects, facts=facts)


def _consistent(
    context: Context,
    pairs: pl.DataFrame,
    *,
    told: pl.DataFrame,
    judged: pl.DataFrame | None,
    candidates: pl.DataFrame | None,
) -> Distinct:
    """Pairs whose answers are there, that no pair (nor one of ``told``) turns round, and that choose no fault."""
    answered = without_lost_answers(context, pairs)
    lost = pairs.join(answered.kept, on="pair_id", how="anti", maintain_order="left")
    # Scores that contradict a source's label leave open which of the two is right; reward models are there to say.
    heard = None
    if candidates is not None and compared_column(candidates):
        opposed = opposed_pairs(answered.kept, candidates)
        heard = pl.concat([told, opposed], how="diagonal").unique("pair_id", maintain_order=True)
    both_ways = without_conflicts(answered.kept, heard=heard)
    right = BuiltPairs(both_ways.pairs, empty_rejects())
    if judged is not None:
        right = without_chosen_faults(both_ways.pairs, judged)
    found = without_lost_opposites(context, right.pairs, lost=lost)
    rejects = concat_rejects(answered.rejects, both_ways.rejects, right.rejects, found.rejects)
    return found._replace(rejects=rejects)


def _provided(context: Context) -> BuiltPairs:
    columns = (
        "input_id", "source", "prompt_id", "kind", "candidate_ids", "scores", "chosen_index", "rejected_index",
    )  # fmt: skip
    return provided_pairs(prompted_inputs(context).select(columns).collect(), score_scales(context))


def _against_sources(pairs: pl.DataFrame, told: pl.DataFrame) -> dict[str, int]:
    """How many pairs say the opposite of a source's label, and how many labels the opposite of their own scores."""
    opposite = told.select("prompt_id", chosen_id="rejected_id", rejected_id="chosen_id")
    counts = {
        "pairs that a source has the other way round": pairs.join(opposite, on=PAIR_KEY, how="semi").height,
        "pairs of sources whose own scores say the opposite": pairs.filter(
            pl.col("strategy") == "provided", pl.col("margin") < 0
        ).height,
    }
    return {said: count for said, count in counts.items() if count}


def _by_score(context: Context, candidates: pl.DataFrame, strategy: str) -> BuiltPairs:
    options = context.recipe.pairs
    return build_pairs(
        candidates,
        strategy=cast(Strategy, strategy),
        within=compared_column(candidates),
        scale="scale",
        min_margin=options.min_margin,
        max_margin=math.inf if options.max_margin is None else options.max_margin,
        per_prompt=options.per_prompt,
        seed=context.recipe.seed,
    )


def _compared_apart(candidates: pl.DataFrame) -> dict[str, str]:
    """How many prompts have answers whose scores were not compared, for nothing says that they mean the same."""
    if compared_column(candidates) is None:
        return {}
    sets = candidates.drop_nulls("score").group_by("prompt_id").agg(pl.col("compared").n_unique())
    apart = sets.filter(pl.col("compared") > 1).height
    why = "of several sources or rows: give sources of one scale the same score_scale, if they are to be"
    return {"prompts with scores that are not all compared": f"{apart:,}, {why}"} if apart else {}


def _by_refusal(context: Context) -> BuiltPairs:
    """Refusal against compliance, by what the detector says of each answer."""
    options = context.recipe.pairs
    prompts = context.workspace.scan("prompts").select("prompt_id", "expected_behaviour")
    answers = context.workspace.scan("candidates").select("prompt_id", "candidate_id")
    candidates = answers.join(prompts, on="prompt_id", maintain_order="left").collect()
    made = not_ranked(context, but=("refined", "template_refusal"))
    candidates = candidates.join(made, on="candidate_id", how="anti", maintain_order="left")
    classes = candidate_refusals(context, candidates["candidate_id"])
    said = pl.col("refusal_kind").ne_missing(NO_ANSWER)
    classes = classes.filter(said).select("candidate_id", "refusal_probability", "refusal_class")
    known = candidates.join(classes, on="candidate_id", how="left", maintain_order="left")
    wrong = pl.col("candidate_id").is_in(called_wrong(context).implode())
    known = known.with_columns(called_wrong=wrong)
    return refusal_pairs(known, per_prompt=options.per_prompt, min_certainty=options.min_refusal_certainty)


def _judged(context: Context) -> pl.DataFrame:
    """What section ``refusal_dataset`` calls a fault, and what it would take."""
    options = context.recipe.refusal_dataset
    rows = refusal_rows(context).filter(pl.col("refusal_class").is_not_null())
    return judged_rows(rows, partial=options.partial, min_confidence=options.min_confidence)


def _by_forgetting(context: Context) -> BuiltPairs:
    """A template over each answer that the forget sources brought; what others brought for a prompt stays."""
    sources = context.recipe.pairs.forget_sources
    theirs, said = prompts_of(context, sources), answers_of(context, sources)
    of_others = (pl.col("origin") == "provided") & ~pl.col("candidate_id").is_in(said.implode())
    candidates: pl.DataFrame = (
        context.workspace.scan("candidates")
        .select("prompt_id", "candidate_id", "origin")
        .filter(pl.col("prompt_id").is_in(theirs.implode()) & ~of_others)
        .collect()
    )
    return forget_pairs(candidates, seed=context.recipe.seed)


def _ches_aware(context: Context, candidates: pl.DataFrame, facts: dict[str, int | float]) -> BuiltPairs:
    """Each prompt's strongest pair under the CHES threshold; says how many prompts that saved."""
    every, safe = _safest(context, candidates)
    facts |= _ches_facts(safe)
    rejects = rejects_frame(
        safe.rejects,
        table="prompts",
        stage="pairs",
        row_id=pl.col("prompt_id"),
        rule=pl.col("rule"),
        value=pl.col("value"),
        threshold=str(safe.threshold),
        reason=pl.col("reason"),
    )
    pairs = safe.pairs.select(every.pairs.columns).with_columns(strategy=pl.lit("ches_aware"))
    return BuiltPairs(pairs, concat_rejects(every.rejects, rejects))


def _safest(context: Context, candidates: pl.DataFrame) -> tuple[BuiltPairs, AwarePairs]:
    """Every pair above the margin, and of each prompt's the strongest that is safe."""
    options = context.recipe.pairs
    every = build_pairs(
        candidates, strategy="all", within=compared_column(candidates), scale="scale", min_margin=options.min_margin
    )
    stats = context.ledger.fetch(policy_step(context).key, policy_inputs(context)["stats_id"])
    scores = explode_pairs(stats).select(*PAIR_KEY, "ln_ches")
    compared = every.pairs.with_columns(_comparable=with_one_scale_of_margins(every.pairs)["margin"])
    scored = compared.join(scores, on=PAIR_KEY, how="left", maintain_order="left")
    return every, ches_aware_pairs(scored, quantile=options.ches_quantile, strength="_comparable")


def _ches_facts(safe: AwarePairs) -> dict[str, int | float]:
    return {
        "CHES threshold": safe.threshold,
        "prompts kept by the filter alone": safe.kept_by_filter,
        "prompts saved by CHES-aware pairing": safe.saved,
    }


def ches_aware_facts(context: Context) -> dict[str, int | float]:
    """What CHES-aware pairing did, for the report; nothing where the recipe does not use it."""
    if "ches_aware" not in context.recipe.pairs.strategies or not context.recipe.builds_pairs:
        return {}
    return _ches_facts(_safest(context, scored_candidates(context))[1])


def _without_success(rejects: pl.DataFrame, pairs: pl.DataFrame) -> pl.DataFrame:
    """What one strategy had no pair for, and another did, is no reject: a prompt, or a match of a tournament."""
    built = pl.concat(
        pairs.select(row_id=key, table=pl.lit(table))
        for table, key in (("prompts", "prompt_id"), ("pairs", "pair_id"))
    )
    return rejects.join(built, on=["table", "row_id"], how="anti", maintain_order="left")


def _prompts_without_pair(context: Context, pairs: pl.DataFrame, rejects: pl.DataFrame) -> pl.DataFrame:
    """Prompts that no strategy spoke of, for instance a prompt without answers."""
    named = rejects.filter(pl.col("table") == "prompts").select(prompt_id="row_id")
    inputs = context.workspace.scan("inputs").select("input_id", "prompt_id").collect()
    repeated = rejects.filter(pl.col("table") == "inputs").select(input_id="row_id")
    silent = (
        context.workspace.scan("prompts")
        .select("prompt_id")
        .collect()
        .join(pairs, on="prompt_id", how="anti", maintain_order="left")
        .join(named, on="prompt_id", how="anti", maintain_order="left")
        .join(inputs.join(repeated, on="input_id"), on="prompt_id", how="anti", maintain_order="left")
    )
    return rejects_frame(
        silent,
        table="prompts",
        stage="pairs",
        row_id=pl.col("prompt_id"),
        rule="no_pair",
        reason=pl.lit(_no_pair(context.recipe.pairs.strategies)),
    )


def _no_pair(strategies: Sequence[str]) -> str:
    reason = f"no strategy of {', '.join(strategies)} gave a pair for the prompt"
    return f"{reason}: {_OTHERS}" if tuple(strategies) == ("provided",) else reason


STAGE = Stage(
    name="pairs",
    group="pairs",
    description="Two answers to one prompt, the first preferred. A view over candidates: no model is called.",
    needs=(
        "inputs", "hygiene", "prompts", "constructed", "candidates", "rewards", "requests", "refusals",
        "policy_stats",
    ),
    run=run,
    table="pairs",
    version=4,
    enabled=lambda recipe: recipe.builds_pairs,
)  # fmt: skip

"""Stage ``refusal``: refusals of what should be refused, and the answers that contrast with them."""

from __future__ import annotations

import polars as pl

from curation.recipe import RefusalDataset
from curation.refusals.building import BuiltRefusals, build_refusals
from curation.stages.constructed import not_ranked
from curation.stages.context import Context, Stage, StageResult
from curation.stages.refusals import candidate_refusals
from curation.stages.requests import prompt_requests
from curation.tables import concat_rejects, rejects_frame, validated

__all__ = ["STAGE"]

_STAGE = "refusal"


def run(context: Context) -> StageResult:
    options = context.recipe.refusal_dataset
    rows = _rows(context, options)
    detected = rows.filter(pl.col("refusal_class").is_not_null())
    built = build_refusals(
        detected,
        quotas=options.quotas,
        quota=options.quota,
        contrast_per_refusal=options.contrast_per_refusal,
        faults=options.faults,
        unknown=options.unknown,
        partial=options.partial,
        min_confidence=options.min_confidence,
        per_prompt=options.per_prompt,
        tokens=options.tokens,
        prepend=options.prepend,
        seed=context.recipe.seed,
    )
    prompts = context.workspace.scan("prompts").select("prompt_id", "split").collect()
    frame = built.frame.join(prompts, on="prompt_id", how="left", maintain_order="left")
    pairs, _ = validated("refusal_pairs", _with_splits(built.pairs, prompts), stage=_STAGE)
    context.workspace.overwrite("refusal_pairs", pairs)
    rejects = concat_rejects(
        _reject(built.rejects, pl.col("rule"), pl.col("value"), pl.col("reason")),
        _reject(
            rows.filter(pl.col("refusal_class").is_null()),
            pl.lit("refusal_not_detected"),
            pl.lit(None, dtype=pl.String),
            pl.lit("there is no verdict on the answer"),
        ),
    )
    return context.write(_STAGE, "refusal", frame, rejects=rejects, facts=_facts(built))


def _rows(context: Context, options: RefusalDataset) -> pl.DataFrame:
    """One candidate a row, with its verdict and what is expected of an answer to its prompt."""
    workspace = context.workspace
    candidates = workspace.scan("candidates").select("candidate_id", "prompt_id", "response").collect()
    made = not_ranked(context, but=("refined", "template_refusal"))
    candidates = candidates.join(made, on="candidate_id", how="anti", maintain_order="left")
    prompts = workspace.scan("prompts").select("prompt_id", "messages", "category", "expected_behaviour").collect()
    judged = prompt_requests(context, prompts["prompt_id"]).select(
        "prompt_id", "refuse_probability", _judged="refusal_category"
    )
    if options.expectation == "predicted":
        prompts = prompts.join(judged, on="prompt_id", how="left", maintain_order="left")
        p = pl.col("refuse_probability")
        guess = (
            pl.when(p >= options.min_expectation)
            .then(pl.lit("refuse"))
            .when(p <= 1 - options.min_expectation)
            .then(pl.lit("comply"))
        )
        given = pl.col("expected_behaviour").cast(pl.String)
        prompts = prompts.with_columns(expected_behaviour=pl.coalesce(given, guess)).drop("refuse_probability")
    else:
        prompts = prompts.join(judged.drop("refuse_probability"), on="prompt_id", how="left", maintain_order="left")
    verdicts = candidate_refusals(context, candidates["candidate_id"]).select(
        "candidate_id", "refusal_probability", "refusal_class", _sorted="refusal_category"
    )
    joined = candidates.join(prompts, on="prompt_id", how="left", maintain_order="left").join(
        verdicts, on="candidate_id", how="left", maintain_order="left"
    )
    category = pl.coalesce(pl.col("category").cast(pl.String), "_judged", "_sorted")
    return joined.with_columns(category=category).drop("_judged", "_sorted")


def _with_splits(pairs: pl.DataFrame, prompts: pl.DataFrame) -> pl.DataFrame:
    return pairs.join(prompts, on="prompt_id", how="left", maintain_order="left")


def _reject(frame: pl.DataFrame, rule: pl.Expr, value: pl.Expr, reason: pl.Expr) -> pl.DataFrame:
    return rejects_frame(
        frame,
        table="refusal",
        stage=_STAGE,
        row_id=pl.col("candidate_id"),
        rule=rule,
        value=value,
        reason=reason,
    )


def _facts(built: BuiltRefusals) -> dict[str, int | str]:
    facts: dict[str, int | str] = {
        f"of kind {kind}": n for kind, n in built.frame["kind"].value_counts(sort=True).iter_rows()
    }
    counts = dict(built.rejects["rule"].value_counts().iter_rows())
    for rule in ("over_refusal", "unsafe_compliance"):
        facts[rule.replace("_", "-")] = counts.get(rule, 0)
    facts["turned round into pairs"] = built.pairs.height
    for name, wanted, _, missing in built.shortfall.iter_rows():
        facts[f"short of {name}"] = f"{missing} of {wanted}"
    return facts


STAGE = Stage(
    name=_STAGE,
    group="datasets",
    description="Supervised refusals, and answers to the prompts that only look as if they were to be refused.",
    needs=("prompts", "constructed", "candidates", "refusals", "requests"),
    run=run,
    table="refusal",
    version=2,
    enabled=lambda recipe: "refusal" in recipe.publish.datasets,
)

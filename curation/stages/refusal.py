"""Stage ``refusal``: refusals of what should be refused, and the answers that contrast with them."""

from __future__ import annotations

from typing import Final

import polars as pl

from curation.refusals.building import BuiltRefusals, build_refusals
from curation.stages.certainty import CERTAINTY_COLUMNS, Certain, certain_rows
from curation.stages.context import Context, Stage, StageResult
from curation.stages.quotas import as_named, named_quotas
from curation.stages.refusal_rows import refusal_rows
from curation.tables import concat_rejects, empty_rejects, rejects_frame, validated

__all__ = ["STAGE"]

_STAGE = "refusal"


def run(context: Context) -> StageResult:
    options = context.recipe.refusal_dataset
    rows = refusal_rows(context)
    certain = certain_rows(context, options.r_tuning, stage=_STAGE) if options.r_tuning else None
    tuned = rows.clear()
    if certain is not None:
        tuned = rows.join(certain.frame, on="prompt_id", how="semi", maintain_order="left")
        rows = rows.join(certain.frame, on="prompt_id", how="anti", maintain_order="left")
    built = build_refusals(
        rows.filter(pl.col("refusal_class").is_not_null()),
        quotas=named_quotas(context),
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
    frame = _together(built.frame, certain)
    frame = _with_splits(frame.with_columns(as_named(context, frame["category"])), prompts)
    pairs, _ = validated("refusal_pairs", _with_splits(built.pairs, prompts), stage=_STAGE)
    context.workspace.overwrite("refusal_pairs", pairs)
    context.workspace.overwrite("refusal_quotas", validated("refusal_quotas", built.quotas, stage=_STAGE).kept)
    rejects = concat_rejects(_rejects(built, rows), _besides(tuned, certain))
    return context.write(_STAGE, "refusal", frame, rejects=rejects, facts=_facts(built, certain))


def _together(built: pl.DataFrame, certain: Certain | None) -> pl.DataFrame:
    if certain is None:
        return built
    none = {name: pl.lit(None, dtype=kind) for name, kind in CERTAINTY_COLUMNS.items()}
    return pl.concat([built.with_columns(**none), certain.frame], how="vertical")


def _rejects(built: BuiltRefusals, rows: pl.DataFrame) -> pl.DataFrame:
    return concat_rejects(
        _reject(built.rejects, pl.col("rule"), pl.col("value"), pl.col("reason")),
        _reject(
            rows.filter(pl.col("refusal_class").is_null()),
            pl.lit("refusal_not_detected"),
            pl.lit(None, dtype=pl.String),
            pl.lit("there is no verdict on the answer"),
        ),
    )


def _besides(tuned: pl.DataFrame, certain: Certain | None) -> pl.DataFrame:
    """The other answers to the questions of R-Tuning, and the questions that it could not use."""
    if certain is None:
        return empty_rejects()
    others = tuned.join(certain.frame, on="candidate_id", how="anti", maintain_order="left")
    reason = pl.lit("its question has a row that says how sure the model is")
    return concat_rejects(
        certain.rejects, _reject(others, pl.lit("in_r_tuning"), pl.lit(None, dtype=pl.String), reason)
    )


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


def _facts(built: BuiltRefusals, certain: Certain | None) -> dict[str, int | str]:
    facts: dict[str, int | str] = {
        f"of kind {kind}": n for kind, n in built.frame["kind"].value_counts(sort=True).iter_rows()
    }
    if certain is not None:
        facts |= {f"R-Tuning, {name}": n for name, n in certain.facts.items()}
    counts = dict(built.rejects["rule"].value_counts().iter_rows())
    for rule in ("over_refusal", "unsafe_compliance"):
        facts[rule.replace("_", "-")] = counts.get(rule, 0)
    unknown = counts.get("expected_behaviour_unknown", 0)
    if unknown:
        facts["to prompts of which nothing is expected"] = unknown
        if built.frame.is_empty():
            facts["nothing is left"] = _EXPECTED
    facts["turned round into pairs"] = built.pairs.height
    for name, wanted, missing in built.shortfall.select("category", "wanted", "missing").iter_rows():
        facts[f"short of {name}"] = f"{missing} of {wanted}"
    small = built.without_contrast
    if small.height:
        names = ", ".join(small["category"].head(_SHOWN)) + (", …" if small.height > _SHOWN else "")
        least = small["contrast_from"][0]
        facts["quotas without room for contrast"] = f"{small.height} ({names}): from {least} rows on there is"
    return facts


_SHOWN: Final = 5


_EXPECTED: Final = (
    "expected_behaviour of a source says whether its prompts are to be refused; refusal_dataset.expectation: "
    "predicted lets the request model say it"
)

STAGE = Stage(
    name=_STAGE,
    group="datasets",
    description="Supervised refusals, and answers to the prompts that only look as if they were to be refused.",
    needs=("inputs", "hygiene", "prompts", "generations", "constructed", "candidates", "refusals", "requests"),
    run=run,
    table="refusal",
    version=13,
    enabled=lambda recipe: "refusal" in recipe.publish.datasets,
)

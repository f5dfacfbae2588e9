"""What report and cards say of a workspace: versions, models, thresholds, gates. No stage is here."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any, Final

import polars as pl

from curation.models.answer_states import answer_states_fingerprint
from curation.models.encoder import encoder_fingerprint
from curation.publish.gates import ALL_DATASETS, GateResult
from curation.publish.report import Threshold
from curation.recipe import Encoder, Recipe
from curation.stages.context import Context
from curation.stages.embeddings import EmbeddingStep, anchor_step, document_step, embedding_step
from curation.stages.generations import generation_steps, rewriting_steps
from curation.stages.judgements import judge_step
from curation.stages.policy_stats import policy_step
from curation.stages.refusals import refusal_step
from curation.stages.requests import judges_requests, request_step
from curation.stages.rescoring import rescoring_step
from curation.stages.rewards import reward_steps
from curation.workspace import LEDGER_TABLES, Workspace
from schemas import TABLES

__all__ = ["gate_results", "models_used", "package_versions", "table_versions", "thresholds_used"]

_PACKAGES: Final = ("preference-curation", "polars", "deltalake", "torch", "transformers", "sentence-transformers")
_BESIDE_RESULTS: Final = frozenset({"runs", "gates"})


def table_versions(workspace: Workspace) -> dict[str, int]:
    """The version of every table of a run's results. The ledger and the record of runs are left out."""
    found = {name: workspace.version(name) for name in TABLES if name not in LEDGER_TABLES | _BESIDE_RESULTS}
    return {name: number for name, number in found.items() if number is not None}


def package_versions() -> dict[str, str]:
    """The packages on which numbers depend."""
    return {package: version(package) for package in _PACKAGES}


def models_used(context: Context) -> list[dict[str, Any]]:
    """The models of a recipe: ``step`` and ``producer`` (name, revision and settings).

    Those that answer and judge, and those that rewrite prompts or answers or say which negatives are false.
    """
    recipe = context.recipe
    steps: list[Any] = [*generation_steps(context), *reward_steps(context)]
    steps += [embedding_step(context)] if recipe.encoder else []
    steps += [judge_step(context)] if recipe.judge and recipe.builds_pairs else []
    steps += [request_step(context)] if judges_requests(recipe) else []
    steps += [refusal_step(context)] if recipe.refusals else []
    steps += [policy_step(context)] if recipe.policy else []
    found = [(step.name, step.key.producer) for step in steps]
    found += [("rewriting", step.key.producer) for step in rewriting_steps(context)]
    if recipe.negatives is not None:
        found += [("guide", EmbeddingStep(guide).key.producer) for guide in recipe.negatives.guides]
        asked = [anchor_step(context), document_step(context)] if recipe.encoder else []
        found += [("negatives", step.key.producer) for step in asked if step.prompt is not None]
        rescorer = recipe.negatives.rescorer
        found += [("rescoring", rescoring_step(rescorer).key.producer)] if rescorer else []
    if recipe.label_noise is not None and recipe.builds_pairs:
        options = recipe.encoder or Encoder()
        found.append(("label-noise", encoder_fingerprint(options.model, max_length=options.max_length)))
        if recipe.label_noise.language_model is not None:
            read = answer_states_fingerprint(recipe.label_noise.language_model)
            found.append(("label-noise language model", read))
    return [{"step": name, "producer": producer} for name, producer in dict.fromkeys(found)]


def gate_results(workspace: Workspace, dataset: str | None = None) -> list[GateResult]:
    """What the gates measured, of all datasets or of one."""
    rows = workspace.read("gates")
    if dataset is not None:
        rows = rows.filter(pl.col("dataset").is_in([dataset, ALL_DATASETS]))
    return [GateResult(*row) for row in rows.select(GateResult._fields).iter_rows()]


def thresholds_used(workspace: Workspace, recipe: Recipe) -> list[Threshold]:
    """The selection's rules, with the values that quantiles came to.

    A quantile's value is read from the pairs that it dropped; one that dropped none is left out.
    """
    dropped = workspace.scan("rejects").filter(pl.col("stage") == "preference").select("rule", "threshold")
    values = dict(dropped.drop_nulls().unique().collect().iter_rows())
    found = []
    for rule in recipe.selection.rules:
        for side, bound, quantile in (("min", rule.min, rule.min_quantile), ("max", rule.max, rule.max_quantile)):
            word = "below" if side == "min" else "above"
            if bound is not None:
                found.append(Threshold(rule.score, side, bound))
            value = values.get(f"{rule.score}_{word}_quantile")
            if quantile is not None and value is not None:
                found.append(Threshold(rule.score, side, float(value), f"quantile {quantile:g}"))
    return found

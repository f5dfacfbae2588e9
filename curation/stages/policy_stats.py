"""Stage ``policy_stats``: one pass of the policy over each prompt and all its candidates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import polars as pl

from curation.engine import Batch, Worker, failures_frame
from curation.ledger import LedgerKey
from curation.models.policy import Policy, open_policy, policy_fingerprint
from curation.models.protocols import Fault
from curation.recipe import Policy as PolicyOptions
from curation.scores.policy_table import stats_to_row
from curation.stages.answered import answered
from curation.stages.context import Context, Stage, StageResult
from curation.text import content_hash
from schemas import TABLES

__all__ = ["STAGE", "PolicyStep", "policy_inputs", "policy_step"]

_STEP_VERSION: Final = 2
_PRODUCED = [c for c in TABLES["policy_stats"].column_names() if c != "policy"]


@dataclass(frozen=True)
class PolicyStep:
    """Forward passes of one policy."""

    options: PolicyOptions

    @property
    def name(self) -> str:
        return "policy_stats"

    @property
    def batch_rows(self) -> int:
        return self.options.batch_rows

    @property
    def key(self) -> LedgerKey:
        o = self.options
        producer = policy_fingerprint(
            o.model, raw=o.raw, dtype=o.dtype, max_length=o.max_length, output_gradients=o.output_gradients,
            template_options=o.template_options,
        )  # fmt: skip
        return LedgerKey("policy_stats", "stats_id", "policy", f"{producer} step{_STEP_VERSION}")

    def open(self) -> Worker:
        o = self.options
        policy = open_policy(
            o.model,
            raw=o.raw,
            dtype=o.dtype,
            max_length=o.max_length,
            batch_tokens=o.batch_tokens,
            backend=o.backend,
            output_gradients=o.output_gradients,
            template_options=o.template_options,
            tensor_parallel_size=o.tensor_parallel_size,
            gpu_memory_utilization=o.gpu_memory_utilization,
        )
        return _Passing(policy)


@dataclass
class _Passing:
    policy: Policy

    def __call__(self, batch: pl.DataFrame) -> Batch:
        rows: list[dict[str, Any]] = []
        failures: list[dict[str, Any]] = []
        tokens = 0
        stats = self.policy.stats(batch["messages"].to_list(), batch["responses"].to_list())
        for item, found in zip(batch.iter_rows(named=True), stats, strict=True):
            faults = (
                dict.fromkeys(range(len(item["candidate_ids"])), found)
                if isinstance(found, Fault)
                else found.faults
            )
            failures += [
                {"row_id": item["stats_id"], "item_id": item["candidate_ids"][i], **fault._asdict()}
                for i, fault in faults.items()
            ]
            if not isinstance(found, Fault) and (row := stats_to_row(found, item["candidate_ids"])):
                rows.append({c: {**item, **row}[c] for c in _PRODUCED})
                tokens += found.prompt_tokens + int(found.tokens.sum())
        schema = {c: TABLES["policy_stats"].create_empty().schema[c] for c in _PRODUCED}
        return Batch(pl.DataFrame(rows, schema=schema), failures_frame(failures), tokens)


def policy_step(context: Context) -> PolicyStep:
    """The step that a recipe asks for; its policy must be set."""
    assert context.recipe.policy is not None
    return PolicyStep(context.recipe.policy)


def policy_inputs(context: Context) -> pl.DataFrame:
    """One row a prompt: stats_id, prompt_id, messages, candidate_ids (sorted), responses."""
    grouped = (
        answered(context)
        .sort("candidate_id")
        .group_by("prompt_id")
        .agg(
            pl.col("messages").first(),
            candidate_ids=pl.col("candidate_id"),
            responses=pl.col("response"),
        )
        .sort("prompt_id")
    )
    ids = [content_hash("stats", p, *c) for p, c in grouped.select("prompt_id", "candidate_ids").iter_rows()]
    return grouped.with_columns(stats_id=pl.Series(ids, dtype=pl.String))


def run(context: Context) -> StageResult:
    step = policy_step(context)
    inputs = policy_inputs(context)
    report = context.compute(step, inputs)
    failed = context.ledger.failures(step.key, inputs["stats_id"])
    facts = {"computed": report.computed, "tokens": report.tokens, "policy": report.producer}
    facts |= {f"candidates with {rule}": n for rule, n in failed["rule"].value_counts(sort=True).iter_rows()}
    return StageResult("policy_stats", inputs.height, failed.height, facts)


STAGE = Stage(
    name="policy_stats",
    group="scores",
    description="Summed hidden states and log-probabilities of every candidate, one pass a prompt.",
    needs=("prompts", "candidates"),
    run=run,
    table="policy_stats",
    enabled=lambda recipe: recipe.policy is not None,
    uses_model=True,
)

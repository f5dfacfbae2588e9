"""Stage ``generations``: sample answers from the recipe's generators, each request once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import polars as pl

from curation.engine import Batch, Worker, failures_frame
from curation.ledger import LedgerKey
from curation.models.generator import generator_fingerprint, open_generator
from curation.models.protocols import Fault, Generator
from curation.recipe import Generation
from curation.stages.context import Context, Stage, StageResult
from curation.text import content_hash
from schemas import TABLES

__all__ = ["STAGE", "GenerationStep", "generation_steps", "requests"]

_STEP_VERSION = 1


@dataclass(frozen=True)
class GenerationStep:
    """Sampling from one generator."""

    options: Generation
    seed: int

    @property
    def name(self) -> str:
        return "generations"

    @property
    def batch_rows(self) -> int:
        return self.options.batch_rows

    @property
    def key(self) -> LedgerKey:
        producer = generator_fingerprint(self.options.model, **self._sampling())
        return LedgerKey("generations", "request_id", "generator", f"{producer} step{_STEP_VERSION}")

    def open(self) -> Worker:
        generator = open_generator(self.options.model, **self._sampling())
        return _Sampling(generator)

    def _sampling(self) -> dict[str, Any]:
        """Everything that determines an answer, besides model and prompt: what is in the key is what is used."""
        o = self.options
        return {
            "max_new_tokens": o.max_new_tokens,
            "temperature": o.temperature,
            "top_p": o.top_p,
            "seed": self.seed,
            "system_prompt": o.system_prompt,
        }


@dataclass
class _Sampling:
    generator: Generator

    def __call__(self, batch: pl.DataFrame) -> Batch:
        answers = self.generator.generate(batch["messages"].to_list(), batch["sample_index"].to_list())
        rows, failures, tokens = [], [], 0
        for request, answer in zip(batch.iter_rows(named=True), answers, strict=True):
            if isinstance(answer, Fault):
                failures.append(
                    {"row_id": request["request_id"], "item_id": request["prompt_id"], **answer._asdict()}
                )
                continue
            tokens += answer.completion_tokens
            rows.append(
                {
                    "request_id": request["request_id"],
                    "prompt_id": request["prompt_id"],
                    "sample_index": request["sample_index"],
                    "response": answer.text,
                    "finish_reason": answer.finish_reason,
                    "prompt_tokens": answer.prompt_tokens,
                    "completion_tokens": answer.completion_tokens,
                    "cost": None,
                }
            )
        schema = {c: TABLES["generations"].create_empty().schema[c] for c in _PRODUCED}
        return Batch(pl.DataFrame(rows, schema=schema), failures_frame(failures), tokens)


_PRODUCED = [c for c in TABLES["generations"].column_names() if c != "generator"]


def generation_steps(context: Context) -> list[GenerationStep]:
    """The steps that a recipe asks for."""
    return [GenerationStep(options, context.recipe.seed) for options in context.recipe.generation]


def requests(prompts: pl.DataFrame, samples: int) -> pl.DataFrame:
    """One row for each prompt and sample index: request_id, prompt_id, messages, sample_index."""
    indices = pl.DataFrame({"sample_index": range(samples)}, schema={"sample_index": pl.Int64})
    crossed = prompts.select("prompt_id", "messages").join(indices, how="cross")
    ids = [content_hash("request", p, str(i)) for p, i in crossed.select("prompt_id", "sample_index").iter_rows()]
    return crossed.with_columns(request_id=pl.Series(ids, dtype=pl.String))


def run(context: Context) -> StageResult:
    prompts = context.workspace.read("prompts")
    rows, failed = 0, 0
    facts: dict[str, int] = {}
    for step in generation_steps(context):
        report = context.compute(step, requests(prompts, step.options.samples))
        rows += report.computed + report.reused
        failed += report.failed
        facts[f"computed by {step.options.model}"] = report.computed
    return StageResult("generations", rows, failed, facts)


STAGE = Stage(
    name="generations",
    group="candidates",
    description="Answers sampled from the recipe's generators. Each request is paid for once.",
    needs=("prompts",),
    run=run,
    table="generations",
    enabled=lambda recipe: bool(recipe.generation),
    uses_model=True,
)

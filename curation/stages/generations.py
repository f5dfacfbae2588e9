"""Stage ``generations``: sample answers from the recipe's models, each request once.

Which requests there are is in ``asked``; how each answer is kept, in ``curation.streaming``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import polars as pl

from curation.errors import BudgetReached
from curation.journal import is_draining, journal_path
from curation.ledger import LedgerKey
from curation.models.chat import (
    ChatAnswer,
    ChatModel,
    ChatOptions,
    ChatReply,
    ChatRequest,
    Connection,
    EngineOptions,
    chat_fingerprint,
    is_address,
    open_chat,
)
from curation.models.chat.usage import Tokens, counted, most_tokens
from curation.models.protocols import Fault
from curation.recipe import Generation
from curation.recipe.generation import Price
from curation.stages.asked import prompts_of, requests, requests_of
from curation.stages.context import Context, Stage, StageResult
from curation.stages.drawn import Drawn, drawn_in_rounds, is_drawn_in_rounds
from curation.stages.spending import spent
from curation.streaming import Arrival, Budget, Stream, run_stream

__all__ = [
    "STAGE",
    "GenerationStep",
    "asked_of",
    "budget_of",
    "generation_steps",
    "requests",
    "rewriting_steps",
    "step_from",
]

_STEP_VERSION = 1
_VLLM_ROWS: Final = 512


@dataclass(frozen=True)
class GenerationStep:
    """Sampling from one model."""

    options: Generation
    seed: int
    price: Price | None = None

    @property
    def name(self) -> str:
        return "generations"

    @property
    def key(self) -> LedgerKey:
        o = self.options
        producer = chat_fingerprint(o.model, self._sampling(), backend=o.backend, revision=o.revision)
        return LedgerKey("generations", "request_id", "generator", f"{producer} step{_STEP_VERSION}")

    @property
    def batch_rows(self) -> int:
        """Requests that a worker elsewhere gets at once; vLLM batches for itself, and wants many to choose from."""
        rows = self.options.batch_rows
        return max(rows, _VLLM_ROWS) if self.options.backend == "vllm" else rows

    @property
    def is_remote(self) -> bool:
        """Whether a server answers."""
        return is_address(self.options.model)

    @property
    def spec(self) -> tuple[str, dict[str, Any]]:
        price = None if self.price is None else self.price.model_dump(mode="json")
        options = self.options.model_dump(mode="json")
        return f"{__name__}:step_from", {"options": options, "seed": self.seed, "price": price}

    def open(self) -> Stream:
        o = self.options
        connection = Connection(
            concurrency=o.concurrency,
            timeout=o.timeout,
            attempts=o.attempts,
            patience=o.patience,
            key_variable=o.api_key_variable,
        )
        model = open_chat(
            o.model,
            self._sampling(),
            backend=o.backend,
            revision=o.revision,
            connection=connection,
            engine=EngineOptions(o.tensor_parallel_size, o.gpu_memory_utilization, o.max_model_len),
            batch_rows=o.batch_rows,
        )
        return _Sampling(self, model)

    def most(self, row: Mapping[str, Any]) -> float:
        """See ``curation.models.chat.usage.most_tokens``."""
        return 0.0 if self.price is None else self.price.of(self.most_tokens(row))

    def cost(self, row: Mapping[str, Any], answer: ChatAnswer) -> float | None:
        """What an answer cost; what it can cost at most where the server did not count tokens."""
        return None if self.price is None else self.price.of(counted(answer, self.most_tokens(row)))

    def most_tokens(self, row: Mapping[str, Any]) -> Tokens:
        """What a request can take at most."""
        system = row["system_prompt"] or self.options.system_prompt
        return most_tokens(row["messages"], system, self.options.max_new_tokens)

    def _sampling(self) -> ChatOptions:
        """Everything that determines an answer, besides model and prompt: what is in the key is what is used."""
        o = self.options
        return ChatOptions(
            max_new_tokens=o.max_new_tokens,
            temperature=o.temperature,
            top_p=o.top_p,
            seed=self.seed,
            system_prompt=o.system_prompt,
            json_schema=o.json_schema,
            lora=o.lora,
            extra_body=o.extra_body,
            template_options=o.template_options or None,
            dtype=o.dtype,
            quantization=o.quantization,
        )


def step_from(options: dict[str, Any], seed: int, price: dict[str, Any] | None) -> GenerationStep:
    """The step that has this ``spec``."""
    return GenerationStep(
        Generation.model_validate(options), seed, None if price is None else Price.model_validate(price)
    )


@dataclass
class _Sampling:
    """See ``curation.streaming.Stream``."""

    step: GenerationStep
    model: ChatModel

    def __call__(self, rows: Iterable[dict[str, Any]]) -> Iterator[Arrival]:
        under_way: dict[str, dict[str, Any]] = {}

        def asked() -> Iterator[ChatRequest]:
            for row in rows:
                under_way[row["request_id"]] = row
                yield ChatRequest(row["request_id"], _messages(row), row["sample_index"])

        for reply in self.model.chat(asked()):
            yield self._arrival(under_way.pop(reply.key), reply)

    def _arrival(self, row: dict[str, Any], reply: ChatReply) -> Arrival:
        answer = reply.answer
        # A provider may charge for what broke off all the same, each time that it was sent.
        lost = reply.broken_off * self.step.most(row)
        if isinstance(answer, Fault):
            failure = {"row_id": row["request_id"], "item_id": row["prompt_id"], **answer._asdict()}
            return Arrival(row["request_id"], None, failure, cost=lost)
        cost = self.step.cost(row, answer)
        cost = None if cost is None else cost + lost
        kept = {
            "request_id": row["request_id"],
            "prompt_id": row["prompt_id"],
            "sample_index": row["sample_index"],
            "response": answer.text,
            "reasoning": answer.reasoning,
            "finish_reason": answer.finish_reason,
            "prompt_tokens": answer.prompt_tokens,
            "completion_tokens": answer.completion_tokens,
            "cost": cost,
            "system_prompt": row["system_prompt"],
        }
        return Arrival(row["request_id"], kept, None, answer.completion_tokens, cost or 0.0)


def _messages(row: Mapping[str, Any]) -> tuple[dict[str, str], ...]:
    """The prompt, with the sample's own system message where it has one."""
    messages = tuple(row["messages"])
    if row["system_prompt"] is None:
        return messages
    rest = messages[1:] if messages[0]["role"] == "system" else messages
    return ({"role": "system", "content": row["system_prompt"]}, *rest)


def generation_steps(context: Context) -> list[GenerationStep]:
    """The steps that a recipe asks for."""
    recipe = context.recipe
    return [GenerationStep(o, recipe.seed, recipe.costs.price_of(o.model)) for o in recipe.generation]


def rewriting_steps(context: Context) -> list[GenerationStep]:
    """The steps of the models that rewrite prompts and answers: they are paid from the same purse."""
    recipe = context.recipe
    return [GenerationStep(o, recipe.seed, recipe.costs.price_of(o.model)) for o in recipe.rewriters.values()]


def asked_of(context: Context, prompts: pl.DataFrame) -> Iterator[tuple[GenerationStep, pl.DataFrame]]:
    """Each step with the requests that it makes; those drawn in rounds as far as the ledger has answers."""
    recipe = context.recipe
    steps = generation_steps(context)
    for step in steps:
        if is_drawn_in_rounds(recipe.sampling, step.options):
            mine = prompts_of(step, steps, prompts, models_per_prompt=recipe.pool.models_per_prompt)
            yield step, drawn_in_rounds(context, step, mine).requests
        else:
            yield step, requests_of(step, steps, prompts, models_per_prompt=recipe.pool.models_per_prompt)


def budget_of(context: Context) -> Budget:
    """What may be spent, and what the recipe's models have been paid in this workspace so far.

    With whatever options: another temperature is no second purse.
    """
    costs = context.recipe.costs
    if costs.max_cost is not None:
        _take_in_leftovers(context, (*generation_steps(context), *rewriting_steps(context)))
    return Budget(costs.max_cost, spent(context), costs.currency)


def _take_in_leftovers(context: Context, steps: Sequence[GenerationStep]) -> None:
    """What a run that was killed has paid for is spent: bring it into the ledger, once its answers are there."""
    for step in steps:
        journal = journal_path(context.workspace, step.key)
        if is_draining(context.workspace, step.key) or (journal.exists() and journal.stat().st_size > 0):
            nothing = pl.DataFrame(schema={step.key.id_column: pl.String})
            run_stream(step, nothing, context.ledger, progress=context.progress)


def run(context: Context) -> StageResult:
    prompts = context.workspace.read("prompts")
    rows, failed = 0, 0
    facts: dict[str, Any] = {}
    budget = budget_of(context)
    steps = generation_steps(context)
    reached: list[BudgetReached] = []
    for step, name in zip(steps, _names(steps), strict=True):
        before = len(context.reports)
        try:
            facts |= {f"{fact}, {name}": number for fact, number in _asked(context, step, steps, prompts, budget)}
        except BudgetReached as error:
            # What costs nothing, or less, goes on.
            reached.append(error)
        reports = [r for r in context.reports[before:] if r.name == step.name]
        rows += sum(r.computed + r.reused for r in reports)
        failed += sum(r.failed for r in reports)
        facts[f"computed by {name}"] = sum(r.computed for r in reports)
        if step.price is not None:
            facts[f"paid to {name}"] = f"{sum(r.cost for r in reports):.6g} {budget.currency}"
    if reached:
        raise reached[0]
    return StageResult("generations", rows, failed, facts)


def _asked(
    context: Context, step: GenerationStep, steps: Sequence[GenerationStep], prompts: pl.DataFrame, budget: Budget
) -> Iterable[tuple[str, int]]:
    """Ask one model for its answers; what there is to say of its rounds, where it is asked in rounds."""
    pool = context.recipe.pool.models_per_prompt
    if is_drawn_in_rounds(context.recipe.sampling, step.options):
        mine = prompts_of(step, steps, prompts, models_per_prompt=pool)
        return _draw(context, step, mine, budget).facts.items()
    context.compute_stream(step, requests_of(step, steps, prompts, models_per_prompt=pool), budget=budget)
    return ()


def _names(steps: Sequence[GenerationStep]) -> list[str]:
    """What the facts call each step: its model, and its place where one model is asked in several ways."""
    models = [step.options.model for step in steps]
    return [f"{m} (generation {place})" if models.count(m) > 1 else m for place, m in enumerate(models)]


def _draw(context: Context, step: GenerationStep, prompts: pl.DataFrame, budget: Budget) -> Drawn:
    """The rounds of one model. Only the first forgets failures: what fails again in it stays a failure."""
    contexts = iter([context])

    def get(asked: pl.DataFrame) -> None:
        now = next(contexts, replace(context, retry_failed=False))
        now.compute_stream(step, asked, budget=budget)

    return drawn_in_rounds(context, step, prompts, get=get)


STAGE = Stage(
    name="generations",
    group="candidates",
    description="Answers sampled from the recipe's generators. Each request is paid for once.",
    needs=("inputs", "hygiene", "prompts"),
    run=run,
    table="generations",
    enabled=lambda recipe: bool(recipe.generation),
    uses_model=True,
)

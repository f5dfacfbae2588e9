"""Recipe sections ``generation``, ``pool`` and ``costs``: what is sampled, from whom, and for how much money."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import Field, model_validator

from curation.models.chat.connection import Address, address_of, is_address
from curation.recipe.base import Section
from curation.recipe.models import MemoryShare, SplitOver

if TYPE_CHECKING:
    from curation.models.chat.usage import Tokens

__all__ = ["Costs", "Generation", "Pool", "Price"]

_NOT_PARAMETERS: Final = frozenset(
    {
        "batch_rows",
        "concurrency",
        "timeout",
        "attempts",
        "patience",
        "api_key_variable",
        "tensor_parallel_size",
        "gpu_memory_utilization",
        "max_model_len",
        "samples",
        "only_as_rejected",
        "opens_thought",
    }
)
_OF_VLLM: Final = ("dtype", "quantization", "tensor_parallel_size", "gpu_memory_utilization", "max_model_len")


class Generation(Section):
    """Answers to sample from one model."""

    model: str = Field(
        default="embedded",
        description="http://host:port/v1#name for an OpenAI-compatible server; a folder, a Hub id, or embedded",
    )
    backend: Literal["auto", "server", "transformers", "vllm"] = Field(
        default="auto", description="auto: the server for an address, else transformers; vllm: in this process"
    )
    revision: str | None = Field(
        default=None,
        min_length=1,
        description="your own name for what a server serves: answers are then found again at another address",
    )
    samples: int = Field(default=2, ge=1, le=1024, description="answers for each prompt")
    temperature: float = Field(default=0.8, ge=0.0, le=5.0)
    top_p: float = Field(default=0.95, gt=0.0, le=1.0)
    max_new_tokens: int = Field(default=128, ge=1)
    system_prompt: str | None = Field(default=None, description="for prompts that have no system message")
    system_prompts: tuple[str, ...] = Field(
        default=(), description="one is drawn for each sample, for prompts that have no system message"
    )
    principles: tuple[str, ...] = Field(
        default=(), description="one is drawn for each sample and added to its system message (UltraFeedback)"
    )
    lora: str | None = Field(
        default=None, description="an adapter: its name on the server; with backend vllm its folder or Hub id"
    )
    json_schema: dict[str, Any] | None = Field(
        default=None, description="a JSON schema that every answer must fit; server and vllm"
    )
    extra_body: dict[str, Any] | None = Field(
        default=None,
        description="further fields of a server's request, by its own names: {reasoning_effort: low}",
    )
    template_options: dict[str, Any] | None = Field(
        default=None,
        description="variables of the model's chat template: {enable_thinking: false}; a server gets them as "
        "chat_template_kwargs, which vLLM and SGLang take",
    )
    concurrency: int = Field(default=64, ge=1, le=4096, description="requests that a server has at once")
    timeout: float = Field(default=600.0, gt=0, description="seconds for one reply of a server")
    attempts: int = Field(default=8, ge=1, description="how often a request is sent before it is a reject")
    patience: float = Field(default=600.0, ge=0, description="seconds to wait for a server that went away")
    api_key_variable: str = Field(
        default="OPENAI_API_KEY", pattern=r"^[A-Za-z_]\w*$", description="environment variable with a server's key"
    )
    batch_rows: int = Field(default=16, ge=1, description="answers that transformers makes at once")
    dtype: Literal["float32", "bfloat16", "float16"] | None = Field(
        default=None, description="vllm: the width that the model runs in; its own"
    )
    quantization: str | None = Field(
        default=None, min_length=1, description="vllm: fp8, bitsandbytes, …; as the model's files are"
    )
    tensor_parallel_size: SplitOver = None
    gpu_memory_utilization: MemoryShare = None
    max_model_len: int | None = Field(
        default=None,
        ge=1,
        description="vllm: tokens of a prompt with its answer, and a longer one is a reject; the model's own "
        "context, or what memory holds of it",
    )
    only_as_rejected: bool = Field(
        default=False, description="an older or hotter model, for negatives: no score ever chooses its answers"
    )
    opens_thought: bool = Field(
        default=False,
        description="a server whose chat template opens the model's reasoning: an answer without a closing marker "
        "is unfinished reasoning (docs/candidates.md)",
    )

    @model_validator(mode="after")
    def _has_a_vllm(self) -> Generation:
        given = [name for name in _OF_VLLM if getattr(self, name) is not None]
        if given and self.backend != "vllm":
            raise ValueError(f"{given[0]} is of backend vllm, and this one is {self.backend}")
        return self

    @property
    def parameters(self) -> dict[str, Any]:
        """What an answer depends on, without what is at rest: for the record of each answer."""
        given = self.model_dump(mode="json", exclude=set(_NOT_PARAMETERS))
        return {name: value for name, value in given.items() if value not in (None, [], "auto")}


class Pool(Section):
    """How the models of ``generation`` share the prompts."""

    models_per_prompt: int | None = Field(
        default=None,
        ge=1,
        description="so many of the models, drawn by the seed, answer each prompt; all by default",
    )


class Price(Section):
    """The price of one model, per million tokens."""

    prompt: float = Field(ge=0.0, description="per million prompt tokens")
    completion: float = Field(ge=0.0, description="per million tokens of the answers")

    def of(self, tokens: Tokens) -> float:
        """What so many tokens cost."""
        return (tokens.prompt * self.prompt + tokens.completion * self.completion) / 1e6


class Costs(Section):
    """What answers cost, and what they may cost together."""

    currency: str = "USD"
    prices: dict[str, Price] = Field(
        default_factory=dict, description="by a model as section generation names it, or by its name on the server"
    )
    max_cost: float | None = Field(
        default=None,
        gt=0.0,
        description="the run stops before more than this is spent on answers and judges, over all runs",
    )

    def price_of(self, model: str) -> Price | None:
        """The price of a model, or None."""
        return self.prices.get(model) or self.prices.get(model.partition("#")[2])

    def prices_of(self, models: Iterable[str]) -> dict[Address, Price]:
        """The prices of those models that are behind servers and have one."""
        priced = ((model, self.price_of(model)) for model in models if is_address(model))
        return {address_of(model): price for model, price in priced if price is not None}

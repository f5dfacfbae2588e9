"""Recipe sections for the models that score: encoder, rewards, policy."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from curation.recipe.base import Section

__all__ = ["Encoder", "MemoryShare", "PairJudge", "Policy", "Reward", "SplitOver"]

SplitOver = Annotated[int | None, Field(ge=1, description="vllm: GPUs that the model is split over; 1")]
MemoryShare = Annotated[
    float | None,
    Field(gt=0.0, le=1.0, description="vllm: the share of a GPU's memory that it takes; vLLM's own"),
]


class Encoder(Section):
    """The model that turns texts into vectors."""

    model: str = Field(default="embedded", description="a folder, a Hub id, or embedded (all-MiniLM-L6-v2)")
    max_length: int | None = Field(
        default=None,
        ge=8,
        description="tokens read of a text, at most as many as the model has positions; the model's own limit",
    )
    query_prompt: str | None = Field(
        default=None,
        description='of hard negatives: put before each anchor, "query: " for E5; a text, or the name of a prompt '
        "of the model; its own prompt query, if it has one",
    )
    document_prompt: str | None = Field(
        default=None,
        description='of hard negatives: put before each document, "passage: " for E5; the model\'s own prompt '
        "document, passage or corpus, if it has one",
    )
    batch_rows: int = Field(default=512, ge=1)


class Reward(Section):
    """A reward model, or an ensemble of heads."""

    model: str = Field(
        default="embedded",
        description="a folder, a Hub id, vllm: and one of these, embedded (an ensemble), trained (heads fitted to "
        "the sources' own pairs, cross-fitted), an address of a server or judge, or python:module:function",
    )
    batch_rows: int = Field(
        default=256, ge=1, description="answers kept in one commit; 4,096 or more for heads that read kept vectors"
    )
    attributes: tuple[str, ...] | dict[str, float] | None = Field(
        default=None,
        description="of a sequence classifier with several labels: a list of those that are read, each a reward "
        "and a voter of its own; or label and weight, and the weighted sum is the one reward; all of them",
    )
    dtype: Literal["float32", "bfloat16"] | None = Field(
        default=None, description="of a sequence classifier; float32. bfloat16 takes half the memory"
    )
    max_length: int | None = Field(
        default=None,
        ge=8,
        description="of a sequence classifier: longest prompt and answer, in tokens; a longer one has no reward; "
        "the model's own limit",
    )
    encoder: str | None = Field(
        default=None,
        description="of relevance: the encoder (a folder, a Hub id, or embedded; embedded). Of heads: where their "
        "encoder lies now, if not where it was",
    )
    references: str | None = Field(
        default=None,
        description="of relevance: a file (relative to the recipe) with prompt and reference, the known answer of "
        "prompts that have one; answers to these are held against it",
    )
    tensor_parallel_size: SplitOver = None
    gpu_memory_utilization: MemoryShare = None

    @field_validator("attributes", mode="before")
    @classmethod
    def _names_or_weights(cls, given: Any) -> Any:
        """Of two forms that both do not fit, only the first one's fault would be told."""
        weights = given.values() if isinstance(given, dict) else ()
        numbers = all(isinstance(w, int | float) and not isinstance(w, bool) for w in weights)
        if isinstance(given, str) or not numbers:
            raise ValueError("expected a list of the model's labels, or a mapping of labels to numbers")
        return given

    @field_validator("attributes")
    @classmethod
    def _some_attributes(
        cls, given: tuple[str, ...] | dict[str, float] | None
    ) -> tuple[str, ...] | dict[str, float] | None:
        if given is not None and len(set(given)) < max(len(given), 1):
            raise ValueError(f"expected labels of the model, each once; found {list(given)}")
        if isinstance(given, dict) and not any(given.values()):
            raise ValueError("expected a weight other than 0: the reward would be 0 for every answer")
        return given

    _OPTIONS: ClassVar = (
        "attributes",
        "dtype",
        "max_length",
        "encoder",
        "references",
        "tensor_parallel_size",
        "gpu_memory_utilization",
    )

    @property
    def options(self) -> dict[str, Any]:
        """What is given of the model's own options; whether it takes them, it says itself."""
        known = {name: getattr(self, name) for name in self._OPTIONS}
        return {name: value for name, value in known.items() if value is not None}


class PairJudge(Section):
    """An LLM that compares the two answers of each pair, in both orders: judge_verdict, judge_probability."""

    model: str = Field(
        pattern=r"^judge:.+",
        description="judge:http://host:port/v1#name or judge:MODEL?backend=vllm, with one rubric: ?rubric=honesty",
    )
    delta: float = Field(
        default=0.0, ge=0.0, le=2.0, description="a tie where the answers' probabilities, added over both orders, "
        "are no farther apart (TrustJudge)",
    )  # fmt: skip
    batch_rows: int = Field(default=256, ge=1, description="comparisons kept in one commit")


class Policy(Section):
    """The model that is going to be trained: CHES, log-probabilities and difficulty are measured on it."""

    model: str = Field(default="embedded", description="a folder, a Hub id, or embedded")
    raw: bool = Field(default=False, description="join prompt and answer without the chat template")
    template_options: dict[str, Any] | None = Field(
        default=None, description="variables of the chat template: {enable_thinking: false}"
    )
    dtype: Literal["float32", "bfloat16"] = "float32"
    backend: Literal["transformers", "vllm"] = Field(
        default="transformers",
        description="what runs it; numbers agree up to rounding, so both share a ledger",
    )
    tensor_parallel_size: SplitOver = None
    gpu_memory_utilization: MemoryShare = None
    output_gradients: bool = Field(
        default=False,
        description="also test each pair for gradient entanglement (Yuan et al. 2024), through the output layer",
    )
    batch_tokens: int = Field(default=4096, ge=16, description="tokens in one forward pass")
    max_length: int | None = Field(default=None, ge=16, description="longest prompt and answer, in tokens")
    batch_rows: int = Field(default=64, ge=1, description="prompts kept in one commit")

    @model_validator(mode="after")
    def _has_a_vllm(self) -> Policy:
        given = [name for name in ("tensor_parallel_size", "gpu_memory_utilization") if getattr(self, name)]
        if given and self.backend != "vllm":
            raise ValueError(f"{given[0]} is of backend vllm, and this one is {self.backend}")
        return self

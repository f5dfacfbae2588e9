"""Recipe sections for the models that score: encoder, rewards, policy."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from curation.recipe.base import Section

__all__ = ["Encoder", "PairJudge", "Policy", "Reward"]


class Encoder(Section):
    """The model that turns texts into vectors."""

    model: str = Field(default="embedded", description="a folder, a Hub id, or embedded (all-MiniLM-L6-v2)")
    max_length: int | None = Field(
        default=None,
        ge=8,
        description="tokens read of a text, at most as many as the model has positions; the model's own limit",
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
    dtype: Literal["float32", "bfloat16"] = "float32"
    backend: Literal["transformers", "vllm"] = Field(
        default="transformers",
        description="what runs it; numbers agree up to rounding, so both share a ledger",
    )
    output_gradients: bool = Field(
        default=False,
        description="also test each pair for gradient entanglement (Yuan et al. 2024), through the output layer",
    )
    batch_tokens: int = Field(default=4096, ge=16, description="tokens in one forward pass")
    max_length: int | None = Field(default=None, ge=16, description="longest prompt and answer, in tokens")
    batch_rows: int = Field(default=64, ge=1, description="prompts kept in one commit")

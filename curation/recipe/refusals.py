"""Recipe sections ``refusals`` and ``refusal_dataset``: how refusals are told, and what is built of them.

What R-Tuning needs of the models is checked in ``whole``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from curation.recipe.base import Section
from curation.recipe.generation import Generation

__all__ = ["RTuning", "RefusalDataset", "RefusalDetection", "RefusalJudge", "RequestSorting"]


class RefusalJudge(Section):
    """A chat model that judges, and how it is called."""

    model: str = Field(description="a folder, a Hub id, or http://host:port/v1#name for a server")
    backend: Literal["auto", "server", "transformers", "vllm"] = Field(
        default="auto", description="auto: the server for an address, else transformers"
    )
    revision: str | None = Field(default=None, description="your own name for what a server serves")
    max_new_tokens: int = Field(
        default=48, ge=16, description="of a reply; a model that reasons first needs a thousand or more"
    )
    temperature: float = Field(
        default=0.0, ge=0.0, le=5.0, description="1 for a model of a server that takes no other"
    )
    extra_body: dict[str, Any] | None = Field(
        default=None,
        description="further fields of a server's request, by its own names: {reasoning_effort: low}",
    )
    concurrency: int = Field(default=64, ge=1, description="requests that a server has at once")
    timeout: float = Field(default=600.0, gt=0, description="seconds for one reply")
    key_variable: str = Field(default="OPENAI_API_KEY", description="the environment variable with a server's key")


class RequestSorting(Section):
    """A model that sorts requests into the taxonomy's categories, in place of nearness to their prototypes."""

    model: str | None = Field(
        default=None,
        description="a folder or a Hub id of a classifier whose labels are the categories, by name, title or label",
    )
    no_category: tuple[str, ...] = Field(
        default=(),
        description="labels of the classifier that mean none; by default none, other, safe and their like",
    )
    min_probability: float = Field(
        default=0.5, ge=0.0, le=1.0, description="of the classifier's likeliest label, below which there is none"
    )
    judge: RefusalJudge | None = Field(
        default=None, description="a chat model is shown the categories and the request instead"
    )

    @model_validator(mode="after")
    def _one(self) -> RequestSorting:
        if (self.model is None) == (self.judge is None):
            raise ValueError("sorting needs either model, a classifier, or judge, a chat model")
        return self


class RefusalDetection(Section):
    """The model that tells refusals from answers, and how requests are sorted."""

    model: str = Field(default="embedded", description="a folder, a Hub id of any classifier, or embedded")
    refusal_labels: tuple[str, ...] = Field(
        default=(), description="labels of a classifier that mean a refusal; by default those whose name says so"
    )
    classifier_input: str | None = Field(
        default=None,
        pattern=r"\{response\}",
        description="what a classifier reads, as its card has it: a text with {response} in it, and {prompt} if it "
        "was trained on both; the answer alone",
    )
    max_length: int = Field(default=512, ge=8, description="tokens a classifier reads, of longer answers both ends")
    judge: RefusalJudge | None = Field(default=None, description="an LLM judges instead of model")
    calibration: str | None = Field(
        default=None, description="a file that `curation refusals calibrate` wrote (relative to the recipe)"
    )
    taxonomy: str | None = Field(
        default="sorry_bench",
        description="categories of requests: sorry_bench, sorry_bench_2024_06 or sorry_bench_2025_03 (one release, "
        "whose numbers sources may use), coconot, your own YAML file (relative to the recipe), or none",
    )
    sorting: RequestSorting | None = Field(
        default=None, description="who sorts requests into the taxonomy; none: nearness to its prototypes"
    )
    requests: bool = Field(
        default=False,
        description="also judge the prompts: should they be refused, why, are they look-alikes, their category; "
        "always done where the refusal dataset takes expectations from there or has quotas",
    )
    batch_rows: int = Field(default=1024, ge=1)

    @model_validator(mode="after")
    def _sorted_into_something(self) -> RefusalDetection:
        if self.sorting is not None and self.taxonomy is None:
            raise ValueError("sorting needs a taxonomy to sort into")
        return self


class RTuning(Section):
    """Questions with an answer and a sentence that says how sure the model is of it (Zhang et al. 2023)."""

    by: Literal["correctness", "entropy"] = Field(
        default="correctness",
        description="correctness: sure where the model's greedy answer (temperature 0) is right; entropy: sure "
        "where its sampled answers agree",
    )
    model: str | None = Field(
        default=None, description="whose answers, as section generation names it; by default the only one that fits"
    )
    sources: tuple[str, ...] = Field(
        default=(),
        description="the sources of the questions; by default all prompts whose sources give no expected behaviour",
    )
    verifier: str = Field(
        default="exact_match",
        description="for correctness: exact_match (against the sources' right answers) or "
        "python:package.module:function",
    )
    max_entropy: float | None = Field(
        default=None,
        ge=0.0,
        description="for entropy: nats up to which a question is sure; none: the lower half is",
    )
    min_answers: int = Field(
        default=3, ge=2, description="for entropy: answers of a question that must come to something short"
    )
    sure: str = Field(default="I am sure.", min_length=1, description="what follows a sure answer")
    unsure: str = Field(default="I am unsure.", min_length=1, description="what follows an unsure one")

    def fits(self, generation: Generation, *, drawn_in_rounds: bool) -> bool:
        """Whether a model's answers can tell: greedy ones for correctness, enough sampled ones for entropy."""
        if generation.only_as_rejected or self.model not in (None, generation.model):
            return False
        if self.by == "correctness":
            return generation.temperature == 0.0
        return generation.temperature > 0.0 and (drawn_in_rounds or generation.samples >= self.min_answers)


class RefusalDataset(Section):
    """What goes into the dataset ``refusal``: quotas, contrast, tokens."""

    expectation: Literal["given", "predicted"] = Field(
        default="given",
        description="where a prompt has no expected behaviour: none, or what the prompt model is sure of",
    )
    min_expectation: float = Field(
        default=0.9, gt=0.5, le=1.0, description="how sure the prompt model must be, for expectation: predicted"
    )
    quotas: dict[str, Annotated[int, Field(ge=0)]] = Field(
        default_factory=dict,
        description="category, by its name or title in the taxonomy or as a source calls it → rows wanted; (none) "
        "for rows without one; a name that no prompt can have is an error; a shortfall is reported, never padded",
    )
    quota: int | None = Field(
        default=None,
        ge=0,
        description="rows wanted of every other category, and the most of those without one; none: all",
    )
    contrast_per_refusal: float | None = Field(
        default=None, ge=0.0, description="at most so many contrast rows for each refusal; none: no limit"
    )
    faults: Literal["pair", "drop"] = Field(
        default="pair",
        description="over-refusals and unsafe compliances: also turned round into pairs (table refusal_pairs; the "
        "strategy refusal_faults publishes them), or only dropped",
    )
    unknown: Literal["drop", "uncertain"] = Field(
        default="drop", description="prompts without an expected behaviour: dropped, or of kind uncertain"
    )
    partial: Literal["drop", "refusal"] = Field(
        default="drop", description="whether a partial refusal counts as one where one is due"
    )
    min_confidence: float = Field(
        default=0.6, ge=0.5, le=1.0, description="probability of the class found, below which an answer is left out"
    )
    per_prompt: int = Field(default=1, ge=1, description="answers of one prompt, the surest first")
    tokens: Literal["behaviour", "category"] = Field(
        default="behaviour", description="[refuse] and [respond], or a token per category (Jain et al. 2024)"
    )
    prepend: bool = Field(default=False, description="also write the token before the answer")
    r_tuning: RTuning | None = Field(
        default=None, description="also rows of kind uncertain: sure and unsure answers of the model to questions"
    )

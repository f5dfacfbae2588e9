"""Recipe section ``sampling``: how many answers a prompt gets, and which of them stay."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from curation.recipe.base import Section
from curation.recipe.models import Reward

__all__ = ["SampleBudget", "SampleChoice", "Sampling"]


class SampleBudget(Section):
    """Answers are drawn in rounds until each prompt has enough successes (DART, Tong et al. 2024).

    ``samples`` of section ``generation`` is then not read. Each model has the budget for itself.
    """

    kind: Literal["uniform", "prop2diff"] = Field(
        description="uniform: the same number of successes for each prompt; prop2diff: by its fail rate"
    )
    verifier: str | None = Field(
        default=None,
        description="a success is what passes: exact_match (against the sources' right answers) or "
        "python:package.module:function",
    )
    min_reward: float | None = Field(
        default=None, description="a success has at least this reward (mean of the values of sampling.reward)"
    )
    successes: int = Field(default=4, ge=1, description="uniform: of each prompt (the paper has 40)")
    pilot: int = Field(default=4, ge=1, description="prop2diff: answers that a prompt's fail rate is taken from")
    hardest: int = Field(
        default=8, ge=1, description="prop2diff: successes of the prompt that fails most (the paper has 192)"
    )

    @property
    def first_round(self) -> int:
        """Answers that every prompt gets."""
        return self.successes if self.kind == "uniform" else self.pilot

    @model_validator(mode="after")
    def _has_one_test(self) -> SampleBudget:
        if (self.verifier is None) == (self.min_reward is None):
            raise ValueError("give either verifier or min_reward: what counts as a success")
        return self


class SampleChoice(Section):
    """Which of a prompt's sampled answers stay; the others are rejects. Answers of sources always stay."""

    method: Literal["best_of_n", "rso"] = Field(
        description="best_of_n: those with the highest reward; rso: rejection sampling (Liu et al. 2023)"
    )
    keep: int = Field(default=1, ge=1, description="answers of each prompt, over all models")
    beta: float = Field(
        default=0.5, ge=0.0, description="rso: in the unit of the reward; 0 takes the best (the paper's default)"
    )


class Sampling(Section):
    """Draws in rounds, near-identical samples, which answers stay. Models ``only_as_rejected`` are left alone."""

    reward: Reward = Field(default=Reward(), description="scores answers for min_reward and for choice")
    budget: SampleBudget | None = None
    near_identical: float | None = Field(
        default=None,
        gt=0.0,
        le=1.0,
        description="answers of one model to one prompt whose word 3-grams have at least this Jaccard index: the "
        "later one is a reject, and another is drawn",
    )
    max_samples: int = Field(
        default=16,
        ge=1,
        le=1024,
        description="for budget and near_identical: answers of one model to one prompt, at most",
    )
    max_rounds: int | None = Field(
        default=8, ge=1, description="for budget and near_identical: rounds after the first, at most"
    )
    choice: SampleChoice | None = None

    @model_validator(mode="after")
    def _fits(self) -> Sampling:
        if self.budget is not None and self.budget.first_round > self.max_samples:
            raise ValueError(
                f"the budget begins with {self.budget.first_round} answers, and max_samples is {self.max_samples}"
            )
        if self.reward.model == "trained":
            raise ValueError("reward cannot be 'trained': heads are fitted after answers are sampled")
        return self

"""Recipe sections ``pairs`` and ``selection``: which pairs are built, and which are kept."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field, field_validator, model_validator

from curation.errors import closest
from curation.recipe.base import Section
from schemas.pair_labels import NOISE_SCORES

__all__ = ["SCORED_BY", "CurriculumOrder", "Mixture", "PairStrategy", "Pairs", "Selection", "SelectionRule"]


PairStrategy = Literal[
    "provided", "best_vs_worst", "best_vs_random", "best_vs_median", "best_vs_each", "margin_window", "all",
    "first_round", "tournament", "diverse", "ches_aware", "refusal_vs_compliance", "refusal_faults",
    "template_vs_forget", "constructed",
]  # fmt: skip

_SCORES_OF: Final = {
    "policy": (
        "ches", "ln_ches", "chosen_tokens", "rejected_tokens", "chosen_logp", "rejected_logp", "difficulty",
        "edit_distance", "last_hidden", "chosen_change", "rejected_change",
    ),
    "rewards": (
        "strength_mean", "strength_std", "strength_length_controlled", "agreement", "label_probability",
    ),
    "encoder": ("cosine",),
    "refusals": ("chosen_refusal_probability", "rejected_refusal_probability"),
    "judge": ("judge_probability",),
    "label_noise": NOISE_SCORES,
}  # fmt: skip
SCORED_BY: Final = {score: section for section, scores in _SCORES_OF.items() for score in scores}
"""A pair's score to the section of the recipe without which no pair has it."""


class Pairs(Section):
    """Which pairs are built from the candidates; docs/pairs.md says what each strategy does."""

    strategies: tuple[PairStrategy, ...] = Field(
        default=("provided",),
        min_length=1,
        description="a pair that several build is kept once, under the first of them",
    )
    score: Literal["rewards", "provided"] = Field(
        default="rewards", description="what ranks the candidates: the reward models, or the source's scores"
    )
    min_margin: float = Field(default=0.0, ge=0.0, description="a pair's scores must differ by more than this")
    max_margin: float | None = Field(
        default=None, gt=0.0, description="for margin_window: a pair's scores differ by at most this"
    )
    per_prompt: int = Field(
        default=2, ge=1, description="for diverse and refusal_vs_compliance: pairs of one prompt, at most"
    )
    ches_quantile: float = Field(
        default=0.15,
        gt=0.0,
        le=1.0,
        description="for ches_aware: of the strongest pairs' scores; 0.05 to 0.15 in Razin et al. 2025, section 6",
    )
    min_refusal_certainty: float = Field(
        default=0.6,
        ge=0.0,
        le=1.0,
        description="for refusal_vs_compliance: the detector's probability of the answer's class, at least; below "
        "0.6 short answers that may refuse pass for compliance",
    )
    rank_constructed: bool = Field(
        default=False,
        description="let constructed answers take part in the strategies that go by a score or a refusal: a "
        "reward model may then choose an answer that was made to be wrong",
    )
    forget_sources: tuple[str, ...] = Field(
        default=(), description="for template_vs_forget: the sources whose answers the model is to forget"
    )

    @model_validator(mode="after")
    def _complete(self) -> Pairs:
        if "margin_window" in self.strategies and self.max_margin is None:
            raise ValueError("strategies has 'margin_window', which needs max_margin")
        if self.max_margin is not None and self.max_margin <= self.min_margin:
            raise ValueError(f"max_margin is {self.max_margin}, expected more than min_margin, {self.min_margin}")
        if "template_vs_forget" in self.strategies and not self.forget_sources:
            raise ValueError("strategies has 'template_vs_forget', which needs forget_sources")
        return self


class SelectionRule(Section):
    """Keep the pairs whose score lies in a range: of values, or of quantiles of this run's pairs."""

    score: str
    min: float | None = None
    max: float | None = None
    min_quantile: float | None = Field(default=None, ge=0.0, le=1.0)
    max_quantile: float | None = Field(default=None, ge=0.0, le=1.0)
    missing: Literal["drop", "keep"] = Field(default="drop", description="what to do with a pair without it")

    @field_validator("score")
    @classmethod
    def _known(cls, score: str) -> str:
        from schemas.pairs import PairScores

        known = [name for name, column in PairScores.columns().items() if column.dtype.is_numeric()]
        known += NOISE_SCORES
        if score not in known:
            raise ValueError(f"no such score; there are {', '.join(known)}{closest(score, known)}")
        return score

    @model_validator(mode="after")
    def _bounded(self) -> SelectionRule:
        if all(v is None for v in (self.min, self.max, self.min_quantile, self.max_quantile)):
            raise ValueError("give at least one of min, max, min_quantile, max_quantile")
        for low, high in ((self.min, self.max), (self.min_quantile, self.max_quantile)):
            if low is not None and high is not None and low > high:
                raise ValueError(f"the least, {low:g}, is more than the most, {high:g}: no pair would be left")
        return self


class Mixture(Section):
    """Shares of sources and categories among the kept pairs. What is missing is reported, never padded."""

    sources: dict[str, float] = Field(
        default={}, description="source → weight; a source that is not named is left out, 'none' is pairs without"
    )
    categories: dict[str, float] = Field(default={}, description="category → weight; likewise")
    rows: int | None = Field(
        default=None, ge=1, description="pairs in all; by default the most for which no share falls short"
    )

    @model_validator(mode="after")
    def _weighted(self) -> Mixture:
        if not self.sources and not self.categories:
            raise ValueError("give weights of sources or of categories")
        for kind, weights in (("sources", self.sources), ("categories", self.categories)):
            for name, weight in weights.items():
                if not 0 <= weight < float("inf"):
                    raise ValueError(f"{kind}: the weight of {name!r} is {weight}, expected at least 0")
            if weights and not sum(weights.values()) > 0:
                raise ValueError(f"{kind}: all weights are 0, so that nothing would be left")
        return self


class CurriculumOrder(Section):
    """In which order the kept pairs are published: adds curriculum_order, curriculum_tier and curriculum_score."""

    by: Literal[
        "margin", "strength_mean", "agreement", "label_probability", "difficulty", "ches", "ln_ches", "cosine",
        "edit_distance",
    ] = Field(description="what makes a pair easy; margin is the one that the pair was built by")  # fmt: skip
    hardest_first: bool = False
    tiers: int = Field(default=3, ge=1, description="three stages in Curry-DPO (Pattnaik et al. 2024)")
    within_prompt: bool = Field(
        default=False, description="tier 0 holds each prompt's easiest pair, tier 1 its second, as in Curry-DPO"
    )


class Selection(Section):
    """Which pairs are kept. The rules apply in order; a dropped pair names the first that it broke."""

    rules: tuple[SelectionRule, ...] = ()
    max_refusal_pair_share: float = Field(
        default=1.0,
        ge=0.0,
        le=1.0,
        description="of the kept pairs, so many may have two refusals, even in part: the lowest ln_ches first",
    )
    drop_refusal_pairs: bool = Field(
        default=False,
        description="drop pairs of two full refusals: displacement does its harm there (Razin et al. 2025)",
    )
    max_per_prompt: int | None = Field(
        default=None, ge=1, description="pairs of one prompt, after the rules: the strongest stay"
    )
    mixture: Mixture | None = None
    curriculum: CurriculumOrder | None = None

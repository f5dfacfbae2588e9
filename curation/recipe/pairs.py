"""Recipe sections ``pairs`` and ``selection``: which pairs are built, and which are kept."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from curation.errors import closest
from curation.recipe.base import Section

__all__ = ["Pairs", "Selection", "SelectionRule"]


class Pairs(Section):
    """Which pairs are built from the candidates."""

    strategies: tuple[Literal["provided", "best_vs_worst", "best_vs_random", "all", "ches_aware"], ...] = Field(
        default=("provided",),
        min_length=1,
        description="ches_aware: each prompt's strongest pair whose length-normalised CHES is low enough",
    )
    score: Literal["rewards", "provided"] = Field(
        default="rewards", description="what ranks the candidates: the reward models, or the source's scores"
    )
    min_margin: float = Field(default=0.0, ge=0.0, description="a pair's scores must differ by more than this")
    ches_quantile: float = Field(
        default=0.15,
        gt=0.0,
        le=1.0,
        description="for ches_aware: of the strongest pairs' scores; 0.05 to 0.15 in Razin et al. 2025, section 6",
    )


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
        if score not in known:
            raise ValueError(f"no such score; there are {', '.join(known)}{closest(score, known)}")
        return score

    @model_validator(mode="after")
    def _bounded(self) -> SelectionRule:
        if all(v is None for v in (self.min, self.max, self.min_quantile, self.max_quantile)):
            raise ValueError("give at least one of min, max, min_quantile, max_quantile")
        return self


class Selection(Section):
    """Which pairs are kept. The rules apply in order; a dropped pair names the first that it broke."""

    rules: tuple[SelectionRule, ...] = ()
    drop_refusal_pairs: bool = Field(
        default=False,
        description="drop pairs in which both answers refuse: displacement does its harm there (Razin et al. 2025)",
    )

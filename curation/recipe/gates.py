"""Recipe section ``gates``: what must hold before anything is published."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from curation.recipe.base import Section

__all__ = ["GateName", "Gates"]


GateName = Literal[
    "min_rows",
    "max_tie_rate",
    "max_duplicate_rate",
    "max_leaking_prompts",
    "min_chosen_refusal_rate",
    "max_chosen_refusal_rate",
    "max_reward_length_correlation",
    "max_empty_categories",
]


class Gates(Section):
    """What must hold before anything is published. The defaults are ours."""

    min_rows: int = Field(default=1, ge=0, description="rows in a dataset")
    max_tie_rate: float = Field(default=0.05, ge=0.0, le=1.0, description="share of pairs with margin 0")
    max_duplicate_rate: float = Field(
        default=0.0, ge=0.0, le=1.0, description="share of rows that repeat an earlier one"
    )
    max_leaking_prompts: int = Field(
        default=0, ge=0, description="prompts, or their families, that stand in two splits"
    )
    min_chosen_refusal_rate: float = Field(default=0.0, ge=0.0, le=1.0)
    max_chosen_refusal_rate: float = Field(
        default=1.0, ge=0.0, le=1.0, description="share of the chosen answers that refuse"
    )
    max_reward_length_correlation: float = Field(
        default=1.0,
        ge=0.0,
        le=1.0,
        description="absolute Spearman correlation of margin and length difference",
    )
    max_empty_categories: int = Field(
        default=0, ge=0, description="categories of the prompts without a published row"
    )
    warn_only: tuple[GateName, ...] = Field(
        default=("max_empty_categories",), description="gates that warn and do not block"
    )

    @property
    def thresholds(self) -> dict[str, float]:
        """Gate to threshold."""
        return {name: float(value) for name, value in self.model_dump(exclude={"warn_only"}).items()}

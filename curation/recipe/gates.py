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
    "max_truncated_chosen_rate",
    "max_empty_categories",
    "max_contaminated_prompts",
    "max_size_change",
    "max_score_drift",
    "max_refusal_rate_change",
    "max_source_shift",
    "max_category_shift",
    "max_language_shift",
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
    min_chosen_refusal_rate: float = Field(
        default=0.0, ge=0.0, le=1.0, description="share of the chosen answers that refuse"
    )
    max_chosen_refusal_rate: float = Field(
        default=1.0, ge=0.0, le=1.0, description="share of the chosen answers that refuse"
    )
    max_reward_length_correlation: float = Field(
        default=1.0,
        ge=0.0,
        le=1.0,
        description="absolute Spearman correlation of margin and length difference",
    )
    max_truncated_chosen_rate: float = Field(
        default=0.0,
        ge=0.0,
        le=1.0,
        description="share of the generated chosen answers that were cut off; `answers: {reject: [truncated]}` "
        "leaves out all such answers",
    )
    max_empty_categories: int = Field(
        default=0, ge=0, description="categories of the prompts without a published row"
    )
    max_contaminated_prompts: int = Field(
        default=0, ge=0, description="published prompts that stand in an evaluation set of hygiene.contamination"
    )
    max_size_change: float = Field(
        default=0.5,
        ge=0.0,
        description="change of the number of rows, as a share of the version that was published last",
    )
    max_score_drift: float = Field(
        default=0.25,
        ge=0.0,
        description="population stability index of the score that moved most; 0.25 is usual (Siddiqi 2006)",
    )
    max_refusal_rate_change: float = Field(
        default=0.1,
        ge=0.0,
        le=1.0,
        description="change of the share of chosen answers that refuse, against the version before",
    )
    max_source_shift: float = Field(
        default=0.3,
        ge=0.0,
        le=1.0,
        description="share of the rows whose source would have to change to be as in the version before",
    )
    max_category_shift: float = Field(
        default=0.3,
        ge=0.0,
        le=1.0,
        description="share of the rows whose category would have to change to be as in the version before",
    )
    max_language_shift: float = Field(
        default=0.1,
        ge=0.0,
        le=1.0,
        description="share of the rows whose language would have to change to be as in the version before; it is "
        "guessed from script and function words",
    )
    warn_only: tuple[GateName, ...] = Field(
        default=(
            "max_truncated_chosen_rate", "max_empty_categories", "max_size_change", "max_score_drift",
            "max_refusal_rate_change", "max_source_shift", "max_category_shift", "max_language_shift",
        ),
        description="gates that warn and do not block; an empty list makes all of them block",
    )  # fmt: skip

    @property
    def thresholds(self) -> dict[str, float]:
        """Gate to threshold."""
        return {name: float(value) for name, value in self.model_dump(exclude={"warn_only"}).items()}

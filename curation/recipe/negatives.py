"""Recipe section ``negatives``: which hard negatives are mined."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from curation.recipe.base import Section

__all__ = ["Negatives"]


class Negatives(Section):
    """Hard negatives: near the anchor, and not a positive."""

    num_negatives: int = Field(default=4, ge=1, le=256)
    corpus: str | None = Field(default=None, description="a file with a text column; all answers by default")
    range_min: int = Field(default=0, ge=0, description="skip so many of the nearest that survive the filters")
    range_max: int | None = Field(default=100, ge=1, description="look no further than so many neighbours")
    max_score: float | None = None
    min_score: float | None = None
    absolute_margin: float | None = Field(default=None, ge=0.0)
    relative_margin: float | None = Field(
        default=0.05, ge=0.0, description="NV-Retriever's TopK-PercPos 95 % (de Souza Moreira et al. 2024)"
    )
    sampling: Literal["top", "random"] = "top"

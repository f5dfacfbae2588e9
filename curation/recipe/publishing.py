"""Recipe sections ``splits`` and ``publish``: what is published, and how it is divided."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field, model_validator

from curation.recipe.base import Section

__all__ = ["DATASETS", "Publish", "Splits"]


DATASETS: Final = ("preference", "preference_unpaired", "refusal", "retrieval")


class Splits(Section):
    """Shares of the prompts; a prompt is on one side only."""

    train: float = Field(default=0.9, ge=0.0, le=1.0)
    validation: float = Field(default=0.0, ge=0.0, le=1.0)
    test: float = Field(default=0.1, ge=0.0, le=1.0)

    @model_validator(mode="after")
    def _whole(self) -> Splits:
        total = self.train + self.validation + self.test
        if abs(total - 1.0) > 1e-9:
            raise ValueError(f"train, validation and test must add up to 1, they give {total:g}")
        return self


class Publish(Section):
    """What is published."""

    datasets: tuple[Literal["preference", "preference_unpaired", "refusal", "retrieval"], ...] = DATASETS[:1]
    license: str = Field(default="other", description="the licence in the cards, as the Hub names it")
    languages: tuple[str, ...] = Field(default=(), description="language codes for the cards: en, de, …")
    rows_per_shard: int = Field(default=100_000, ge=1)

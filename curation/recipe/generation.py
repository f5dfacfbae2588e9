"""Recipe section ``generation``: what is sampled."""

from __future__ import annotations

from pydantic import Field

from curation.recipe.base import Section

__all__ = ["Generation"]


class Generation(Section):
    """Answers to sample from one model."""

    model: str = Field(default="embedded", description="a folder, a Hub id, or embedded")
    samples: int = Field(default=2, ge=1, le=1024, description="answers for each prompt")
    temperature: float = Field(default=0.8, ge=0.0, le=5.0)
    top_p: float = Field(default=0.95, gt=0.0, le=1.0)
    max_new_tokens: int = Field(default=128, ge=1)
    system_prompt: str | None = None
    batch_rows: int = Field(default=16, ge=1)

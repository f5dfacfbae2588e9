"""What every section of a recipe is."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

__all__ = ["Section"]


class Section(BaseModel):
    """Keys that are not known are errors, and nothing changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)

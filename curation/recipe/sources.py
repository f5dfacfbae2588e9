"""Recipe section ``sources``: what is read."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from curation.recipe.base import Section

__all__ = ["Source"]


class Source(Section):
    """A file or a Hub dataset to read rows from."""

    path: str = Field(description="a file (relative to the recipe) or hf://owner/name[/config][:split]")
    name: str = Field(default="", description="how rows of it are called; the file's stem by default")
    format: Literal["auto", "pair", "unpaired", "responses", "response", "messages", "prompt"] = "auto"
    columns: dict[str, str] = Field(
        default_factory=dict,
        description="our column name → the column's name in the file: prompt, chosen, rejected, response, "
        "responses, scores, label, messages, category, annotator, votes, reference, positives, "
        "expected_behaviour, system, score, score_chosen, score_rejected",
    )
    category: str | None = Field(default=None, description="for rows without one")
    expected_behaviour: Literal["comply", "refuse"] | None = Field(default=None, description="for rows without one")
    license: str | None = Field(default=None, description="the licence of the source, for the card")

    @model_validator(mode="after")
    def _named(self) -> Source:
        if not self.name:
            stem = self.path.rstrip("/").rsplit("/", 1)[-1].split(":", 1)[0].split(".", 1)[0]
            object.__setattr__(self, "name", stem)
        return self

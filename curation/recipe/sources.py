"""Recipe section ``sources``: what is read."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from curation.prompts.verdicts import verdict_key, verdicts_of
from curation.recipe.base import Section

__all__ = ["Better", "Source"]


class Better(Section):
    """Two columns of answers, and a third that says which of them is better (SHP, PKU-SafeRLHF, an arena)."""

    column: str = Field(description="the column that says which answer is better")
    values: dict[str, str] = Field(
        description="each value of it → the column of the answer that it calls better, or tie: "
        "{1: human_ref_A, 0: human_ref_B}; a row with another value is a reject, and so is a tie"
    )
    only_if: dict[str, str] = Field(
        default_factory=dict,
        description="the column of an answer → a column that must be true for it to be chosen: {response_0: "
        "is_response_0_safe}; else the row is a reject",
    )

    @field_validator("values", mode="before")
    @classmethod
    def _keys_as_text(cls, given: Any) -> Any:
        """A file's 1 and 1.0 are one value, and YAML's true is a boolean."""
        if not isinstance(given, dict):
            return given
        keys = [verdict_key(key) for key in given]
        for key in keys:
            if keys.count(key) > 1:
                raise ValueError(f"the value {key} stands twice")
        return dict(zip(keys, given.values(), strict=True))

    @model_validator(mode="after")
    def _two_answers(self) -> Better:
        verdicts_of(**self.model_dump())
        return self


class Source(Section):
    """A file or a Hub dataset to read rows from."""

    path: str = Field(description="a file (relative to the recipe) or hf://owner/name[/config][:split]")
    name: str = Field(default="", description="how rows of it are called; the file's stem by default")
    format: Literal["auto", "pair", "unpaired", "responses", "response", "messages", "prompt", "tree"] = Field(
        default="auto", description="tree: a message a row, with its parent's identifier (OpenAssistant)"
    )
    columns: dict[str, str | tuple[str, ...]] = Field(
        default_factory=dict,
        description="our column name → the column's name in the file: prompt, chosen, rejected, response, "
        "responses, scores, label, messages, category, annotator, votes, "
        "expected_behaviour, system, score, score_chosen, score_rejected, generator (who wrote an answer; a list "
        "of several), generator_chosen, generator_rejected; of a tree message_id, parent_id, "
        "message_text, message_role, score. outer.inner for a field inside one; a list of columns for prompt, "
        "responses and scores",
    )
    better: Better | None = None
    lower_is_better: bool | None = Field(
        default=None,
        description="whether the lowest score is the best, as of ranks and losses; needed for a column called rank",
    )
    score_scale: str | None = Field(
        default=None,
        min_length=1,
        description="a name for what the scores mean: all scores of sources with one name are compared; else those "
        "of one source, and where its rows hold several answers those of one row",
    )
    category: str | None = Field(default=None, description="for rows without one")
    expected_behaviour: Literal["comply", "refuse"] | None = Field(default=None, description="for rows without one")
    generator: str | None = Field(
        default=None, min_length=1, description="who wrote answers of which no row says it"
    )
    license: str | None = Field(default=None, description="the licence of the source, for the card")

    @field_validator("columns", mode="before")
    @classmethod
    def _names(cls, given: Any) -> Any:
        """One name, or a list of them; said here, for of a choice of two types the words would be of both."""
        for field, column in given.items() if isinstance(given, dict) else ():
            names = column if isinstance(column, list | tuple) and column else [column]
            if not all(isinstance(name, str) and name for name in names):
                raise ValueError(f"{field}: expected the name of a column, or a list of names")
        return given

    @model_validator(mode="after")
    def _named(self) -> Source:
        if not self.name:
            stem = self.path.rstrip("/").rsplit("/", 1)[-1].split(":", 1)[0].split(".", 1)[0]
            object.__setattr__(self, "name", stem)
        return self

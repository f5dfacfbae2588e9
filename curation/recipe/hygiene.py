"""Recipe section ``hygiene``: which duplicates go, and which evaluation sets no row may hold."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from curation.recipe.base import Section

__all__ = ["AnswerDuplicates", "Contamination", "Duplicates", "Hygiene", "PairDuplicates", "PromptSelection"]


class Duplicates(Section):
    """Prompts that say the same. Equal ones are one prompt without this; here go those that nearly are."""

    method: Literal["exact", "minhash", "semantic"] = Field(
        default="minhash",
        description="minhash: Jaccard index of word n-grams; semantic: cosine of embeddings; "
        "exact: equal once normalised, of use with against",
    )
    threshold: float | None = Field(
        default=None, gt=0.0, le=1.0, description="least similarity; 0.8 for minhash, 0.9 for semantic (ours)"
    )
    ngram: int = Field(default=3, ge=1, description="for minhash: words of an n-gram")
    look_alikes: bool = Field(
        default=True, description="for semantic: texts whose numbers, signs or negations differ are no duplicates"
    )
    keep: Literal["first", "longest"] = Field(
        default="first", description="which one of a cluster stays: the first in the sources, or the longest"
    )
    against: tuple[str, ...] = Field(
        default=(),
        description="files, folders or hf:// addresses (earlier versions, other datasets): what duplicates one of "
        "their rows goes",
    )

    @model_validator(mode="after")
    def _exact_has_no_threshold(self) -> Duplicates:
        if self.method == "exact" and self.threshold not in {None, 1.0}:
            raise ValueError("method exact takes no threshold: use minhash or semantic with one")
        return self


class _Repeats(Section):
    """What the sections of answers and of pairs have in common."""

    method: Literal["minhash", "semantic"] = Field(default="minhash", description="as for prompts")
    threshold: float | None = Field(default=None, gt=0.0, le=1.0, description="as for prompts")
    ngram: int = Field(default=3, ge=1, description="for minhash: words of an n-gram")
    look_alikes: bool = Field(default=True, description="as for prompts")


class AnswerDuplicates(_Repeats):
    """Answers to one prompt that say the same. Equal ones are one answer without this."""

    keep: Literal["first", "longest", "best"] = Field(
        default="first",
        description="best: the highest score of the sources (of different scales, the one that is higher among all "
        "of its scale); answers without one come last",
    )
    scope: Literal["prompt", "all"] = Field(
        default="prompt", description="compare the answers to one prompt, or all answers with each other"
    )


class PairDuplicates(_Repeats):
    """Selected pairs whose prompt, chosen and rejected answer together say the same."""

    keep: Literal["first", "longest", "best"] = Field(
        default="first", description="best: the pair that the reward models prefer most (strength_mean)"
    )


class Contamination(Section):
    """Evaluation sets: rows that share an n-gram with one of their rows, or lie next to one, are dropped."""

    against: tuple[str, ...] = Field(
        min_length=1, description="files, folders of files, or hf://owner/name[/config][:split]"
    )
    column: str = Field(
        default="prompt",
        description="where the text of an evaluation row is; else question, instruction, problem, query, text, …",
    )
    check: tuple[Literal["prompt", "responses"], ...] = Field(
        default=("prompt",), min_length=1, description="which texts of a row are compared"
    )
    ngram: int | None = Field(
        default=None,
        ge=1,
        description="words of an n-gram; by default 8 to 13, by the length of evaluation rows (Brown et al. 2020)",
    )
    min_overlap: float = Field(
        default=0.0, ge=0.0, le=1.0, description="least share of an evaluation row's n-grams; 0: one is enough"
    )
    max_rows: int = Field(
        default=10, ge=1, description="n-grams of more evaluation rows than this are templates and match nothing"
    )
    similarity: float | None = Field(
        default=None, gt=0.0, le=1.0, description="drop rows whose cosine with an evaluation row reaches this, too"
    )


class PromptSelection(Section):
    """So many of the prompts, chosen for diversity or for likeness to a target; the others are not_selected."""

    method: Literal["k_centre", "facility_location", "dsir", "transport", "lengths"] = Field(
        description="k_centre: no prompt far from a chosen one; facility_location: chosen ones stand for all; "
        "dsir: words like the target's (Xie et al. 2023); transport: embeddings like the target's, whitened (Feng "
        "et al. 2025, TAROT, solved greedily); lengths: distributed like the target's"
    )
    count: int | None = Field(default=None, ge=1, description="how many prompts stay; give this or share")
    share: float | None = Field(default=None, gt=0.0, le=1.0, description="which share of the prompts stays")
    target: str | None = Field(
        default=None,
        description="for dsir, transport and lengths: a file, folder or hf:// address of texts to be like",
    )

    @model_validator(mode="after")
    def _consistent(self) -> PromptSelection:
        if (self.count is None) == (self.share is None):
            raise ValueError("give either count or share")
        aims = self.method in {"dsir", "transport", "lengths"}
        if aims and self.target is None:
            raise ValueError(f"method {self.method} needs a target: a file of texts to be like")
        if self.target is not None and not aims:
            raise ValueError(f"method {self.method} takes no target: use dsir, transport or lengths with one")
        return self

    def wanted(self, rows: int) -> int:
        """How many of so many rows are asked for."""
        return self.count if self.count is not None else max(1, round((self.share or 1.0) * rows))


class Hygiene(Section):
    """Duplicates and contamination. Equal prompts, answers and pairs are always merged; the rest is asked for."""

    contamination: Contamination | None = None
    prompts: tuple[Duplicates, ...] = Field(default=(), description="applied in order")
    answers: tuple[AnswerDuplicates, ...] = Field(default=(), description="applied in order")
    pairs: tuple[PairDuplicates, ...] = Field(default=(), description="applied in order, to the selected pairs")
    select: PromptSelection | None = Field(default=None, description="applied last, to the prompts that are left")

    @property
    def looks_at_sources(self) -> bool:
        """Whether rows of the sources may go."""
        return self.contamination is not None or bool(self.prompts) or self.select is not None

    @property
    def needs_encoder(self) -> bool:
        """Whether anything is compared by its embedding."""
        methods = {step.method for steps in (self.prompts, self.answers, self.pairs) for step in steps}
        if self.select is not None and self.select.method in {"k_centre", "facility_location", "transport"}:
            return True
        return "semantic" in methods or (
            self.contamination is not None and self.contamination.similarity is not None
        )

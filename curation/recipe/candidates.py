"""Recipe sections ``answers``, ``constructed`` and ``mutations``: unfit answers, made answers, made prompts."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from curation.recipe.base import Section
from curation.recipe.generation import Generation

__all__ = ["Answers", "Constructed", "Mutations", "OffTopic", "Refinement", "SubtleErrors", "WordErrors"]


def _checked_rewriter(model: Generation) -> Generation:
    """What a rewriting model does not heed is an error, and not passed over."""
    given = {
        "system_prompts": bool(model.system_prompts),
        "principles": bool(model.principles),
        "only_as_rejected": model.only_as_rejected,
    }
    for key in (key for key, is_given in given.items() if is_given):
        raise ValueError(f"{key} is not for a model that rewrites: each text is asked for once; leave it out")
    return model


_Rewriter = Annotated[Generation, AfterValidator(_checked_rewriter)]
"""A chat model that rewrites texts: one request for each, so that ``samples`` is not read."""


class Answers(Section):
    """What a generated answer must not be. Empty answers and unfinished reasoning are always rejects."""

    reject: tuple[Literal["truncated", "template_leakage", "repetition_loop"], ...] = Field(
        default=("template_leakage", "repetition_loop"),
        description="truncated: cut off at the most tokens; without it such answers keep finish_reason length",
    )
    reasoning_markers: tuple[tuple[str, str], ...] | None = Field(
        default=None,
        description="pairs of an opening and a closing marker; what stands between them before an answer goes to "
        "the column reasoning; by default those of known models (docs/candidates.md)",
    )
    loop_characters: int = Field(default=200, ge=20, description="least length of a repetition loop (ours)")
    loop_repeats: int = Field(default=6, ge=3, description="least number of copies in a row (ours)")

    @model_validator(mode="after")
    def _markers_are_there(self) -> Answers:
        if any(
            not opening or not closing or opening == closing for opening, closing in self.reasoning_markers or ()
        ):
            raise ValueError("reasoning_markers: expected pairs of two different texts, none of them empty")
        return self


class SubtleErrors(Section):
    """Right answers with one number or symbol made wrong (RISE, Xu et al. 2024), by rules."""

    kinds: tuple[
        Literal["value", "substitution", "dropped_term", "operator", "swapped_operands", "swapped_steps"], ...
    ] = Field(
        default=("value", "substitution", "dropped_term", "operator", "swapped_operands", "swapped_steps"),
        min_length=1,
    )
    per_answer: int = Field(default=1, ge=1, le=6, description="wrong versions of one answer, each of another kind")


class WordErrors(Section):
    """Right answers with one thing made wrong by a chat model: names, facts, conditions."""

    model: _Rewriter = Field(description="the chat model; samples is not read")
    min_similarity: float = Field(
        default=0.6, ge=0.0, le=1.0, description="share of the answer that stays, by edit distance (ours)"
    )


class Refinement(Section):
    """Failing answers corrected by a chat model with as few changes as it can (SPaR, Cheng et al. 2024)."""

    model: _Rewriter = Field(description="the chat model; samples is not read")
    min_similarity: float = Field(
        default=0.3, ge=0.0, le=1.0, description="share of the answer that stays, by edit distance (ours)"
    )


class OffTopic(Section):
    """Answers to other prompts, as rejected ones."""

    max_similarity: float = Field(
        default=0.2, ge=0.0, lt=1.0, description="Jaccard index of the two prompts' longer words, at most (ours)"
    )
    min_words: int = Field(default=8, ge=1, description="words of a borrowed answer, at least (ours)")


class Constructed(Section):
    """Answers made on purpose. Those made to be worse are never chosen by a score."""

    right: Literal["sources", "verifier"] = Field(
        default="sources",
        description="which answers are right: those that the sources chose, labelled good or scored best; or any "
        "that the verifier passes",
    )
    verifier: str | None = Field(
        default=None,
        description="exact_match (against the sources' right answers) or python:package.module:function; a refined "
        "answer must pass it, too",
    )
    subtle_errors: SubtleErrors | None = None
    word_errors: WordErrors | None = None
    refinement: Refinement | None = None
    off_topic: OffTopic | None = None
    template_refusals: bool = Field(
        default=False, description="a template refusal for each prompt of which a refusal is expected"
    )
    refusal_templates: tuple[str, ...] = Field(default=(), description="by default ten of ours")
    forget_templates: tuple[str, ...] = Field(
        default=(), description="for the prompts of pairs.forget_sources; by default ten of ours"
    )

    @model_validator(mode="after")
    def _has_a_verifier(self) -> Constructed:
        if self.right == "verifier" and self.verifier is None:
            raise ValueError("right is verifier, which needs the key verifier")
        return self


class Mutations(Section):
    """Prompts made from the sources' prompts (SORRY-Bench, Xie et al. 2024; Andriushchenko & Flammarion 2024).

    A mutated prompt keeps the category and the expected behaviour of its parent, is in its split, and has none of
    its answers.
    """

    kinds: tuple[
        Literal[
            "past_tense", "future_tense", "ascii", "atbash", "caesar", "morse", "misspellings", "question",
            "role_play", "slang", "uncommon_dialects", "authority_endorsement", "evidence_based_persuasion",
            "expert_endorsement", "logical_appeal", "misrepresentation", "technical_terms", "translate_zh_cn",
            "translate_fr", "translate_ml", "translate_mr", "translate_ta",
        ],
        ...,
    ] = Field(min_length=1, description="from authority_endorsement on they are made by the model")  # fmt: skip
    model: _Rewriter | None = Field(default=None, description="the chat model that rewrites; samples is not read")
    sources: tuple[str, ...] = Field(default=(), description="whose prompts are mutated; all by default")
    per_prompt: int | None = Field(
        default=None, ge=1, description="so many of the kinds, drawn by the seed, for each prompt; all by default"
    )

    @model_validator(mode="after")
    def _has_a_model(self) -> Mutations:
        from curation.prompts.mutations import MODEL_MUTATIONS

        needing = [kind for kind in self.kinds if kind in MODEL_MUTATIONS]
        if needing and self.model is None:
            raise ValueError(f"kinds has {needing[0]!r}, which needs the key model")
        return self

"""Recipe section ``negatives``: which hard negatives are mined."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from curation.recipe.base import Section
from curation.recipe.models import Encoder, Reward

__all__ = ["Negatives", "Rescorer"]


class Rescorer(Reward):
    """A slower model that reads anchor and document together, and removes what it puts above the positive."""

    model: str = Field(description="a folder or a Hub id; with kind reward also embedded")
    kind: Literal["cross_encoder", "reward"] = Field(
        default="cross_encoder",
        description="reward: a reward model that reads the anchor as the prompt and the document as the answer "
        "(of an ensemble, or several attributes without weights, the mean), with its options as under rewards",
    )
    margin: float = Field(
        default=0.0, ge=0.0, description="how far below the positive a document must stay, in the model's own unit"
    )
    depth: int = Field(
        default=10,
        ge=1,
        description="the nearest survivors of the other rules that it reads; those beyond go, since nobody vouches "
        "for them",
    )
    batch_rows: int = Field(default=256, ge=1, description="scores kept in one commit")

    @model_validator(mode="after")
    def _options_of_its_kind(self) -> Rescorer:
        if self.kind == "cross_encoder" and self.options:
            raise ValueError(f"{next(iter(self.options))} is an option of reward models: expected kind: reward")
        return self


class Negatives(Section):
    """Hard negatives: near the anchor, and not a positive."""

    num_negatives: int = Field(default=4, ge=1, le=256)
    corpus: str | None = Field(default=None, description="a file with a text column, searched beside all answers")
    range_min: int = Field(default=0, ge=0, description="skip so many of the nearest that survive the filters")
    range_max: int | None = Field(default=100, ge=1, description="look no further than so many neighbours")
    max_score: float | None = Field(default=None, description="the greatest cosine of anchor and negative")
    min_score: float | None = Field(default=None, description="the least cosine of anchor and negative")
    absolute_margin: float | None = Field(
        default=None, ge=0.0, description="a negative's cosine plus this may not exceed the lowest positive's"
    )
    relative_margin: float | None = Field(
        default=0.05, ge=0.0, description="NV-Retriever's TopK-PercPos 95 % (de Souza Moreira et al. 2024)"
    )
    near_positive: float | None = Field(
        default=None,
        gt=0.0,
        le=1.0,
        description="drop documents whose cosine with a positive exceeds this; about 0.95 catches near-duplicates",
    )
    guides: tuple[Encoder, ...] = Field(
        default=(),
        description="other encoders: what one puts above the positive goes (Solatorio 2024, GISTEmbed)",
    )
    guide_margin: float = Field(
        default=0.0, ge=0.0, description="how far below the positive a guide must see it, as a share of its score"
    )
    guide_votes: int = Field(default=1, ge=1, description="how many of several guides must agree")
    rescorer: Rescorer | None = None
    sampling: Literal["top", "random", "weighted", "margin_bins"] = Field(
        default="top",
        description="how survivors are drawn: the nearest; uniformly; in proportion to exp(score / temperature); "
        "balanced over ten bins of the margin (Hofstätter et al. 2021, TAS-Balanced)",
    )
    temperature: float = Field(default=0.05, gt=0.0, description="for weighted sampling, in units of cosine")
    near_prompt_answers: int = Field(
        default=0,
        ge=0,
        description="so many of the negatives are answers to prompts near this one: right topic, wrong question",
    )
    off_topic_answers: int = Field(
        default=0, ge=0, description="so many of the negatives are answers to prompts that are not near this one"
    )
    sibling_answers: int = Field(
        default=0,
        ge=0,
        description="so many of the negatives are answers to prompts of a sibling category, the nearest of them: "
        "another category under the same parent in taxonomy",
    )
    taxonomy: dict[str, str] = Field(
        default={}, description="category of prompts → its parent, for sibling_answers"
    )
    prompt_threshold: float = Field(
        default=0.85, ge=-1.0, le=1.0, description="the cosine from which two prompts are near (ours)"
    )
    index: Literal["auto", "flat", "ivf", "hnsw"] = Field(
        default="auto",
        description="flat: exact; ivf: within clusters, with measured recall, from an index that is kept in the "
        "workspace and extended; hnsw: along a graph that is made in memory for each run, with measured recall; "
        "auto: ivf where the exact search is slow",
    )
    target_recall: float = Field(
        default=0.99, gt=0.0, le=1.0, description="least recall of an ivf or hnsw search, held with 95 % confidence"
    )
    storage: Literal["float32", "float16", "int8"] = Field(
        default="float16",
        description="how vectors lie in the kept index or in the graph; what is found in int8 is scored again with "
        "float16 (kept index, on disk beside it) or float32 (graph)",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Negatives:
        if self.mined < 1:
            raise ValueError(
                f"near_prompt_answers, off_topic_answers and sibling_answers are {self.near_prompt_answers}, "
                f"{self.off_topic_answers} and {self.sibling_answers}: together they must be less than "
                f"num_negatives = {self.num_negatives}"
            )
        if self.sibling_answers and not self.taxonomy:
            raise ValueError("sibling_answers needs taxonomy: the parent of each category of prompts")
        if self.guides and self.guide_votes > len(self.guides):
            raise ValueError(f"guide_votes is {self.guide_votes}, at most {len(self.guides)}, the number of guides")
        if self.range_max is not None and self.mined > self.range_max - self.range_min:
            raise ValueError(
                f"range_max is {self.range_max} and range_min {self.range_min}: that leaves fewer candidates "
                f"than the {self.mined} negatives that are to be mined"
            )
        return self

    @property
    def mined(self) -> int:
        """How many negatives come from the corpus by similarity."""
        return self.num_negatives - self.near_prompt_answers - self.off_topic_answers - self.sibling_answers

"""The recipe as a whole, and what its sections need of each other."""

from __future__ import annotations

import os
from typing import Annotated, Final

from pydantic import Field, model_validator

from curation.errors import closest
from curation.recipe.base import Section
from curation.recipe.gates import Gates
from curation.recipe.generation import Generation
from curation.recipe.models import Encoder, Policy, RefusalDetection, Reward
from curation.recipe.negatives import Negatives
from curation.recipe.pairs import Pairs, Selection
from curation.recipe.publishing import Publish, Splits
from curation.recipe.sources import Source
from curation.text import canonical_json, content_hash

__all__ = ["Recipe"]


_NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"


class Recipe(Section):
    """The whole configuration of a run."""

    name: Annotated[str, Field(pattern=_NAME)] = "curation"
    seed: int = Field(default=0, ge=0)
    workspace: str | None = Field(
        default=None, description="a folder (relative to the recipe) or URL; --workspace overrides it"
    )
    sources: tuple[Source, ...] = Field(min_length=1)
    generation: tuple[Generation, ...] = ()
    encoder: Encoder | None = Encoder()
    rewards: tuple[Reward, ...] = (Reward(),)
    refusals: RefusalDetection | None = RefusalDetection()
    policy: Policy | None = Policy()
    pairs: Pairs = Pairs()
    selection: Selection = Selection()
    negatives: Negatives | None = None
    splits: Splits = Splits()
    gates: Gates = Gates()
    publish: Publish = Publish()

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        names = [source.name for source in self.sources]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two sources are called {name!r}: give one of them another name")
        if "retrieval" in self.publish.datasets and (self.negatives is None or self.encoder is None):
            raise ValueError("publish.datasets has 'retrieval', which needs the sections negatives and encoder")
        if "refusal" in self.publish.datasets and self.refusals is None:
            raise ValueError("publish.datasets has 'refusal', which needs the section refusals")
        if "ches_aware" in self.pairs.strategies and self.policy is None:
            raise ValueError("pairs.strategies has 'ches_aware', which needs the section policy")
        if "refusal_vs_compliance" in self.pairs.strategies and self.refusals is None:
            raise ValueError("pairs.strategies has 'refusal_vs_compliance', which needs the section refusals")
        mixed = self.selection.mixture.sources if self.selection.mixture else {}
        named = {"pairs.forget_sources": self.pairs.forget_sources, "selection.mixture.sources": tuple(mixed)}
        for key, name in ((key, name) for key, wanted in named.items() for name in wanted):
            if name not in (*names, "none"):
                found = f"{closest(name, names)}; found {', '.join(names)}"
                raise ValueError(f"{key}: there is no source {name!r}{found}")
        ranked = set(self.pairs.strategies) - {"provided", "refusal_vs_compliance", "template_vs_forget"}
        if ranked and self.pairs.score == "rewards" and not self.rewards:
            raise ValueError(f"pairs.strategies has {sorted(ranked)[0]!r}, which needs the section rewards")
        return self

    @property
    def builds_pairs(self) -> bool:
        """Whether any dataset is made of pairs."""
        return not {"preference", "preference_unpaired"}.isdisjoint(self.publish.datasets)

    @property
    def content_hash(self) -> str:
        """A hash of everything in the recipe but the place of its workspace."""
        return content_hash(canonical_json(self.model_dump(mode="json", exclude={"workspace"})))

    @classmethod
    def from_yaml(cls, path: str | os.PathLike[str]) -> Recipe:
        """Read and validate a recipe; see :func:`curation.recipe.load_recipe`."""
        from curation.recipe.loading import load_recipe

        return load_recipe(path)

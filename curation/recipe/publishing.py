"""Recipe sections ``splits`` and ``publish``: what is published, and how it is divided."""

from __future__ import annotations

from typing import Final, Literal, get_args

from pydantic import Field, model_validator

from curation.recipe.base import Section

__all__ = ["DATASETS", "MADE_FROM", "Goals", "Hub", "Publish", "Splits"]


DatasetName = Literal[
    "preference", "preference_unpaired", "reward", "reward_augmented", "sft", "refusal", "retrieval",
    "retrieval_triplets",
]  # fmt: skip
DATASETS: Final[tuple[DatasetName, ...]] = get_args(DatasetName)
MADE_FROM: Final[dict[str, str]] = {
    "reward": "preference",
    "sft": "preference_unpaired",
    "retrieval_triplets": "retrieval",
}
"""Datasets without a table of their own, to the table that they are another form of."""


class Splits(Section):
    """Shares of the prompts. What hangs together is on one side, and stays there from run to run."""

    train: float = Field(default=0.9, ge=0.0, le=1.0)
    validation: float = Field(default=0.0, ge=0.0, le=1.0)
    test: float = Field(default=0.1, ge=0.0, le=1.0)
    near_duplicates: float | None = Field(
        default=0.8,
        gt=0.0,
        le=1.0,
        description="prompts whose word 3-grams have at least this Jaccard index are on one side (ours); "
        "none: only families are",
    )
    stratify: Literal["category"] | None = Field(
        default="category", description="meet the shares within each category, as nearly as whole groups allow"
    )

    @model_validator(mode="after")
    def _whole(self) -> Splits:
        total = self.train + self.validation + self.test
        if abs(total - 1.0) > 1e-9:
            raise ValueError(f"train, validation and test must add up to 1, they give {total:g}")
        return self


class Hub(Section):
    """Where ``curation run`` pushes datasets to when it is done; nowhere unless ``repos`` says so."""

    repos: dict[DatasetName, str] = Field(
        default_factory=dict,
        description="dataset → a dataset repository (`owner/name`) or a folder's URL (`s3://…`, `file://…`)",
    )
    private: bool = Field(default=True, description="for repositories that it creates; a public one is refused")
    pull_request: bool = Field(default=False, description="open a pull request instead of writing to main")


class Goals(Section):
    """The dataset ``reward_augmented``: each pair under the goal of either answer (Zhang et al. 2024)."""

    score: Literal["rewards", "provided"] = Field(
        default="rewards", description="what an answer is worth: the reward models' mean, or the source's own score"
    )
    scale: tuple[float, float] | None = Field(
        default=(1.0, 10.0),
        description="each model's rewards are mapped to it in a straight line, from their 1 % to their 99 % "
        "quantile; none: as they are",
    )
    instruction: str = Field(
        default="Answer so that a reader would rate the answer {goal} on a scale from 1 (worst) to 10 (best).",
        description="put into the system message, after the prompt's own where there is one; holds `{goal}`",
    )

    @model_validator(mode="after")
    def _usable(self) -> Goals:
        if "{goal}" not in self.instruction:
            raise ValueError("instruction does not say {goal}: a pair's two rows would contradict each other")
        if self.scale is not None and not self.scale[0] < self.scale[1] < float("inf"):
            raise ValueError(f"scale is {list(self.scale)}, expected a lowest and a higher number")
        return self


class Publish(Section):
    """What is published."""

    datasets: tuple[DatasetName, ...] = DATASETS[:1]
    license: str = Field(default="other", description="the licence in the cards, as the Hub names it")
    languages: tuple[str, ...] = Field(default=(), description="language codes for the cards: en, de, …")
    rows_per_shard: int = Field(default=100_000, ge=1)
    card_template: str | None = Field(
        default=None, description="a Jinja file for the cards, in place of ours (relative to the recipe)"
    )
    reference_logps: bool = Field(
        default=True,
        description="give the policy's log-probabilities as ref_chosen_logps and ref_rejected_logps, which "
        "TRL 0.12 to 0.28 takes for the reference model's; false: as chosen_logp and rejected_logp, for no trainer",
    )
    goals: Goals = Goals()
    hub: Hub = Hub()

    @model_validator(mode="after")
    def _pushed_are_published(self) -> Publish:
        for name in self.hub.repos:
            if name not in self.datasets:
                raise ValueError(f"publish.hub.repos has {name!r}, which is not among publish.datasets")
        return self

    @property
    def tables(self) -> tuple[str, ...]:
        """The tables that the datasets are made from, each once."""
        return tuple(dict.fromkeys(MADE_FROM.get(name, name) for name in self.datasets))

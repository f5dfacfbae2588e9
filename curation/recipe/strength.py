"""Recipe sections ``strength`` and ``label_noise``: how labels are weighed, and what is done with doubtful ones.

Nothing is flipped, dropped or softened unless the recipe says so.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from curation.recipe.base import Section

__all__ = ["BandActions", "LabelNoise", "NoiseActions", "RewardTraining", "Strength"]

Action = Literal["drop", "flip", "soft_label", "margin", "weight", "uncertainty_weight"]


class BandActions(Section):
    """What is done with the pairs of each strength band. The default is to keep them as they are."""

    likely_flipped: tuple[Action, ...] = Field(
        default=(), description="Wang et al. 2024: the lowest 10 to 20 % by mean margin; flip or drop them"
    )
    ambiguous: tuple[Action, ...] = Field(
        default=(), description="Wang et al. 2024: the next 20 %, which taught nothing; drop or soft_label"
    )
    normal: tuple[Action, ...] = ()
    very_strong: tuple[Action, ...] = Field(
        default=(), description="Wang et al. 2024: alone they overfit; soft_label and margin together help"
    )


class Strength(Section):
    """How reward margins become strength, and what is done with the pairs of each band.

    drop: a reject. flip: chosen and rejected change places, and `flipped` says so. soft_label: the column
    `label_smoothing`. margin: the column `margin`, 0 elsewhere. weight: the column `weight`, 1 elsewhere.
    uncertainty_weight: the same column, by how far the models agree (both: the product).
    """

    scaling: Literal["robust", "none"] = Field(
        default="robust", description="robust: each model's margins over 1.4826 × median |margin|"
    )
    length_control: bool = Field(
        default=False,
        description="take out of each model's margins what follows the log length ratio (Dubois et al. 2024)",
    )
    bands: Literal["quantile", "probability"] = Field(default="quantile", description="what the bands are cut by")
    thresholds: tuple[float, float, float] | None = Field(
        default=None, description="three cuts; default 0.2, 0.4, 0.9 by quantile, 0.35, 0.6, 0.95 by probability"
    )
    labelled: str | None = Field(
        default=None,
        description="a file (relative to the recipe) with pair_id and label_right (Boolean) that calibrates "
        "label_probability: 20 rows or more, of both kinds",
    )
    actions: BandActions = BandActions()
    cycles: Literal["keep", "drop"] = Field(
        default="keep", description="pairs of one prompt whose preferences go round in a circle"
    )
    match_lengths: bool = Field(
        default=False,
        description="drop pairs until chosen is longer as often as it is shorter, and by as much, among those "
        "that no other action drops, and as flips leave them",
    )

    @field_validator("thresholds")
    @classmethod
    def _increasing(cls, cuts: tuple[float, float, float] | None) -> tuple[float, float, float] | None:
        if cuts is not None and not 0 <= cuts[0] <= cuts[1] <= cuts[2] <= 1:
            raise ValueError(f"expected three numbers that do not decrease, from 0 to 1; found {list(cuts)}")
        return cuts


class NoiseActions(Section):
    """What is done with the pairs that label noise speaks against. The default is to keep them as they are."""

    drop: tuple[Action, ...] = Field(default=(), description="pairs whose suggested_action is drop")
    flip: tuple[Action, ...] = Field(default=(), description="pairs whose suggested_action is flip")


class LabelNoise(Section):
    """The out-of-fold probability that each label is right, of a model fitted to the other pairs."""

    folds: int = Field(default=5, ge=2, description="fitted without the pairs of a prompt, so many times")
    rewards: bool = Field(default=True, description="the recipe's reward models are witnesses too")
    vote_method: Literal["majority", "dawid_skene", "glad", "mace", "noisy_bradley_terry"] = Field(
        default="dawid_skene",
        description="how votes are joined: of people, where a source has them (columns annotator, votes), and of "
        "reward models",
    )
    language_model: str | None = Field(
        default=None,
        description="a causal language model (MODEL) that reads each pair's two answers with the prompt, and whose "
        "states are a witness more; all pairs are read again when one changes",
    )
    flip_below: float = Field(default=0.2, ge=0.0, le=1.0, description="suggested_action is flip below this")
    drop_below: float = Field(default=0.5, ge=0.0, le=1.0, description="suggested_action is drop below this")
    actions: NoiseActions = NoiseActions()

    @model_validator(mode="after")
    def _ordered(self) -> LabelNoise:
        if self.flip_below > self.drop_below:
            raise ValueError(f"flip_below is {self.flip_below}, expected at most drop_below, {self.drop_below}")
        return self


class RewardTraining(Section):
    """How the reward heads of `rewards: [{model: trained}]` are fitted, on the pairs that the sources bring."""

    heads: int = Field(default=5, ge=1, description="each on its own shuffle and bootstrap sample of the prompts")
    folds: int = Field(default=5, ge=2, description="a pair is scored by heads that have not seen its prompt")

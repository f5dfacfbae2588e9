"""The recipe as a whole, and what its sections need of each other."""

from __future__ import annotations

import os
from typing import Annotated, Final, Literal

from pydantic import Field, model_validator

from curation.errors import closest
from curation.models.chat.connection import is_address, remote_judge
from curation.recipe.base import Section
from curation.recipe.candidates import Answers, Constructed, Mutations
from curation.recipe.gates import Gates
from curation.recipe.generation import Costs, Generation, Pool
from curation.recipe.hygiene import Hygiene
from curation.recipe.models import Encoder, PairJudge, Policy, Reward
from curation.recipe.negatives import Negatives
from curation.recipe.pairs import SCORED_BY, Pairs, Selection
from curation.recipe.publishing import Publish, Splits
from curation.recipe.ray import Ray
from curation.recipe.refusals import RefusalDataset, RefusalDetection, RTuning
from curation.recipe.sampling import Sampling
from curation.recipe.sources import Source
from curation.recipe.strength import LabelNoise, RewardTraining, Strength
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
    engine: Literal["local", "ray"] = Field(
        default="local", description="local: models run in this process; ray: on a cluster; --engine overrides it"
    )
    ray: Ray = Ray()
    batch_timeout_seconds: float | None = Field(
        default=3600.0,
        gt=0,
        description="longest that a model run here or on the cluster may take for a batch; a run whose model hangs "
        "ends then, and keeps what is finished; null for no limit. Servers have a timeout of their own",
    )
    sources: tuple[Source, ...] = Field(min_length=1)
    generation: tuple[Generation, ...] = ()
    pool: Pool = Pool()
    sampling: Sampling | None = None
    costs: Costs = Costs()
    answers: Answers = Answers()
    constructed: Constructed | None = None
    mutations: Mutations | None = None
    encoder: Encoder | None = Encoder()
    rewards: tuple[Reward, ...] = (Reward(),)
    reward_training: RewardTraining = RewardTraining()
    refusals: RefusalDetection | None = RefusalDetection()
    refusal_dataset: RefusalDataset = RefusalDataset()
    policy: Policy | None = Policy()
    pairs: Pairs = Pairs()
    judge: PairJudge | None = None
    strength: Strength = Strength()
    label_noise: LabelNoise | None = None
    selection: Selection = Selection()
    negatives: Negatives | None = None
    hygiene: Hygiene = Hygiene()
    splits: Splits = Splits()
    gates: Gates = Gates()
    publish: Publish = Publish()

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        names = [source.name for source in self.sources]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two sources are called {name!r}: give one of them another name")
        scales: dict[str, bool] = {}
        for source in self.sources:
            lower = bool(source.lower_is_better)
            if source.score_scale and scales.setdefault(source.score_scale, lower) != lower:
                raise ValueError(
                    f"sources of score_scale {source.score_scale!r} differ in lower_is_better, so that their "
                    f"scores are on two scales: give them two names"
                )
        if self.hygiene.needs_encoder and self.encoder is None:
            raise ValueError("hygiene compares by embeddings, which needs the section encoder")
        if "refusal" in self.publish.datasets and self.refusals is None:
            raise ValueError("publish.datasets has 'refusal', which needs the section refusals")
        if (
            "reward_augmented" in self.publish.datasets
            and self.publish.goals.score == "rewards"
            and not self.rewards
        ):
            raise ValueError(
                "publish.datasets has 'reward_augmented', which needs the section rewards, or "
                "publish: {goals: {score: provided}}"
            )
        if "ches_aware" in self.pairs.strategies and self.policy is None:
            raise ValueError("pairs.strategies has 'ches_aware', which needs the section policy")
        mixed = self.selection.mixture.sources if self.selection.mixture else {}
        named = {"pairs.forget_sources": self.pairs.forget_sources, "selection.mixture.sources": tuple(mixed)}
        named["mutations.sources"] = self.mutations.sources if self.mutations else ()
        r_tuning = self.refusal_dataset.r_tuning
        named["refusal_dataset.r_tuning.sources"] = r_tuning.sources if r_tuning else ()
        for key, name in ((key, name) for key, wanted in named.items() for name in wanted):
            if name not in names and (name, key) != ("none", "selection.mixture.sources"):
                found = f"{closest(name, names)}; found {', '.join(names)}"
                raise ValueError(f"{key}: there is no source {name!r}{found}")
        if "constructed" in self.pairs.strategies and not self.constructs:
            raise ValueError(
                "pairs.strategies has 'constructed', which needs the section constructed or a model of generation "
                "with only_as_rejected"
            )
        unranked = {"provided", "refusal_vs_compliance", "refusal_faults", "template_vs_forget", "constructed"}
        ranked = set(self.pairs.strategies) - unranked
        if ranked and self.pairs.score == "rewards" and not self.rewards:
            raise ValueError(f"pairs.strategies has {sorted(ranked)[0]!r}, which needs the section rewards")
        return self

    @model_validator(mode="after")
    def _refusals_are_told(self) -> Recipe:
        for strategy in ("refusal_vs_compliance", "refusal_faults"):
            if strategy in self.pairs.strategies and self.refusals is None:
                raise ValueError(f"pairs.strategies has {strategy!r}, which needs the section refusals")
        if "refusal_faults" in self.pairs.strategies and self.refusal_dataset.faults == "drop":
            raise ValueError("pairs.strategies has 'refusal_faults', and refusal_dataset.faults is drop: give one")
        return self

    @model_validator(mode="after")
    def _negatives_are_published(self) -> Recipe:
        if "retrieval" in self.publish.tables and (self.negatives is None or self.encoder is None):
            name = next(name for name in self.publish.datasets if name.startswith("retrieval"))
            raise ValueError(f"publish.datasets has {name!r}, which needs the sections negatives and encoder")
        if self.negatives is not None and "retrieval" not in self.publish.tables:
            raise ValueError(
                f"section negatives is set, and publish.datasets is {', '.join(self.publish.datasets) or 'empty'}: "
                f"nothing would be mined; add retrieval or retrieval_triplets to it, or leave negatives out"
            )
        return self

    @model_validator(mode="after")
    def _selection_is_measured(self) -> Recipe:
        """A rule for a score that nobody measures keeps every pair or none, whatever its bound."""
        selection, gates = self.selection, self.gates
        asked = [
            (f"selection.rules has {r.score!r}", SCORED_BY[r.score])
            for r in selection.rules
            if r.score in SCORED_BY
        ]
        if selection.curriculum is not None and selection.curriculum.by in SCORED_BY:
            by = selection.curriculum.by
            asked.append((f"selection.curriculum goes by {by!r}", SCORED_BY[by]))
        if selection.drop_refusal_pairs:
            asked.append(("selection.drop_refusal_pairs is set", "refusals"))
        if selection.max_refusal_pair_share < 1:
            asked.append(("selection.max_refusal_pair_share is set", "refusals"))
        if gates.min_chosen_refusal_rate > 0:
            asked.append(("gates.min_chosen_refusal_rate is set", "refusals"))
        if gates.max_chosen_refusal_rate < 1:
            asked.append(("gates.max_chosen_refusal_rate is set", "refusals"))
        for what, section in asked:
            if not getattr(self, section):
                raise ValueError(f"{what}, which needs the section {section}")
        changes = {"chosen_change", "rejected_change"}.intersection(rule.score for rule in selection.rules)
        if changes and self.policy is not None and not self.policy.output_gradients:
            raise ValueError(f"selection.rules has {min(changes)!r}, which needs policy.output_gradients")
        return self

    @model_validator(mode="after")
    def _generation_is_consistent(self) -> Recipe:
        if self.costs.max_cost is not None:
            asked = {f"generation {position}": found.model for position, found in enumerate(self.generation)}
            asked |= {place: found.model for place, found in self.rewriters.items()}
            for place, model in (asked | self.remote_judges).items():
                if is_address(model) and self.costs.price_of(model) is None:
                    raise ValueError(
                        f"costs.max_cost is set, and costs.prices has no price for {place}, {model!r}: give "
                        f"its prompt and completion price per million tokens"
                    )
        for position, found in enumerate(self.generation):
            first = next(i for i, other in enumerate(self.generation) if other.parameters == found.parameters)
            if first < position:
                raise ValueError(
                    f"generation {position} asks {found.model!r} with the options of generation {first}, and would "
                    f"get the same answers: raise samples there, or change the temperature here"
                )
        if self.pool.models_per_prompt is not None and self.pool.models_per_prompt > len(self.generation):
            raise ValueError(
                f"pool.models_per_prompt is {self.pool.models_per_prompt}, and generation has "
                f"{len(self.generation)} models"
            )
        return self

    @model_validator(mode="after")
    def _sampling_is_consistent(self) -> Recipe:
        if self.sampling is None:
            return self
        if not any(not generation.only_as_rejected for generation in self.generation):
            raise ValueError("section sampling needs a model in section generation that is not only_as_rejected")
        if self.sampling.near_identical is not None and self.sampling.budget is None:
            most = max(g.samples for g in self.generation if not g.only_as_rejected)
            if most > self.sampling.max_samples:
                raise ValueError(f"generation has samples: {most}, more than sampling.max_samples")
        return self

    @model_validator(mode="after")
    def _one_model_is_tuned(self) -> Recipe:
        options = self.refusal_dataset.r_tuning
        if options is None:
            return self
        fitting = self.tuned_models(options)
        if len(fitting) != 1:
            wanted = (
                "temperature: 0, whose first answer is the greedy one"
                if options.by == "correctness"
                else f"a temperature above 0 and samples: {options.min_answers} or more"
            )
            found = f"{len(fitting)} of {len(self.generation)} models of section generation are so"
            raise ValueError(
                f"refusal_dataset.r_tuning by {options.by} needs one model with {wanted}"
                f"{' and the name ' + repr(options.model) if options.model else ''}; {found}"
            )
        return self

    def tuned_models(self, options: RTuning) -> list[Generation]:
        """The models whose answers can tell how sure they are."""
        in_rounds = self.sampling is not None and self.sampling.budget is not None
        return [g for g in self.generation if options.fits(g, drawn_in_rounds=in_rounds)]

    @property
    def builds_pairs(self) -> bool:
        """Whether any dataset is made of pairs."""
        return not {"preference", "preference_unpaired", "reward_augmented"}.isdisjoint(self.publish.tables)

    @property
    def constructs(self) -> bool:
        """Whether answers are made on purpose."""
        weaker = any(generation.only_as_rejected for generation in self.generation)
        return self.constructed is not None or weaker or bool(self.pairs.forget_sources)

    @property
    def rewriters(self) -> dict[str, Generation]:
        """The chat models that rewrite prompts and answers, by their key: what they write is paid for, too."""
        found = {"mutations.model": self.mutations.model if self.mutations else None}
        for name in ("word_errors", "refinement"):
            part = getattr(self.constructed, name, None)
            found[f"constructed.{name}.model"] = part.model if part else None
        return {key: model for key, model in found.items() if model is not None}

    @property
    def remote_judges(self) -> dict[str, str]:
        """The chat models behind servers that judge, by their key, without what stands behind their names."""
        named = {f"rewards {place}": reward.model for place, reward in enumerate(self.rewards)}
        named["judge"] = self.judge.model if self.judge else ""
        named["sampling.reward"] = self.sampling.reward.model if self.sampling and self.sampling.reward else ""
        rescorer = self.negatives.rescorer if self.negatives else None
        named["negatives.rescorer"] = rescorer.model if rescorer else ""
        found = {key: judge for key, name in named.items() if (judge := remote_judge(name)) is not None}
        if self.refusals and self.refusals.judge:
            found["refusals.judge"] = self.refusals.judge.model
        if self.refusals and self.refusals.sorting and self.refusals.sorting.judge:
            found["refusals.sorting.judge"] = self.refusals.sorting.judge.model
        return {key: model for key, model in found.items() if is_address(model)}

    @property
    def relabels(self) -> bool:
        """Whether any band or suggestion of label noise has an action: labels are then more than kept."""
        noise = self.label_noise.actions.model_dump() if self.label_noise else {}
        return any([*self.strength.actions.model_dump().values(), *noise.values()])

    @property
    def content_hash(self) -> str:
        """A hash of all that decides a result: not where it is computed, nor where it is kept."""
        placed = {"workspace", "engine", "ray", "batch_timeout_seconds"}
        return content_hash(canonical_json(self.model_dump(mode="json", exclude=placed)))

    @classmethod
    def from_yaml(cls, path: str | os.PathLike[str]) -> Recipe:
        """Read and validate a recipe; see :func:`curation.recipe.load_recipe`."""
        from curation.recipe.loading import load_recipe

        return load_recipe(path)

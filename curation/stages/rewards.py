"""Stage ``rewards``: score every candidate with every reward model of the recipe."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from curation.engine import Batch, Worker, failures_frame
from curation.errors import BudgetReached, ModelError
from curation.ledger import LedgerKey
from curation.models.chat import is_address
from curation.models.protocols import AskedInPart, Fault, FloatArray, RewardModel
from curation.models.rewards import heads_encoder, open_heads, open_reward, reward_fingerprint, same_width
from curation.models.rewards.relevance import read_references
from curation.recipe import Reward
from curation.stages.answered import answered
from curation.stages.context import Context, Stage, StageResult
from curation.stages.head_features import StoredVectors, shares_vectors
from curation.stages.reward_heads import TRAINED, trained_folder

__all__ = ["STAGE", "RewardStep", "candidate_rewards", "reward_steps", "whole_means"]

_STEP_VERSION = 1
_LEDGER_BATCH = 4096


@dataclass(frozen=True)
class RewardStep:
    """Scoring with one reward model.

    Attributes:
        encoder: where heads find their vectors; None for models without, and for heads of another encoder.
    """

    options: Reward
    encoder: StoredVectors | None = None

    @property
    def name(self) -> str:
        return "rewards"

    @property
    def batch_rows(self) -> int:
        # Each batch looks through the ledger's vectors, so few large ones are better than many small ones.
        return self.options.batch_rows if self.encoder is None else max(self.options.batch_rows, _LEDGER_BATCH)

    @property
    def known_columns(self) -> tuple[str, ...]:
        """What a row that failed in part need not be asked for again."""
        return ("rewards",)

    @property
    def is_remote(self) -> bool:
        """Whether a server answers, which is paid for, and not a model in this process."""
        return is_address(self.options.model.removeprefix("judge:"))

    @property
    def key(self) -> LedgerKey:
        producer = reward_fingerprint(self.options.model, **self.options.options)
        return LedgerKey("rewards", "candidate_id", "model", f"{producer} step{_STEP_VERSION}")

    def open(self) -> Worker:
        if self.encoder is not None:
            return _Scoring(open_heads(self.options.model, with_encoder=self.encoder, encoder=self.options.encoder))
        return _Scoring(open_reward(self.options.model, **self.options.options))


@dataclass
class _Scoring:
    """Each value stays its own: where one attribute fails on an answer, the others are kept."""

    model: RewardModel
    width: int = 0
    """How many values the model gives an answer; 0 until it has given one."""

    def __call__(self, batch: pl.DataFrame) -> Batch:
        scores = self._scores(batch)
        there = np.isfinite(scores)
        if there.any():
            self.width = same_width(self.width, scores.shape[1])
        rewards = pl.Series("rewards", np.where(there, scores, np.nan).tolist(), dtype=pl.List(pl.Float64))
        rows = pl.DataFrame([batch["candidate_id"], rewards.list.eval(pl.element().fill_nan(None))])
        some, whole = (pl.Series(np.asarray(found)) for found in (there.any(axis=1), there.all(axis=1)))
        failures = [
            {"row_id": c, "item_id": c, "rule": fault.rule, "value": fault.value, "reason": fault.reason}
            for c, fault, ok in zip(batch["candidate_id"], self._faults(scores), whole, strict=True)
            if not ok
        ]
        return Batch(rows.filter(some), failures_frame(failures))

    def _scores(self, batch: pl.DataFrame) -> FloatArray:
        """The model's values; of a row that failed in part, those that it had.

        A judge is asked for the rubrics that are missing. Other models give all values of an answer at once.
        """
        prompts, answers = batch["messages"].to_list(), batch["response"].to_list()
        known = self._known(batch)
        if known is None:
            return self.model.score(prompts, answers)
        if isinstance(self.model, AskedInPart):
            return self.model.score_missing(prompts, answers, known)
        scores = self.model.score(prompts, answers)
        same_width(known.shape[1], scores.shape[1])
        return np.where(np.isfinite(scores), scores, known)

    def _known(self, batch: pl.DataFrame) -> FloatArray | None:
        """(n, width), NaN for what is not known; None where nothing is."""
        given = batch["known_rewards"].to_list() if "known_rewards" in batch.columns else []
        for row in given:
            if row is not None:
                self.width = same_width(self.width, len(row))
        if all(row is None for row in given):
            return None
        return np.array([row or [None] * self.width for row in given], dtype=np.float64)

    def _faults(self, scores: FloatArray) -> list[Fault]:
        """Why each row lacks a reward, where the model says so, and which one where it has others."""
        unknown = "the reward model gave a value that is not a finite number"
        said = getattr(self.model, "faults", None) or [None] * len(scores)
        names = list(getattr(self.model, "outputs", ())) or [f"value {place}" for place in range(scores.shape[1])]
        found = []
        for fault, row in zip(said, scores, strict=True):
            one = fault or Fault("non_finite_reward", str(row.tolist()), unknown)
            lacking = [name for name, value in zip(names, row, strict=True) if not np.isfinite(value)]
            others = f" ({', '.join(lacking)}; the others are kept)" if 0 < len(lacking) < len(row) else ""
            found.append(one._replace(reason=f"{one.reason}{others}"))
        return found


def reward_steps(context: Context) -> list[RewardStep]:
    """The steps that a recipe asks for, in its order."""
    return [_reward_step(context, options) for options in context.recipe.rewards]


def _reward_step(context: Context, options: Reward) -> RewardStep:
    if options.model == TRAINED:
        options = options.model_copy(update={"model": trained_folder(context)})
    encoder = heads_encoder(options.model)
    if encoder is None or context.recipe.encoder is None or not shares_vectors(context, encoder):
        return RewardStep(options)
    return RewardStep(options, StoredVectors(context.workspace, context.recipe.encoder))


def candidate_rewards(context: Context, candidates: pl.Series) -> pl.DataFrame:
    """candidate_id and ``rewards``: the values of all models in the recipe's order, in the order of ``candidates``.

    A model that could not score a candidate has nulls there, as an attribute has that failed alone, and the other
    values stay. A candidate that none could score is left out.

    Raises:
        ModelError: when a model has given more values for some of them than for others.
    """
    joined = pl.DataFrame({"candidate_id": candidates}).unique(maintain_order=True)
    columns: list[str] = []
    for number, step in enumerate(reward_steps(context)):
        one = context.ledger.fetch(step.key, candidates).select(
            "candidate_id", pl.col("rewards").alias(f"_{number}")
        )
        if one.is_empty():
            continue
        widths = one[f"_{number}"].list.len()
        for width in widths.unique():
            same_width(widths[0], width, step.options.model)
        columns.append(f"_{number}")
        nothing = pl.lit([None] * len(one[columns[-1]][0]), dtype=pl.List(pl.Float64))
        joined = joined.join(one, on="candidate_id", how="left", maintain_order="left").with_columns(
            pl.col(columns[-1]).fill_null(nothing), pl.col(columns[-1]).is_not_null().alias(f"{columns[-1]}_there")
        )
    if not columns:
        return pl.DataFrame(schema={"candidate_id": pl.String, "rewards": pl.List(pl.Float64)})
    scored = joined.filter(pl.any_horizontal(f"{column}_there" for column in columns))
    return scored.select("candidate_id", rewards=pl.concat_list(columns))


def whole_means(rewards: pl.DataFrame) -> pl.DataFrame:
    """candidate_id and ``score``: the mean of the values; null where one is missing, for it would be of others.

    Args:
        rewards: ``candidate_id`` and ``rewards`` of one model.
    """
    whole = pl.col("rewards").list.eval(pl.element().is_null()).list.any().not_()
    return rewards.select("candidate_id", score=pl.when(whole).then(pl.col("rewards").list.mean()))


def run(context: Context) -> StageResult:
    candidates = answered(context)
    facts: dict[str, int | str] = {}
    failed = 0
    errors: list[ModelError | BudgetReached] = []
    for number, step in enumerate(reward_steps(context)):
        try:
            report = context.compute(step, candidates)
        except (ModelError, BudgetReached) as error:
            # The other models' rewards are worth having: they are in the ledger when this one is mended, or paid.
            errors.append(error)
            continue
        failed += report.failed
        facts[f"model {number + 1}"] = step.key.producer
        facts[f"computed by model {number + 1}"] = report.computed
        # Also of earlier runs: whoever looks at this one only must see that an ensemble is not whole.
        lacking = context.ledger.failures(step.key, candidates["candidate_id"])["row_id"].n_unique()
        if lacking:
            facts[f"answers without a whole reward of model {number + 1}"] = (
                f"{lacking:,} of {len(candidates):,}, see table failures; --retry-failed asks again"
            )
        if step.options.references is not None:
            held = candidates["prompt_id"].is_in(list(read_references(step.options.references))).sum()
            facts[f"answers held against a known one, of model {number + 1}"] = f"{held} of {len(candidates)}"
        if step.options.model.startswith("judge:"):
            grades = context.ledger.fetch(step.key, candidates["candidate_id"])["rewards"].explode().drop_nulls()
            written = int((grades == grades.round()).sum())
            facts[f"grades of model {number + 1} that are whole, so no expectations"] = (
                f"{written} of {len(grades)}"
            )
    if errors:
        raise errors[0]
    return StageResult("rewards", candidates.height, failed, facts)


STAGE = Stage(
    name="rewards",
    group="scores",
    description="The reward of each candidate under each reward model of the recipe.",
    needs=("prompts", "candidates", "embeddings", "reward_heads"),
    run=run,
    table="rewards",
    enabled=lambda recipe: bool(recipe.rewards),
    uses_model=True,
)

"""What a run would ask of its models, and what that can cost, before any of it is asked. No model is called.

The stages go through their own code, on tables in a folder that is deleted and with the workspace's own ledger,
which is only read; in place of a model stands a count of what the ledger lacks (``planning.context``). Each answer
that is not there yet is stood in for, so that what depends on it is counted at its most. What requests hold is in
``planning.requests``.
"""

from __future__ import annotations

import os
import tempfile
from typing import Any, Final, NamedTuple

import polars as pl

from curation.damage import check_whole
from curation.errors import InputError
from curation.pipeline import workspace_of
from curation.planning.context import Beside, NotEmbedded, PlanContext
from curation.planning.pairs import pairs_at_most
from curation.planning.requests import Planned, planned, stand_in
from curation.recipe import Recipe, load_recipe
from curation.recipe.hygiene import PromptSelection
from curation.stages.asked import requests_for
from curation.stages.context import Context
from curation.stages.drawn import is_drawn_in_rounds
from curation.stages.generations import asked_of
from curation.stages.hygiene import kept_inputs
from curation.stages.refusal_step import RefusalStep
from curation.stages.reward_heads import TRAINED
from curation.stages.sample_rewards import sample_rewards
from curation.stages.spending import spent
from curation.text_columns import response_ids
from curation.workspace import Workspace

__all__ = ["Plan", "plan"]

_SCORES: Final = ("embeddings", "rewards", "refusals", "policy_stats")
_BY_EMBEDDINGS: Final = ("k_centre", "facility_location", "transport")


class Plan(NamedTuple):
    """What a run would ask for."""

    steps: list[Planned]
    """Servers first."""
    spent: float
    max_cost: float | None
    currency: str
    notes: list[str]
    """What is not counted, and why."""

    @property
    def cost(self) -> float:
        """The most that all of it can cost, of what has a price."""
        return sum(step.cost or 0.0 for step in self.steps)


def plan(
    recipe: Recipe | str | os.PathLike[str],
    *,
    workspace: str | os.PathLike[str] | None = None,
    limit: int | None = None,
    retry_failed: bool = False,
) -> Plan:
    """Count what :func:`curation.run` with these arguments would ask for. Nothing is asked, and nothing is written.

    Raises:
        InputError: a source or the recipe is wrong.
        WorkspaceError: the workspace is damaged or cannot be read.
    """
    if not isinstance(recipe, Recipe):
        recipe = load_recipe(recipe)
    notes: list[str] = []
    with tempfile.TemporaryDirectory(prefix="curation-plan-") as folder:
        place = _there(recipe, workspace, trial=limit is not None) or Workspace(os.path.join(folder, "new"))
        beside, ours = Beside(folder, place), _plannable(recipe, notes)
        context = PlanContext(beside, ours, limit=limit, retry_failed=retry_failed, place=place)
        _prompts(context, notes)
        _answers(context, notes)
        for name in _SCORES:
            context.through(name)
        _calibrated(context)
        _judgements(context)
        steps = [planned(context, asked) for asked in context.asked.values()]
        before = context.left_over + spent(Context(place, recipe, limit=limit))
    if recipe.negatives is not None and "retrieval" in recipe.publish.tables:
        notes.append("stage retrieval: what it embeds and rescores depends on the pairs that stay")
    steps.sort(key=lambda step: not step.is_remote)
    return Plan(steps, before, recipe.costs.max_cost, recipe.costs.currency, notes)


def _there(recipe: Recipe, given: str | os.PathLike[str] | None, *, trial: bool) -> Workspace | None:
    """The workspace of the run, None where there is none yet."""
    try:
        place = workspace_of(recipe, given, trial=trial, create=False)
    except InputError:
        return None
    check_whole(place)
    return place


def _plannable(recipe: Recipe, notes: list[str]) -> Recipe:
    """The recipe without what cannot be known before a run."""
    if any(reward.model == TRAINED for reward in recipe.rewards):
        notes.append("rewards by heads that the run trains: they run in this process, and are not counted")
        rewards = tuple(reward for reward in recipe.rewards if reward.model != TRAINED)
        return recipe.model_copy(update={"rewards": rewards})
    return recipe


def _prompts(context: PlanContext, notes: list[str]) -> None:
    """The prompts, as the run will have them where the ledger has all that compares them, or else more."""
    context.through("inputs")
    _comparing(context, "hygiene", notes)
    context.through("mutations")
    context.through("prompts")
    lacking = context.requests_made_in("mutations").select("name", prompt_id="for_prompt")
    if not lacking.is_empty():
        context.at_most = True
        prompts = context.workspace.read("prompts")
        made = prompts.join(lacking, on="prompt_id", maintain_order="left").with_columns(prompt_id="name")
        context.workspace.overwrite("prompts", pl.concat([prompts, made.select(prompts.columns)]))
    context.through("requests")


def _comparing(context: PlanContext, stage: str, notes: list[str]) -> None:
    """Go through a stage that may compare embeddings; where they are not there, without that."""
    try:
        context.through(stage)
    except NotEmbedded as missing:
        notes.append(
            f"what stage {stage} drops by embeddings, for {missing.rows:,} texts have none yet: what follows is at "
            f"most so many"
        )
        context.at_most = True
        select = context.recipe.hygiene.select
        _without_embeddings(context)
        context.through(stage)
        if stage == "hygiene" and select is not None and context.recipe.hygiene.select is None:
            _so_many(context, select)


def _without_embeddings(context: PlanContext) -> None:
    """Leave out of hygiene what compares embeddings."""
    hygiene = context.recipe.hygiene
    changed: dict[str, Any] = {"answers": tuple(one for one in hygiene.answers if one.method != "semantic")}
    if context.stage == "hygiene":
        known = hygiene.contamination
        changed["contamination"] = known and known.model_copy(update={"similarity": None})
        changed["prompts"] = tuple(one for one in hygiene.prompts if one.method != "semantic")
        if hygiene.select is not None and hygiene.select.method in _BY_EMBEDDINGS:
            changed["select"] = None
    context.recipe = context.recipe.model_copy(update={"hygiene": hygiene.model_copy(update=changed)})


def _so_many(context: PlanContext, select: PromptSelection) -> None:
    """Of the prompts that hygiene left, as many as are to be chosen, whichever they are."""
    inputs = kept_inputs(context).collect()
    ids = inputs["prompt_id"].unique(maintain_order=True)
    stay = ids.head(select.wanted(len(ids)))
    context.workspace.overwrite("inputs", inputs.filter(pl.col("prompt_id").is_in(stay.implode())))


def _answers(context: PlanContext, notes: list[str]) -> None:
    """What generators and rewriters are asked, and a candidate for each answer that is not there yet."""
    _generations(context)
    _comparing(context, "constructed", notes)
    _comparing(context, "candidates", notes)
    lacking = pl.concat([context.requests_made_in(stage) for stage in ("generations", "constructed")])
    if lacking.is_empty():
        return
    context.at_most = True
    made = context.recipe.constructed
    if made is not None and made.right == "verifier" and (made.refinement or made.word_errors):
        notes.append(
            "stage constructed: rewriting of answers that are not there yet, if constructed.verifier passes them"
        )
    _stand_in(context, lacking.rename({"for_prompt": "prompt_id"}))


def _generations(context: PlanContext) -> None:
    """Answers of the generators; of those drawn in rounds as many as there can be, unless all are there."""
    sampling, prompts = context.recipe.sampling, context.workspace.read("prompts")
    context.stage = "generations"
    for step, asked in asked_of(context, prompts):
        all_there = context.compute_stream(step, asked).reused == asked.height
        if sampling is not None and is_drawn_in_rounds(sampling, step.options) and not all_there:
            indices = pl.int_range(sampling.max_samples, dtype=pl.Int64, eager=True).to_frame("sample_index")
            every = asked.select("prompt_id").unique(maintain_order=True).join(indices, how="cross")
            context.compute_stream(step, requests_for(step, prompts, every), at_most=True)


def _stand_in(context: PlanContext, lacking: pl.DataFrame) -> None:
    """Add a candidate for each request: as long as it may be, and unlike every other."""
    sampling = context.recipe.sampling
    texts = [stand_in(*row) for row in lacking.select("name", "max_new_tokens").iter_rows()]
    rows = lacking.select("prompt_id", "sampled", response=pl.Series(texts, dtype=pl.String))
    rows = rows.with_columns(candidate_id=response_ids(rows["prompt_id"], rows["response"]))
    drawn, others = rows.filter("sampled"), rows.filter(~pl.col("sampled"))
    if sampling is not None and (sampling.choice or (sampling.budget and sampling.budget.min_reward is not None)):
        prompts = context.workspace.scan("prompts").select("prompt_id", "messages").collect()
        sample_rewards(context, sampling, drawn.join(prompts, on="prompt_id", maintain_order="left"))
    if sampling is not None and sampling.choice is not None:
        drawn = drawn.group_by("prompt_id", maintain_order=True).head(sampling.choice.keep)
    rows = pl.concat([drawn.select(rows.columns), others]).drop("sampled")
    stood = rows.with_columns(origin=pl.lit("generated"), occurrences=pl.lit(1, pl.Int64))
    known = context.workspace.read("candidates")
    context.workspace.overwrite("candidates", pl.concat([known, stood], how="diagonal"))


def _calibrated(context: PlanContext) -> None:
    """Answers that have no verdict yet: it is calibrated as soon as it is there, and their requests are sorted."""
    options = context.recipe.refusals
    if options is None or options.calibration is None:
        return
    for asked in tuple(context.asked.values()):
        if isinstance(asked.step, RefusalStep) and asked.step.options.calibration is None and len(asked.missing):
            context.at_most = True
            context.compute(RefusalStep(options), asked.missing)


def _judgements(context: PlanContext) -> None:
    """Comparisons: of the pairs that will be built where these are known, or else of the most there can be."""
    recipe = context.recipe
    if recipe.judge is None or not recipe.builds_pairs:
        return
    is_known = not any(len(asked.unanswered) for asked in context.asked.values())
    if is_known or recipe.pairs.strategies == ("provided",):
        context.through("pairs")
    else:
        context.at_most = True
        context.workspace.overwrite("pairs", pairs_at_most(context))
    context.through("judgements")

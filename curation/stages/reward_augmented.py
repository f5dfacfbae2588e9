"""Stage ``reward_augmented``: the selected pairs under goals, as a view; pairs and candidates stay as they are."""

from __future__ import annotations

import polars as pl

from curation.publish.goals import goal_frame, goal_scores
from curation.stages.context import Context, Stage, StageResult
from curation.stages.preference import kept_pairs

__all__ = ["STAGE"]


def run(context: Context) -> StageResult:
    options = context.recipe.publish.goals
    preference = context.workspace.read("preference")
    if options.score == "provided":
        preference = _with_provided(context, preference)
    built = goal_frame(goal_scores(preference, scale=options.scale), instruction=options.instruction)
    twice = built.frame.filter(pl.col("goal_of") == "rejected").height
    once = built.frame.height - 2 * twice
    return context.write(
        "reward_augmented",
        "reward_augmented",
        built.frame,
        rejects=built.rejects,
        facts={"pairs under two goals": twice, "pairs of equal goals, given once": once},
    )


def _with_provided(context: Context, preference: pl.DataFrame) -> pl.DataFrame:
    """The sources' own scores, in the place of the models' rewards."""
    scores = context.workspace.scan("candidates").select("candidate_id", "provided_score").collect()
    sides = kept_pairs(context).select("pair_id", "chosen_id", "rejected_id")
    for side in ("chosen", "rejected"):
        named = scores.select(
            pl.col("candidate_id").alias(f"{side}_id"), pl.concat_list("provided_score").alias(f"{side}_rewards")
        )
        sides = sides.join(named, on=f"{side}_id", how="left")
    return preference.drop("chosen_rewards", "rejected_rewards").join(
        sides, on="pair_id", how="left", maintain_order="left"
    )


STAGE = Stage(
    name="reward_augmented",
    group="datasets",
    description="Each selected pair under the goal of either answer's score: reward-augmented data.",
    needs=("preference", "pairs", "candidates"),
    run=run,
    table="reward_augmented",
    enabled=lambda recipe: "reward_augmented" in recipe.publish.tables,
)

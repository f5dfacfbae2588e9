"""Stage ``reward_augmented``: the selected pairs under goals, as a view; pairs and candidates stay as they are."""

from __future__ import annotations

import polars as pl

from curation.pairs.source_scores import of_both, scale_means
from curation.publish.goals import goal_frame, goal_scores
from curation.stages.brought import scores_of_sources
from curation.stages.context import Context, Stage, StageResult
from curation.stages.preference import kept_pairs

__all__ = ["STAGE"]


def run(context: Context) -> StageResult:
    options = context.recipe.publish.goals
    preference = context.workspace.read("preference")
    # Each scale of the sources is mapped to the goals' by itself.
    parts = _with_provided(context, preference) if options.score == "provided" else [preference]
    scored = pl.concat(goal_scores(part, scale=options.scale) for part in parts)
    built = goal_frame(scored, instruction=options.instruction)
    twice = built.frame.filter(pl.col("goal_of") == "rejected").height
    once = built.frame.height - 2 * twice
    return context.write(
        "reward_augmented",
        "reward_augmented",
        built.frame,
        rejects=built.rejects,
        facts={"pairs under two goals": twice, "pairs of equal goals, given once": once},
    )


def _with_provided(context: Context, preference: pl.DataFrame) -> list[pl.DataFrame]:
    """The pairs with the sources' own scores in the place of the models' rewards, those of each scale together."""
    kept = kept_pairs(context).select("pair_id", "chosen_id", "rejected_id")
    both = of_both(kept, scale_means(scores_of_sources(context)), same="scale")
    both = both.unique("pair_id", keep="first", maintain_order=True).select(
        "pair_id",
        "scale",
        chosen_rewards=pl.concat_list("chosen_score"),
        rejected_rewards=pl.concat_list("rejected_score"),
    )
    plain = preference.drop("chosen_rewards", "rejected_rewards")
    scored = plain.join(both, on="pair_id", how="left", maintain_order="left")
    return scored.partition_by("scale") or [scored]  # nothing has no parts


STAGE = Stage(
    name="reward_augmented",
    group="datasets",
    description="Each selected pair under the goal of either answer's score: reward-augmented data.",
    needs=("inputs", "hygiene", "prompts", "preference", "pairs", "candidates"),
    run=run,
    table="reward_augmented",
    version=2,
    enabled=lambda recipe: "reward_augmented" in recipe.publish.tables,
)

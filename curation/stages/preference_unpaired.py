"""Stage ``preference_unpaired``: the selected pairs as good and bad answers (KTO)."""

from __future__ import annotations

from typing import Final

from curation.publish.formats import preference_unpaired_frame
from curation.stages.context import Context, Stage, StageResult
from curation.stages.preference import kept_pairs

__all__ = ["STAGE"]


_DECIDED: Final = ("label_smoothing", "weight")


def run(context: Context) -> StageResult:
    preference = context.workspace.scan("preference")
    columns = [name for name in _DECIDED if name in preference.collect_schema().names()]
    decided = preference.select("pair_id", *columns).collect()
    built = preference_unpaired_frame(
        pairs=kept_pairs(context).join(decided, on="pair_id", maintain_order="left"),
        prompts=context.workspace.read("prompts"),
        candidates=context.workspace.read("candidates"),
        in_order=context.recipe.selection.curriculum is not None,
    )
    return context.write("preference_unpaired", "preference_unpaired", built.frame, rejects=built.rejects)


STAGE = Stage(
    name="preference_unpaired",
    group="datasets",
    description="Each chosen answer as good and each rejected one as bad, in TRL's unpaired form.",
    needs=("preference",),
    run=run,
    table="preference_unpaired",
    enabled=lambda recipe: "preference_unpaired" in recipe.publish.tables,
)

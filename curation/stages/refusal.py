"""Stage ``refusal``: refusals of what should be refused, and the answers that contrast with them."""

from __future__ import annotations

from curation.publish.formats import refusal_frame
from curation.stages.context import Context, Stage, StageResult
from curation.stages.refusals import candidate_refusals

__all__ = ["STAGE"]


def run(context: Context) -> StageResult:
    candidates = context.workspace.read("candidates")
    built = refusal_frame(
        candidates=candidates,
        prompts=context.workspace.read("prompts"),
        refusals=candidate_refusals(context, candidates["candidate_id"]),
    )
    facts = {f"of kind {kind}": n for kind, n in built.frame["kind"].value_counts(sort=True).iter_rows()}
    return context.write("refusal", "refusal", built.frame, rejects=built.rejects, facts=facts)


STAGE = Stage(
    name="refusal",
    group="datasets",
    description="Supervised refusals, and answers to the prompts that only look as if they were to be refused.",
    needs=("prompts", "candidates", "refusals"),
    run=run,
    table="refusal",
    enabled=lambda recipe: "refusal" in recipe.publish.datasets,
)

"""Stage ``prompts``: each distinct prompt once, with its split."""

from __future__ import annotations

from curation.stages.context import Context, Stage, StageResult
from curation.stages.source_prompts import mutated_prompts, source_prompts, with_families
from curation.stages.splitting import split_prompts

__all__ = ["STAGE"]


def run(context: Context) -> StageResult:
    prompts = with_families(source_prompts(context), mutated_prompts(context))
    split = split_prompts(context, prompts)
    facts = split.facts | {"mutated": split.prompts["mutation"].count()}
    return context.write("prompts", "prompts", split.prompts, rejects=split.rejects, facts=facts)


STAGE = Stage(
    name="prompts",
    group="sources",
    description="Each distinct prompt once, with its category, what is expected of an answer, and its split.",
    needs=("inputs", "hygiene", "mutations"),
    run=run,
    table="prompts",
)

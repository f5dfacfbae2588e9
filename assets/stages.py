"""One thin asset for each stage: run it, return its metadata. What a stage does is in ``curation.stages``."""

from collections.abc import Iterator

import dagster as dg

from assets.metadata import stage_metadata
from assets.resources import CurationResource
from curation.errors import CurationError
from curation.pipeline import run_stage
from curation.stages import STAGES
from curation.stages.context import Stage

__all__ = ["stage_assets"]

_KINDS = {"sources": "polars", "scores": "python", "datasets": "huggingface"}


def stage_asset(stage: Stage) -> dg.AssetsDefinition:
    """The asset of a stage."""

    @dg.asset(
        name=stage.name,
        group_name=stage.group,
        description=stage.description,
        deps=list(stage.needs),
        kinds={"deltalake" if stage.table else "parquet", _KINDS.get(stage.group, "polars")},
        pool="gpu" if stage.uses_model else None,
        code_version=str(stage.version),
    )
    def asset(context: dg.AssetExecutionContext, curation: CurationResource) -> dg.MaterializeResult:
        stage_context = curation.context(context.log)
        try:
            with stage_context.workspace.lock():
                result = run_stage(stage_context, stage)
        except CurationError as error:
            raise dg.Failure(description=str(error), allow_retries=False) from error
        return stage_metadata(stage_context, stage, result)

    return asset


def stage_assets() -> Iterator[dg.AssetsDefinition]:
    """The assets of all stages, in the order of a run."""
    return (stage_asset(stage) for stage in STAGES)

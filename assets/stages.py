"""One thin asset for each stage: run it, return its metadata. What a stage does is in ``curation.stages``."""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Final

import dagster as dg

from assets.metadata import stage_metadata
from assets.resources import CurationResource
from curation.pipeline import run_stage
from curation.stages import STAGES
from curation.stages.context import Stage
from curation.workspace import LEDGER_TABLES

__all__ = ["stage_asset", "stage_assets"]

_DATASET_KINDS: Final = {"parquet", "huggingface"}
# A refresh is daily: two that were missed are a warning, a week without one is a failure.
_FRESH: Final = dg.FreshnessPolicy.time_window(fail_window=timedelta(days=8), warn_window=timedelta(days=3))
# For what passes by itself, such as a lost connection. The ledger keeps what was done before it.
_RETRY: Final = dg.RetryPolicy(max_retries=1, delay=30)


def stage_asset(stage: Stage, *, prefix: Sequence[str] = ()) -> dg.AssetsDefinition:
    """The asset of a stage; ``prefix`` is what the keys of all assets begin with."""

    @dg.asset(
        key=[*prefix, stage.name],
        group_name=stage.group,
        description=stage.description,
        deps=[dg.AssetKey([*prefix, name]) for name in stage.needs],
        kinds=_kinds(stage),
        pool="gpu" if stage.uses_model else None,
        code_version=str(stage.version),
        retry_policy=_RETRY if stage.uses_model else None,
        freshness_policy=_FRESH if stage.name.startswith("publish_") else None,
    )
    def asset(context: dg.AssetExecutionContext, curation: CurationResource) -> dg.MaterializeResult:
        with curation.stage(context.log, stage.name) as opened:
            compared = ("rejects", stage.table) if stage.table else ("rejects",)
            before = {table: opened.workspace.version(table) for table in compared}
            reported = len(opened.reports)
            result = run_stage(opened, stage)
            return stage_metadata(opened, stage, result, before=before, reports=opened.reports[reported:])

    return asset


def stage_assets(*, prefix: Sequence[str] = ()) -> Iterator[dg.AssetsDefinition]:
    """The assets of all stages, in the order of a run."""
    return (stage_asset(stage, prefix=prefix) for stage in STAGES)


def _kinds(stage: Stage) -> set[str]:
    if stage.name == "report":
        return {"html"}
    if stage.table is None:
        return _DATASET_KINDS
    return {"deltalake", "model"} if stage.table in LEDGER_TABLES else {"deltalake", "polars"}

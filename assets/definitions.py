"""The code location: everything that Dagster loads."""

import os
from collections.abc import Mapping
from typing import Any

import dagster as dg

from assets.checks import gate_checks
from assets.resources import from_environment
from assets.schedules import EVERYTHING, daily_refresh
from assets.sensors import new_source_data
from assets.stages import stage_assets

__all__ = ["build_defs", "defs"]


def build_defs(resource_overrides: Mapping[str, Any] | None = None) -> dg.Definitions:
    """The definitions, with other resources where a test gives them.

    The assets run in one process, so that a model which two assets need is loaded once, and the tables
    that one asset writes are the ones that the next one reads. Their keys begin with CURATION_ASSET_PREFIX,
    if it is set: Dagster knows an asset by its key alone, so two recipes of one Dagster need different ones.
    """
    prefix = [part for part in os.environ.get("CURATION_ASSET_PREFIX", "").split("/") if part]
    return dg.Definitions(
        assets=list(stage_assets(prefix=prefix)),
        asset_checks=[gate_checks(prefix=prefix)],
        jobs=[EVERYTHING],
        schedules=[daily_refresh],
        sensors=[new_source_data],
        resources=dict(from_environment() if resource_overrides is None else resource_overrides),
        executor=dg.in_process_executor,
    )


@dg.definitions
def defs() -> dg.Definitions:
    return build_defs()

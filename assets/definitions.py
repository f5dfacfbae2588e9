"""The code location: everything that Dagster loads."""

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
    that one asset writes are the ones that the next one reads.
    """
    return dg.Definitions(
        assets=list(stage_assets()),
        asset_checks=[gate_checks()],
        jobs=[EVERYTHING],
        schedules=[daily_refresh],
        sensors=[new_source_data],
        resources=dict(from_environment() if resource_overrides is None else resource_overrides),
        executor=dg.in_process_executor,
    )


@dg.definitions
def defs() -> dg.Definitions:
    return build_defs()

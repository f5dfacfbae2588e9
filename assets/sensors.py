"""The sensor that starts a run when a source has changed (off until it is turned on in the UI)."""

import dagster as dg

from assets.resources import CurationResource
from assets.schedules import EVERYTHING
from curation.errors import CurationError
from curation.prompts.fingerprints import source_fingerprints
from curation.recipe import load_recipe

__all__ = ["new_source_data"]


@dg.sensor(
    job=EVERYTHING,
    minimum_interval_seconds=300,
    default_status=dg.DefaultSensorStatus.STOPPED,
    description="Every five minutes: a run when a file or a Hub dataset that the recipe reads has changed.",
)
def new_source_data(context: dg.SensorEvaluationContext, curation: CurationResource) -> dg.SensorResult:
    try:
        found = source_fingerprints(load_recipe(curation.recipe))
    except CurationError as error:
        # A source that is away for a moment: the last good datasets stay, and the next tick looks again.
        return dg.SensorResult(skip_reason=str(error))
    last, _, digest = (context.cursor or "").partition(" ")
    if found.digest == digest:
        return dg.SensorResult(skip_reason=f"none of the {len(found.sources)} sources has changed")
    # Dagster starts no second run under one key: sources that are what they once were are a change all the same.
    cursor = f"{int(last) + 1 if digest else 1} {found.digest}"
    request = dg.RunRequest(run_key=cursor, tags={"curation/started_by": "new source data"})
    return dg.SensorResult(run_requests=[request], cursor=cursor)

"""The job that materializes everything, and its daily schedule (off until it is turned on in the UI)."""

import dagster as dg

__all__ = ["EVERYTHING", "daily_refresh"]

EVERYTHING = dg.define_asset_job(
    "everything",
    selection=dg.AssetSelection.all(),
    description="From the sources to the datasets and the report. Rows that are there already cost nothing.",
)

daily_refresh = dg.ScheduleDefinition(
    name="daily_refresh",
    job=EVERYTHING,
    cron_schedule="0 4 * * *",
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description="Every day at 04:00: new rows of the sources are computed, and the datasets published again.",
)

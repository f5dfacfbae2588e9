"""The daily schedule on a Dagster instance: a tick, the run that it asks for, and what that run computes."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pytest

from curation.workspace import Workspace
from tests.assets.conftest import Location, metadata
from tests.stages.conftest import SMALL_RECIPE

PROMPTS = 100


def tick(location: Location, *, day: int) -> dg.RunRequest:
    """What the schedule asks for on a day at 04:00."""
    schedule = location.definitions().get_repository_def().get_schedule_def("daily_refresh")
    moment = datetime(2026, 11, day, 4, tzinfo=UTC)
    with dg.build_schedule_context(instance=location.instance, scheduled_execution_time=moment) as context:
        (request,) = schedule.evaluate_tick(context).run_requests or []
    return request


def refresh(location: Location, *, day: int) -> dg.ExecuteInProcessResult:
    """Tick, and run what was asked for."""
    request = tick(location, day=day)
    job = location.definitions().resolve_job_def(request.job_name or "everything")
    return job.execute_in_process(
        run_config=request.run_config, tags=request.tags, instance=location.instance, raise_on_error=False
    )


def steps(location: Location) -> dict[str, dict[str, Any]]:
    """What each model step of the last run did, from table ``runs``."""
    runs = Workspace(location.workspace).read("runs").sort("finished_at")
    return {report["name"]: report for report in json.loads(runs["computed"][-1])}


@pytest.mark.slow
def test_a_daily_refresh_with_one_percent_new_prompts_computes_one_percent(location: Location) -> None:
    location.write(SMALL_RECIPE, rows=PROMPTS)
    assert refresh(location, day=1).success
    first = steps(location)
    assert {"generations", "embeddings", "refusals", "policy_stats"} <= set(first)
    assert all(step["reused"] == 0 and step["computed"] >= PROMPTS for step in first.values()), first

    location.write(SMALL_RECIPE, rows=PROMPTS + 1)
    result = refresh(location, day=2)
    assert result.success
    second = steps(location)
    assert second.keys() == first.keys()
    for name, step in second.items():
        assert step["reused"] >= first[name]["computed"], name
        assert 0 < step["computed"] <= first[name]["computed"] / PROMPTS + 1, (name, step)
    assert second["generations"]["computed"] == 1
    assert metadata(result, "prompts")["since the last run"].startswith("1 added")


def test_a_tick_asks_for_the_whole_graph_and_says_which_schedule_asked(location: Location) -> None:
    location.write(SMALL_RECIPE)
    request = tick(location, day=1)
    assert request.tags["dagster/schedule_name"] == "daily_refresh"
    assert request.run_config == {}

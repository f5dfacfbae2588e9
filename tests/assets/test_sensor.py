"""The sensor on new source data."""

from __future__ import annotations

from typing import Any

import dagster as dg
import pytest

from assets.resources import CurationResource, RecipeChanges
from assets.sensors import new_source_data
from tests.assets.conftest import PLAIN, Location

# Dagster's own, while it sets up a resource outside a run.
pytestmark = pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run is deprecated:DeprecationWarning")


def tick(location: Location, cursor: str | None) -> Any:
    """One evaluation."""
    curation = CurationResource(
        workspace=str(location.workspace), recipe=str(location.recipe), changes=RecipeChanges()
    )
    resources = {"curation": curation}
    with dg.build_sensor_context(instance=location.instance, cursor=cursor, resources=resources) as context:
        return new_source_data.evaluate_tick(context)


def test_the_first_tick_asks_for_a_run(location: Location) -> None:
    location.write(PLAIN)
    assert len(tick(location, None).run_requests or []) == 1


def test_unchanged_sources_ask_for_none(location: Location) -> None:
    location.write(PLAIN)
    again = tick(location, tick(location, None).cursor)
    assert not again.run_requests
    assert again.skip_message == "none of the 1 sources has changed"


def test_new_rows_ask_for_a_run(location: Location) -> None:
    location.write(PLAIN)
    cursor = tick(location, None).cursor
    location.write(PLAIN, rows=13)
    assert len(tick(location, cursor).run_requests or []) == 1


def test_a_source_that_is_away_asks_for_none_and_says_so(location: Location) -> None:
    location.write(PLAIN)
    (location.folder / "pairs.jsonl").unlink()
    found = tick(location, None)
    assert not found.run_requests
    assert "pairs.jsonl" in (found.skip_message or "")

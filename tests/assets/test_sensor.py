"""The sensor on new source data."""

from __future__ import annotations

import os
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


def test_a_source_that_is_again_what_it_once_was_asks_for_a_run_of_its_own(location: Location) -> None:
    location.write(PLAIN)
    path = location.folder / "pairs.jsonl"
    before = path.read_bytes(), path.stat().st_mtime_ns
    ticks = [tick(location, None)]
    for content, at in ((b"{}\n", 0), before, (b"{}\n", 0)):
        path.write_bytes(content)
        os.utime(path, ns=(at, at))
        ticks.append(tick(location, ticks[-1].cursor))
    keys = [request.run_key for found in ticks for request in found.run_requests or []]
    # Dagster skips a request whose key has had a run.
    assert len(set(keys)) == len(keys) == 4
    assert not tick(location, ticks[-1].cursor).run_requests


def test_a_new_evaluation_set_asks_for_a_run(location: Location) -> None:
    folder = location.folder / "evaluations"
    folder.mkdir(parents=True)
    (folder / "one.jsonl").write_text('{"prompt": "What is the tallest tree in the park?"}\n')
    location.write(PLAIN | {"hygiene": {"contamination": {"against": ["evaluations"]}}})
    cursor = tick(location, None).cursor
    assert not tick(location, cursor).run_requests
    (folder / "one.jsonl").write_text('{"prompt": "Which is the tallest of the trees in the park?"}\n')
    assert len(tick(location, cursor).run_requests or []) == 1


def test_a_source_that_is_away_asks_for_none_and_says_so(location: Location) -> None:
    location.write(PLAIN)
    (location.folder / "pairs.jsonl").unlink()
    found = tick(location, None)
    assert not found.run_requests
    assert "pairs.jsonl" in (found.skip_message or "")

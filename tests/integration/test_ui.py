"""The UI as a user meets it: started with ``curation ui``, driven in a real browser.

Screenshots go to the folder that UI_SCREENSHOTS names, for a person to look at.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
import yaml

from tests.assets.conftest import PLAIN
from tests.stages.conftest import sentences

if TYPE_CHECKING:
    from playwright.sync_api import Page

CHROMIUM = "/usr/bin/chromium"
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
# Generous: a busy machine is slow, and a browser on it slower still. When idle, all of it takes a minute.
START_SECONDS, RUN_SECONDS, PAGE_MILLISECONDS = 900, 900, 300_000


def needed() -> None:
    """Skip where there is no browser; CI must have one."""
    missing = [] if shutil.which(CHROMIUM) else [CHROMIUM]
    try:
        import playwright  # noqa: F401
    except ImportError:
        missing.append("playwright")
    if missing and os.environ.get("CI") == "true":
        pytest.fail(f"not installed: {', '.join(missing)}")
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ask(url: str, query: str) -> Any:
    """The answer of Dagster's GraphQL."""
    body = json.dumps({"query": query}).encode()
    request = urllib.request.Request(f"{url}/graphql", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=RUN_SECONDS) as answer:
        return json.load(answer)["data"]


def until(seconds: float, met: Any, what: str) -> Any:
    """The first true value that ``met`` gives."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = met()
        if found:
            return found
        time.sleep(0.5)
    raise AssertionError(f"not within {seconds} s: {what}")


def last_run(url: str) -> str | None:
    runs = ask(url, "{runsOrError(limit: 1) {... on Runs {results {status}}}}")["runsOrError"]["results"]
    return runs[0]["status"] if runs else None


def run_ended(url: str) -> str | None:
    """How the last run ended; None while it has not."""
    status = last_run(url)
    return status if status in {"SUCCESS", "FAILURE", "CANCELED"} else None


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the UI's recipe, sources and workspace are."""
    return tmp_path_factory.mktemp("ui")


@pytest.fixture(scope="module")
def ui(folder: Path) -> Iterator[str]:
    """The address of a UI on a small recipe; every process of it is gone afterwards."""
    needed()
    rows = sentences(12)
    rows[0]["rejected"] = rows[0]["chosen"]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "recipe.yaml").write_text(yaml.safe_dump(PLAIN))
    port = free_port()
    command = [sys.executable, "-m", "curation.cli", "ui", str(folder / "workspace")]
    options = ["--recipe", str(folder / "recipe.yaml"), "--port", str(port)]
    environment = {k: v for k, v in os.environ.items() if k != "DAGSTER_HOME"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, *options], stdout=log, stderr=log, env=environment, start_new_session=True
        )
        try:
            url = f"http://127.0.0.1:{port}"
            until(START_SECONDS, lambda: _serves(url, process), f"the UI, see {folder / 'log'}")
            yield url
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=120)
            except subprocess.TimeoutExpired:
                pass
            finally:
                # What is left of the session, if the polite way was too slow.
                with_session(process.pid, signal.SIGKILL)
                process.wait(timeout=120)


def _serves(url: str, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, "curation ui ended by itself"
    try:
        urllib.request.urlopen(f"{url}/server_info", timeout=10).close()
    except OSError:
        return False
    return True


def with_session(session: int, number: int) -> None:
    """Send a signal to every process of a session; Dagster's servers are in groups of their own."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if os.getsid(int(entry.name)) == session:
                os.kill(int(entry.name), number)
        except (ProcessLookupError, PermissionError):
            continue


@pytest.fixture(scope="module")
def page(ui: str) -> Iterator[Page]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        page = browser.new_page(viewport={"width": 1600, "height": 1000}, base_url=ui)
        page.set_default_timeout(PAGE_MILLISECONDS)
        yield page
        browser.close()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    named = os.environ.get("UI_SCREENSHOTS")
    folder = Path(named) if named else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.mark.slow
def test_everything_is_materialized_from_the_browser_and_its_plots_show(
    ui: str, page: Page, pictures: Path
) -> None:
    page.goto("/asset-groups")
    button = page.get_by_role("button", name="Materialize all")
    button.wait_for()
    page.get_by_text("publication").first.wait_for()
    page.wait_for_timeout(3_000)
    page.screenshot(path=pictures / "graph.png")

    button.click()
    assert until(RUN_SECONDS, lambda: run_ended(ui), "the end of the run") == "SUCCESS"
    page.goto("/asset-groups")
    page.get_by_text("publication").first.wait_for()
    page.wait_for_timeout(3_000)
    page.screenshot(path=pictures / "graph-materialized.png")

    for asset in ("preference", "candidates"):
        page.goto(f"/assets/{asset}")
        row = page.get_by_role("row").filter(has_text="plot").filter(has_text="[Show Markdown]")
        row.wait_for()
        page.wait_for_timeout(2_000)
        page.screenshot(path=pictures / f"{asset}.png")
        row.get_by_text("[Show Markdown]").click()
        plot = page.locator(f"img[alt='{asset}']").first
        plot.wait_for()
        assert plot.evaluate("image => image.complete && image.naturalWidth > 100")
        page.wait_for_timeout(1_000)
        page.screenshot(path=pictures / f"{asset}-plot.png")

    page.goto("/assets/preference?view=checks")
    page.get_by_text("max_tie_rate").first.wait_for()
    page.screenshot(path=pictures / "checks.png")


def published(folder: Path) -> dict[str, bytes]:
    """Path to content of every published file."""
    datasets = folder / "workspace" / "datasets"
    return {str(p.relative_to(datasets)): p.read_bytes() for p in sorted(datasets.rglob("*")) if p.is_file()}


@pytest.mark.slow
def test_a_threshold_typed_into_the_launchpad_fails_its_check_and_blocks_publication(
    ui: str, folder: Path, page: Page, pictures: Path
) -> None:
    """It follows the test above, whose datasets are the last good ones."""
    before = published(folder)
    rows = pl.read_parquet(folder / "workspace/datasets/preference/data/*.parquet").height
    assert rows == 11

    page.goto("/locations/__repository__@assets.definitions/jobs/everything/playground")
    page.locator(".CodeMirror").first.click()
    page.keyboard.press("Control+A")
    page.keyboard.insert_text("resources: {changes: {config: {gates: {min_rows: 1000}}}}")
    page.get_by_text("No errors").wait_for()
    page.wait_for_timeout(1_000)
    page.screenshot(path=pictures / "launchpad.png")
    page.get_by_role("button", name="Launch Run").click()
    page.wait_for_url("**/runs/*")
    assert until(RUN_SECONDS, lambda: run_ended(ui), "the end of the run") == "FAILURE"
    reason = page.get_by_text("min_rows: 11 rows; allowed is at least 1,000").first
    reason.wait_for()
    page.screenshot(path=pictures / "run-blocked.png")

    page.goto("/assets/preference?view=checks&checkDetail=min_rows")
    page.get_by_text("11 rows; allowed is at least 1,000, 989 too few").first.wait_for()
    page.screenshot(path=pictures / "check-failed.png")
    page.goto("/assets/publish_preference")
    page.get_by_text("Failed in").first.wait_for()
    page.screenshot(path=pictures / "publication-blocked.png")
    assert published(folder) == before


@pytest.mark.slow
def test_the_schedule_and_the_sensor_are_there_and_off(ui: str, page: Page, pictures: Path) -> None:
    page.goto("/automation")
    page.get_by_text("daily_refresh").first.wait_for()
    page.get_by_text("new_source_data").first.wait_for()
    page.screenshot(path=pictures / "automation.png")
    running = page.get_by_role("switch", checked=True)
    assert running.count() == 0

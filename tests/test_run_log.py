"""The log of a run: every line says where it belongs, and none holds a text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from curation.errors import InputError
from curation.run_log import LOG_VARIABLE, log_of_run
from curation.workspace import Workspace
from tests.forgetting.test_forget import SECRET, Place
from tests.scripted_server import scripted


def test_run_stage_step_and_batch_are_on_the_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LOG_VARIABLE, "workspace")
    with scripted(lambda text, seed: (f"A planted answer about {text}", "stop")) as server:
        changes = {"generation": [{"model": server.model(), "samples": 1}], "mutations": None}
        place = Place(tmp_path / "place", **changes)
        place.write([SECRET], [])
        (place.folder / "more.jsonl").write_text(json.dumps({"prompt": "Another planted prompt?"}) + "\n")
        place.run()
    (path,) = (place.folder / "w" / "logs").iterdir()
    text = path.read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert {line["run"] for line in lines} == {path.stem}
    assert [lines[0]["event"], lines[-1]["event"]] == ["run started", "run ended"]
    stages = [line["stage"] for line in lines if line["event"] == "stage ended"]
    assert {"inputs", "generations", "candidates", "publish_preference", "report"} <= set(stages)
    batches = [line for line in lines if line["event"] == "batch"]
    assert {(b["stage"], b["step"]) for b in batches} == {("generations", "generations")}
    assert sum(b["rows"] for b in batches) == 2
    (step,) = (line for line in lines if line["event"] == "step ended")
    assert (step["computed"], step["failed"]) == (2, 0)
    for secret in (*SECRET.values(), "planted"):
        assert secret not in text


def test_a_stage_that_fails_is_logged_by_the_class_of_its_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log.jsonl"
    monkeypatch.setenv(LOG_VARIABLE, str(log))
    place = Place(tmp_path / "place")
    with pytest.raises(InputError):
        place.run()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(line["event"], line.get("outcome")) for line in lines][-2:] == [
        ("stage ended", "InputError"),
        ("run ended", "InputError"),
    ]


def test_an_object_store_takes_no_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LOG_VARIABLE, "workspace")
    workspace = Workspace("memory://bucket/w")
    with pytest.raises(InputError, match="object store"), log_of_run(workspace, "1", recipe="r"):
        pass

"""What ``curation status`` says of workspaces that are whole, empty, torn, held or newer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from curation.cli import app
from curation.errors import CurationError
from curation.journal import Journal
from curation.kept_replies import KeptReplies
from curation.pipeline import run
from curation.status import workspace_status
from curation.workspace import Workspace
from tests.forgetting.test_forget import BARE, Place
from tests.scripted_server import scripted
from tests.stages.conftest import sentences


def answer(text: str, seed: int) -> tuple[str, str]:
    return ("", "stop") if "number 1." in text else (f"An answer of some length to number {seed}.", "stop")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    found = Place(tmp_path / "place")
    found.write(sentences(4), sentences(6)[4:])
    return found


def shown(workspace: Path, *options: str) -> str:
    done = CliRunner().invoke(app, ["status", str(workspace), *options])
    assert done.exit_code == 0, done.stdout
    return done.stdout


def test_tables_datasets_runs_and_money_are_shown(place: Place) -> None:
    with scripted(answer) as server:
        model = server.model()
        changes = {
            "generation": [{"model": model, "samples": 1}],
            "costs": {"prices": {model: {"prompt": 1.0, "completion": 2.0}}},
            "mutations": None,
        }
        place.recipe.write_text(yaml.safe_dump(BARE | changes))
        place.run()
    found = json.loads(shown(place.folder / "w", "--json"))
    tables = {table["name"]: table for table in found["tables"]}
    assert tables["inputs"]["rows"] == 6
    assert tables["inputs"]["version"] == 0
    assert found["bytes"] == sum(p.stat().st_size for p in (place.folder / "w").rglob("*") if p.is_file())
    assert {d["name"]: sum(d["rows"].values()) for d in found["datasets"]} == {
        "preference": 6,
        "preference_unpaired": 12,
    }
    assert [(r["status"], r["computed"]) for r in found["runs"]] == [("done", 6)]
    rows = place.workspace.read("generations")
    (spent,) = found["models"]
    assert spent["rows"] == rows.height
    assert spent["cost"] == pytest.approx(rows["cost"].sum())
    assert spent["completion_tokens"] == rows["completion_tokens"].sum() > 0
    lines = shown(place.folder / "w")
    assert "6 computed, 0 reused, 0 failed" in lines
    assert "An answer of some length" not in lines


def test_failures_and_journals_say_how_to_go_on(place: Place) -> None:
    with scripted(lambda text, seed: ("x", "stop")) as server:
        model = server.model()
    place.recipe.write_text(
        yaml.safe_dump(BARE | {"generation": [{"model": model, "attempts": 1, "patience": 1}], "mutations": None})
    )
    with pytest.raises(CurationError):
        place.run()
    with Journal(place.folder / "w" / "journal" / "generations-0123.jsonl") as journal:
        journal.append({"row": {"request_id": "1"}})
        journal.append({"row": {"request_id": "2"}})
        journal.append({"failure": {"row_id": "3"}})
    with (place.folder / "w" / "journal" / "generations-0123.jsonl").open("ab") as file:
        file.write(b"0000 torn")
    replies = KeptReplies(place.folder / "w" / "journal" / "replies-rewards-0123.jsonl")
    for key in ("a", "b"):
        assert replies.find(key) is None
        replies.add(key, {"text": "x"})
    found = workspace_status(place.workspace)  # while whoever keeps them is at work
    assert [(r["step"], r["replies"]) for r in found.replies] == [("rewards", 2)]
    assert "replies-rewards-0123.jsonl" in shown(place.folder / "w")
    replies.close()
    assert len(found.journals) == 1
    assert next((j["step"], j["answers"], j["torn_end"]) for j in found.journals) == ("generations", 2, True)
    assert "asked for again" in shown(place.folder / "w")


def test_a_workspace_that_is_held_says_by_whom(place: Place) -> None:
    with place.workspace.lock("generations"):
        assert [lock["name"] for lock in workspace_status(place.workspace).locks] == ["generations"]
        assert "in use by" in shown(place.folder / "w")
    assert workspace_status(place.workspace).locks == []


def test_an_empty_workspace_says_how_to_begin(tmp_path: Path) -> None:
    Workspace(tmp_path / "w")
    assert "nothing has been run here yet" in shown(tmp_path / "w")


def test_a_folder_that_is_none_and_one_of_a_newer_version_are_errors(tmp_path: Path) -> None:
    runner = CliRunner()
    assert "is no workspace" in str(runner.invoke(app, ["status", str(tmp_path)]).exception)
    (tmp_path / "workspace.json").write_text('{"format_version": 99}')
    assert "newer version" in str(runner.invoke(app, ["status", str(tmp_path)]).exception)


def test_a_torn_table_is_named_and_the_others_are_shown(place: Place) -> None:
    run(place.recipe, workspace=place.workspace)
    for log in (place.folder / "w" / "tables" / "prompts" / "_delta_log").iterdir():
        log.write_bytes(log.read_bytes()[:40])
    lines = shown(place.folder / "w")
    assert "table prompts cannot be read" in lines
    assert "inputs" in lines

"""Versions of a published dataset over several runs, what is said of them, and pushing them. No model is called."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from typer.testing import CliRunner

from curation.cli import app
from curation.errors import GateError, InputError
from curation.pipeline import RunResult, run
from curation.publish.history import CHANGELOG, MANIFEST, History
from curation.publish.hub import HubOptions
from curation.stages.push import push_dataset
from curation.workspace import Workspace
from tests.hub_server import WRITER, Hub

Row = dict[str, Any]


def source_rows(count: int) -> list[Row]:
    """Pairs whose rejected answer is longer from one to the next, so that their length ratio falls."""
    return [
        {
            "prompt": f"Tell me of number {i}.",
            "chosen": f"Number {i} is a fine number, and it has been for years.",
            "rejected": f"No {'really ' * i}number {i}.",
        }
        for i in range(count)
    ]


class Place:
    """A recipe that calls no model, its source and its workspace."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.workspace = Workspace(folder / "workspace")

    def run(self, rows: list[Row] | None, **changes: Any) -> RunResult:
        recipe: dict[str, Any] = {
            "name": "small",
            "sources": [{"path": "pairs.jsonl", "name": "mine"}],
            "encoder": None,
            "rewards": [],
            "refusals": None,
            "policy": None,
            "selection": {"rules": [{"score": "length_ratio", "min": 0.5}]},
            "splits": {"train": 1.0, "test": 0.0},
            "publish": {"datasets": ["preference"], "license": "mit"},
        }
        if rows is not None:
            (self.folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (self.folder / "recipe.yaml").write_text(yaml.safe_dump(recipe | changes))
        return run(self.folder / "recipe.yaml", workspace=self.workspace)

    def folder_of(self, dataset: str = "preference") -> Path:
        return Path(self.workspace.dataset_path(dataset))

    def history(self, dataset: str = "preference") -> History:
        found = History.from_bytes((self.folder_of(dataset) / MANIFEST).read_bytes(), where="test")
        assert found is not None
        return found

    def reasons(self, dataset: str = "preference") -> dict[tuple[str, str], int]:
        return {(r.change, r.reason): r.rows for r in self.history(dataset).latest.reasons}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    (tmp_path / "place").mkdir()
    return Place(tmp_path / "place")


def state(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {str(p): (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.rglob("*") if p.is_file()}


def test_an_unchanged_run_writes_nothing(place, monkeypatch):
    place.run(source_rows(12))
    before = state(place.folder_of())
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "2000000000")
    place.run(source_rows(12))
    assert state(place.folder_of()) == before
    assert [v.name for v in place.history().versions] == ["v1"]


def test_new_and_removed_prompts_are_said_with_their_source(place):
    place.run(source_rows(12))
    place.run(source_rows(14)[1:])
    assert place.reasons() == {
        ("added", "its prompt is new (source mine)"): 2 if 13 in kept(14) else len(kept(14)) - len(kept(12)),
        ("removed", "its prompt is gone (source mine)"): 1,
    }
    assert "rows of source mine: 12 → 13" in place.history().latest.settings


def kept(count: int) -> list[int]:
    """The pairs of which the chosen answer is at least half as long as the rejected one."""
    return [i for i, row in enumerate(source_rows(count)) if len(row["chosen"]) >= 0.5 * len(row["rejected"])]


def test_a_threshold_is_said_as_the_reason_and_as_a_setting(place):
    place.run(source_rows(20))
    tighter = {"rules": [{"score": "length_ratio", "min": 0.9}]}
    place.run(None, selection=tighter)
    assert [change for change, _ in place.reasons()] == ["removed"]
    assert list(place.reasons()) == [("removed", "dropped by length_ratio_below_bound")]
    assert "recipe selection.rules.1.min: 0.500 → 0.900" in place.history().latest.settings
    place.run(None)
    assert list(place.reasons()) == [("added", "no longer dropped by length_ratio_below_bound")]
    assert [v.name for v in place.history().versions] == ["v1", "v2", "v3"]


def test_a_prompt_that_hygiene_drops_is_not_said_to_be_gone_from_its_source(place):
    rows = source_rows(12)
    place.run(rows)
    (place.folder / "evaluation.jsonl").write_text(json.dumps({"prompt": rows[3]["prompt"]}) + "\n")
    place.run(None, hygiene={"contamination": {"against": [str(place.folder / "evaluation.jsonl")]}})
    (reason,) = place.reasons()
    assert reason[0] == "removed"
    assert reason[1].startswith("dropped by evaluation_")


def test_the_rows_of_every_change_are_kept_by_id(place):
    place.run(source_rows(12))
    gone = pl.read_parquet(place.folder_of() / "data/train-00000-of-00001.parquet")["pair_id"][0]
    place.run(source_rows(12)[1:])
    place.run(source_rows(12))
    listed = [pl.read_parquet(place.folder_of() / f"changes/v{i}.parquet") for i in (2, 3)]
    assert [frame.select("pair_id", "change").rows() for frame in listed] == [
        [(gone, "removed")],
        [(gone, "added")],
    ]
    text = (place.folder_of() / CHANGELOG).read_text()
    assert re.findall(r"^## (v\d)", text, flags=re.MULTILINE) == ["v3", "v2", "v1"]
    assert gone in text


def test_whose_the_log_probabilities_are_is_in_the_card_or_they_go_by_other_names(place, caplog):
    policy = {"batch_rows": 4}
    place.run(source_rows(6), policy=policy)
    assert "of the small bundled policy, which nobody trains" in caplog.text
    caplog.clear()
    read = {True: pl.read_parquet(place.folder_of() / "data/*.parquet")}
    assert "for the reference of whatever is trained" in (place.folder_of() / "README.md").read_text()
    plain = {"datasets": ["preference"], "license": "mit", "reference_logps": False}
    place.run(None, policy=policy, publish=plain)
    read[False] = pl.read_parquet(place.folder_of() / "data/*.parquet")
    assert "ref_chosen_logps" not in read[False].columns
    assert read[False]["chosen_logp"].to_list() == read[True]["ref_chosen_logps"].to_list()
    assert "whatever is trained" not in (place.folder_of() / "README.md").read_text()
    assert "bundled policy" not in caplog.text


def test_datasets_of_answers_say_why_too(place):
    publish = {"datasets": ["preference_unpaired", "sft"]}
    place.run(source_rows(20), publish=publish)
    place.run(None, publish=publish, selection={"rules": [{"score": "length_ratio", "min": 0.9}]})
    for dataset in ("preference_unpaired", "sft"):
        assert list(place.reasons(dataset)) == [("removed", "dropped by length_ratio_below_bound")]


def test_an_answer_that_changed_is_another_row(place):
    rows = source_rows(8)
    place.run(rows)
    rows[2] = {**rows[2], "chosen": "Two is the only even prime, as everybody knows."}
    place.run(rows)
    assert place.reasons() == {("added", "an answer is new"): 1, ("removed", "an answer is gone"): 1}


def test_a_label_that_a_person_corrected_is_said_to_be_turned_round(place):
    plain = "It is a number like {} others, no more than that."
    rows = [row | {"rejected": plain.format(i)} for i, row in enumerate(source_rows(6))]
    place.run(rows)
    rows[2] = {"prompt": rows[2]["prompt"], "chosen": rows[2]["rejected"], "rejected": rows[2]["chosen"]}
    place.run(rows)
    assert place.reasons() == {
        ("added", "its pair was the other way round before"): 1,
        ("removed", "its pair is turned round"): 1,
    }


def test_no_text_and_no_path_is_in_the_history(place):
    place.run(source_rows(12))
    place.run(source_rows(10))
    for name in (MANIFEST, CHANGELOG):
        content = (place.folder_of() / name).read_text()
        assert "fine number" not in content
        assert str(place.folder) not in content


def test_a_gate_that_fails_keeps_the_last_version_and_stops_a_push(place, tmp_path):
    place.run(source_rows(12))
    before = state(place.folder_of())
    with pytest.raises(GateError, match="min_rows"):
        place.run(source_rows(10), gates={"min_rows": 50})
    assert state(place.folder_of()) == before
    with pytest.raises(GateError, match="min_rows"):
        push_dataset(place.workspace, "preference", f"file://{tmp_path}/copy")
    assert not (tmp_path / "copy").exists()


def test_a_source_that_vanished_is_said_and_the_last_version_stays(place, tmp_path):
    place.run(source_rows(12))
    before = state(place.folder_of())
    (place.folder / "pairs.jsonl").unlink()
    with pytest.raises(InputError, match=r"pairs\.jsonl.*what was published before stays"):
        place.run(None)
    assert state(place.folder_of()) == before
    assert push_dataset(place.workspace, "preference", f"file://{tmp_path}/copy").outcome == "pushed"


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ("preferences", r"no dataset is called 'preferences' \(did you mean 'preference'\?\)"),
        ("../tables", "no dataset is called '../tables'"),
        ("a/b", "no dataset is called 'a/b'"),
        ("retrieval", r"has not published 'retrieval', but preference: name it"),
    ],
)
def test_a_dataset_that_is_not_there_is_said(place, dataset, message):
    place.run(source_rows(12))
    with pytest.raises(InputError, match=message):
        push_dataset(place.workspace, dataset, "team/pairs")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("---\n{{ header }}\n---\n{{ data.licence }}\n", r"card\.md.*no attribute 'licence'"),
        ("---\n{{ header }}\n---\n{{ fields }}\n", r"card\.md.*'fields' is undefined"),
        ("# {{ data.name }}\n", r"card\.md.*does not begin with the Hub's header"),
    ],
)
def test_a_card_template_that_does_not_do_is_said_and_nothing_is_published(place, template, message):
    (place.folder / "card.md").write_text(template)
    with pytest.raises(InputError, match=message):
        place.run(source_rows(12), publish={"card_template": "card.md"})
    assert not place.folder_of().exists()


def test_a_card_template_of_ones_own_is_used(place):
    (place.folder / "card.md").write_text("---\n{{ header }}\n---\n# Ours: {{ data.name }}\n")
    place.run(source_rows(12), publish={"card_template": "card.md"})
    assert (place.folder_of() / "README.md").read_text().endswith("---\n# Ours: small: preference\n")


def test_the_recipe_pushes_where_it_says(place, tmp_path):
    publish = {"datasets": ["preference"], "hub": {"repos": {"preference": f"file://{tmp_path}/copy"}}}
    result = place.run(source_rows(12), publish=publish)
    assert result.stages[-1].stage == "push"
    assert (tmp_path / "copy" / "README.md").read_bytes() == (place.folder_of() / "README.md").read_bytes()
    with pytest.raises(InputError, match=r"publish.hub.repos has 'sft', which is not among publish.datasets"):
        place.run(None, publish={"datasets": ["preference"], "hub": {"repos": {"sft": "a/b"}}})


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setenv("HF_TOKEN", WRITER)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    server = Hub()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    yield server
    server.close()


def loaded_from(hub: Hub, folder: Path, code: str) -> str:
    """What a user sees who loads from the Hub, in a process of their own."""
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "home"), "HF_TOKEN": WRITER}
    environment |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False, timeout=900
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_what_is_loaded_from_the_hub_is_what_was_published(place, hub, tmp_path):
    place.run(source_rows(20))
    assert push_dataset(place.workspace, "preference", "team/pairs").outcome == "pushed"
    assert push_dataset(place.workspace, "preference", "team/pairs").outcome == "unchanged"
    first = pl.read_parquet(place.folder_of() / "data/train-00000-of-00001.parquet")
    place.run(source_rows(22)[3:])
    result = push_dataset(place.workspace, "preference", "team/pairs")
    assert result.outcome == "pushed"
    assert list(hub.dataset("team/pairs").tags) == ["v1", "v2"]
    code = (
        "import datasets\n"
        f"datasets.load_dataset('team/pairs')['train'].to_parquet({str(tmp_path / 'main.parquet')!r})\n"
        "old = datasets.load_dataset('team/pairs', revision='v1')['train']\n"
        f"old.to_parquet({str(tmp_path / 'v1.parquet')!r})\n"
    )
    loaded_from(hub, tmp_path, code)
    now = pl.read_parquet(place.folder_of() / "data/train-00000-of-00001.parquet")
    assert pl.read_parquet(tmp_path / "main.parquet").equals(now)
    assert pl.read_parquet(tmp_path / "v1.parquet").equals(first)


def test_the_command_shows_what_it_would_do_and_does_it(place, hub):
    place.run(source_rows(12))
    arguments = ["push", str(place.workspace.url), "preference", "team/pairs"]
    shown = CliRunner().invoke(app, [*arguments, "--dry-run"])
    assert shown.exit_code == 0, shown.output
    assert "would push: v1 to" in shown.output
    assert "+ data/train-00000-of-00001.parquet" in shown.output
    assert "would create the private repository" in shown.output
    assert not hub.repos
    done = CliRunner().invoke(app, arguments)
    assert "pushed: v1 to" in done.output
    assert "unchanged: v1 to" in CliRunner().invoke(app, arguments).output
    assert WRITER not in shown.output + done.output


def test_the_recipe_may_ask_for_a_pull_request(place, hub):
    place.run(source_rows(12))
    push_dataset(place.workspace, "preference", "team/pairs")
    place.run(source_rows(10))
    options = HubOptions(pull_request=True)
    assert push_dataset(place.workspace, "preference", "team/pairs", options=options).outcome == "proposed"
    assert [title[:13] for title in hub.dataset("team/pairs").pulls] == ["preference v2"]

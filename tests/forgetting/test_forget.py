"""A prompt, a source or an answer is forgotten: nothing is left, nothing else goes, no run brings it back."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from typer.testing import CliRunner

from curation.cli import app
from curation.errors import InputError, WorkspaceError
from curation.forgetting import forget as forgetting
from curation.forgetting.forget import Removed, forget, what_would_go
from curation.pipeline import run
from curation.review.sample import review_sample
from curation.review.sheets import write_review
from curation.text import prompt_id, response_id
from curation.workspace import FORGETTING, Workspace
from tests.scripted_server import scripted
from tests.stages.conftest import ROOT, sentences

SECRET = {
    "prompt": "Zanzibarquux tells you what of the hidden plovercat harbour?",
    "chosen": "The plovercatone of Zanzibarquux lives under the harbour wall.",
    "rejected": "Plovercattwo is in no list that Zanzibarquux has ever seen.",
}
MARKS = ("zanzibarquux", "plovercat")
BARE: dict[str, Any] = {
    "name": "bare", "sources": [{"path": "pairs.jsonl"}, {"path": "more.jsonl"}], "encoder": None, "rewards": [],
    "refusals": None, "policy": None, "splits": {"near_duplicates": None}, "pairs": {"strategies": ["provided"]},
    "mutations": {"kinds": ["ascii", "atbash"], "per_prompt": 2},
    "gates": {"max_tie_rate": 1.0, "max_duplicate_rate": 1.0},
    "publish": {"datasets": ["preference", "preference_unpaired"], "license": "apache-2.0"},
}  # fmt: skip


class Place:
    """A recipe with two sources, and its workspace."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.recipe = folder, folder / "recipe.yaml"
        self.recipe.write_text(yaml.safe_dump(BARE | changes))

    @property
    def workspace(self) -> Workspace:
        return Workspace(self.folder / "w")

    def write(self, rows: list[dict[str, str]], more: list[dict[str, str]] | None = None) -> None:
        for name, lines in (("pairs", rows), ("more", sentences(20)[16:] if more is None else more)):
            (self.folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))

    def run(self, **options: Any) -> None:
        run(self.recipe, workspace=None if options else self.workspace, **options)

    def forget(self, *names: str) -> Removed:
        plan, _ = what_would_go(self.workspace, names)
        return forget(self.workspace, plan)

    def published(self) -> dict[str, list[dict[str, Any]]]:
        folder = self.folder / "w" / "datasets"
        return {
            str(path.relative_to(folder)): pl.read_parquet(path).to_dicts()
            for path in sorted(folder.glob("*/[de]*/*.parquet"))
        }


def holding(folder: Path, *marks: str) -> list[str]:
    """Files with a mark in their bytes, or in a value of a parquet file: another search than the one under test."""
    found = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        data = path.read_bytes()
        if path.suffix == ".parquet":
            data += json.dumps(pl.read_parquet(path).to_dicts(), default=str).encode()
        if any(mark.encode() in data.lower() for mark in marks):
            found.append(str(path.relative_to(folder)))
    return found


def with_secret(count: int = 8) -> list[dict[str, str]]:
    rows = sentences(count)
    return [*rows[: count // 2], SECRET, *rows[count // 2 :]]


def secret_id() -> str:
    return prompt_id([{"role": "user", "content": SECRET["prompt"]}])


def ids_of(place: Place, secret: str) -> list[str]:
    made = place.workspace.read("mutations").filter(pl.col("parent_id") == secret)["prompt_id"]
    return [secret, *made, *(response_id(secret, SECRET[side]) for side in ("chosen", "rejected"))]


@pytest.fixture(scope="session")
def two_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs, so that there is a history; the second one has other mutations, and rows more."""
    found = Place(tmp_path_factory.mktemp("forgetting") / "place")
    found.write(with_secret())
    found.run()
    found.recipe.write_text(yaml.safe_dump(BARE | {"mutations": {"kinds": ["caesar"], "per_prompt": 1}}))
    found.write(with_secret(10))
    found.run()
    assert len(holding(found.folder / "w", *MARKS)) > 8
    return found.folder


@pytest.fixture
def place(two_runs: Path, tmp_path: Path) -> Place:
    """A copy of the two runs."""
    shutil.copytree(two_runs, tmp_path / "place")
    return Place(tmp_path / "place", mutations={"kinds": ["caesar"], "per_prompt": 1})


def test_a_prompt_goes_from_every_table_version_dataset_and_file(place: Place) -> None:
    workspace, secret = place.workspace, secret_id()
    ids = ids_of(place, secret)
    assert len(ids) == 4
    write_review(review_sample(workspace, "preference", rows=30, seed=0), place.folder / "w" / "r", name="r")
    run(place.recipe, workspace=Workspace(place.folder / "w", trial=True))
    names = ("inputs", "candidates", "pairs")
    untouched = {name: workspace.read(name).filter(~pl.col("prompt_id").is_in(ids)) for name in names}
    done = place.forget(secret[:10])
    assert done.searched is not None
    assert done.searched.left == []
    assert done.datasets["datasets/preference"] == (1, 15)
    assert holding(place.folder / "w", *MARKS, *ids) == []
    for name, rows in untouched.items():
        assert workspace.read(name).to_dicts() == rows.to_dicts(), name
    assert (place.folder / "w" / "r" / "review.csv").read_text(encoding="utf-8-sig").count("\n") > 10


def test_a_rerun_does_not_bring_it_back_and_equals_a_run_that_never_had_it(place: Place, tmp_path: Path) -> None:
    secret = secret_id()
    ids = ids_of(place, secret)
    place.forget(secret)
    after_forgetting = place.published()
    place.run()
    never = Place(tmp_path / "never", mutations={"kinds": ["caesar"], "per_prompt": 1})
    never.write(sentences(10))
    never.run()
    assert holding(place.folder / "w", *MARKS, *ids) == []
    assert after_forgetting == place.published()
    for name in ("prompts", "mutations", "candidates", "preference", "preference_unpaired"):
        mine, theirs = (p.workspace.read(name).drop("split", strict=False) for p in (place, never))
        assert mine.to_dicts() == theirs.to_dicts(), name
    rejected = place.workspace.read("rejects").filter(pl.col("rule") == "forgotten")
    assert rejected.select("row_id", "value").rows() == [("pairs#5", None)]
    before = place.workspace.version("preference")
    place.run()
    assert place.workspace.version("preference") == before


def test_a_source_goes_but_for_what_another_one_brings_too(place: Place) -> None:
    shared = sentences(20)[16]
    place.write(with_secret(10), [*sentences(20)[16:18], SECRET])
    place.run()
    place.write(
        [*with_secret(10), shared | {"rejected": "Another answer, from pairs alone."}], sentences(20)[16:18]
    )
    place.run()
    done = place.forget("more")
    assert any("2 prompts stay" in note for note in done.notes)
    assert done.searched is not None
    assert done.searched.left == []
    left = place.workspace.read("inputs")
    assert set(left["source"]) == {"pairs"}
    kept = prompt_id([{"role": "user", "content": shared["prompt"]}])
    assert kept in set(place.workspace.read("prompts")["prompt_id"])
    assert set(place.workspace.read("candidates").filter(pl.col("prompt_id") == kept)["response"]) == {
        shared["chosen"],
        "Another answer, from pairs alone.",
    }
    assert holding(place.folder / "w", "number 17.", shared["rejected"].lower()) == []
    place.run()
    assert holding(place.folder / "w", "number 17.", shared["rejected"].lower()) == []
    assert holding(place.folder / "w", MARKS[0]) != []


def test_an_answer_goes_and_the_prompt_stays(place: Place) -> None:
    secret = secret_id()
    gone = response_id(secret, SECRET["rejected"])
    place.forget(gone)
    assert holding(place.folder / "w", "plovercattwo", gone) == []
    assert secret in set(place.workspace.read("prompts")["prompt_id"])
    place.run()
    assert holding(place.folder / "w", "plovercattwo", gone) == []
    assert place.workspace.read("rejects").filter(pl.col("rule") == "forgotten").height == 1


def test_answers_that_were_paid_for_go_with_the_prompt_and_other_answers_are_not_paid_for_again(
    tmp_path: Path,
) -> None:
    def answer(text: str, seed: int) -> tuple[str, str]:
        return f"Generated for {text.rpartition(']')[2].strip()} with seed {seed}, at some length.", "stop"

    place = Place(tmp_path / "paid")
    place.write(with_secret(4), sentences(20)[18:])
    with scripted(answer) as server:
        changes = {
            "generation": [{"model": server.model(), "samples": 2}],
            "mutations": {"kinds": ["slang"], "per_prompt": 1, "model": {"model": server.model()}},
        }
        place.recipe.write_text(yaml.safe_dump(BARE | changes))
        place.run()
        asked = len(server.asked)
        mutated = (
            place.workspace.read("mutations").filter(pl.col("parent_id") == secret_id())["prompt_id"].to_list()
        )
        assert len(mutated) == 1
        kept = sentences(1)[0]["prompt"]
        one = place.workspace.read("generations").filter(pl.col("response").str.contains(kept, literal=True))
        lost = response_id(one["prompt_id"][0], one["response"][0])
        done = place.forget(secret_id(), lost)
        assert done.searched is not None
        assert done.searched.left == []
        assert holding(place.folder / "w", *MARKS, *mutated, lost) == []
        place.run()
        assert len(server.asked) == asked
        assert holding(place.folder / "w", *MARKS, *mutated, lost) == []
        failed = place.workspace.read("failures")
        assert set(failed["rule"]) == {"forgotten"}
        run(place.recipe, workspace=place.workspace, retry_failed=True)
        assert len(server.asked) == asked


@pytest.mark.parametrize(
    "step", ["cut_tables", "drop_old_versions", "withdraw_rows", "cut_files", "search_workspace"]
)
def test_a_process_that_is_killed_half_way_is_followed_by_another(place: Place, step: str) -> None:
    secret = secret_id()
    ids = ids_of(place, secret)
    script = (
        "import os, signal, sys\n"
        "from curation.forgetting import forget as f\n"
        f"f.{step} = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL) if not k.get('dry_run') else {{}}\n"
        "from curation.workspace import Workspace\n"
        "w = Workspace(sys.argv[1])\n"
        "plan = f.Forgetting(s := f.select(v := f.Versions(f._places(w)), [sys.argv[2]]), None)\n"
        "f.add_texts(v, s)\n"
        "f.forget(w, plan)\n"
    )
    command = [sys.executable, "-c", script, str(place.folder / "w"), secret]
    killed = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    assert killed.returncode == -9, killed.stderr
    with pytest.raises(WorkspaceError, match="cut short"):
        place.run()
    done = place.forget(secret)
    assert done.searched is not None
    assert done.searched.left == []
    assert not (place.folder / "w" / FORGETTING).exists()
    assert holding(place.folder / "w", *MARKS, *ids) == []
    place.run()
    assert holding(place.folder / "w", *MARKS, *ids) == []


def test_what_the_search_finds_in_other_files_is_said(place: Place) -> None:
    (place.folder / "w" / "notes.txt").write_text(f"to do: {SECRET['chosen']}")
    args = ["forget", str(place.folder / "w"), secret_id(), "--reason", "asked for"]
    runner = CliRunner()
    dry = runner.invoke(app, [*args, "--dry-run"])
    assert dry.exit_code == 0
    assert "nothing was removed" in dry.stdout
    assert runner.invoke(app, args, input="n\n").exit_code == 1
    assert secret_id() in set(place.workspace.read("prompts")["prompt_id"])
    done = runner.invoke(app, [*args, "--yes"])
    assert done.exit_code == 1
    assert "something is left in 1 files" in done.stdout
    assert f"{os.sep}notes.txt" in done.stdout
    assert "out of reach" in done.stdout
    assert SECRET["chosen"] not in done.stdout
    assert set(place.workspace.read("forgotten")["reason"]) == {"asked for"}
    again = runner.invoke(app, args)
    assert again.exit_code == 0
    assert "forgotten before" in again.stdout


def test_a_name_that_nothing_has_is_an_error(place: Place) -> None:
    with pytest.raises(InputError, match="no prompt, answer or source 'nothing'"):
        place.forget("nothing")


def test_a_dataset_of_which_nothing_is_left_goes_whole(tmp_path: Path) -> None:
    place = Place(tmp_path / "one", mutations=None)
    place.write([SECRET], sentences(1))
    place.run()
    place.forget("pairs", "more")
    assert not (place.folder / "w" / "datasets" / "preference").exists()
    assert holding(place.folder / "w", *MARKS) == []


def test_a_text_that_other_rows_hold_too_stays_with_them(place: Place) -> None:
    place.write([*with_secret(10), {**sentences(30)[29], "rejected": SECRET["rejected"]}])
    place.run()
    done = place.forget(secret_id())
    assert any("1 of its texts stand in other rows" in note for note in done.notes)
    assert done.searched is not None
    assert done.searched.left == []
    kept = place.workspace.read("candidates").filter(pl.col("response") == SECRET["rejected"])
    assert kept.height == 1
    assert holding(place.folder / "w", "plovercatone") == []


def test_a_short_answer_takes_no_name_and_no_longer_answer_with_it(tmp_path: Path) -> None:
    place = Place(tmp_path / "short")
    sign = {"prompt": "What does the red sign say?", "chosen": "stop", "rejected": "It says that one may go on."}
    place.write([*sentences(3), sign], sentences(4)[3:])
    with scripted(lambda text, seed: (f"The sign says stop to all who come near it, {seed}.", "stop")) as server:
        changes = {"generation": [{"model": server.model(), "samples": 1}], "mutations": None}
        place.recipe.write_text(yaml.safe_dump(BARE | changes))
        place.run()
        paid, asked = place.workspace.read("generations"), len(server.asked)
        assert set(paid["finish_reason"]) == {"stop"}
        gone = response_id(prompt_id([{"role": "user", "content": sign["prompt"]}]), "stop")
        done = place.forget(gone)
        assert done.rows["candidates"] == 1
        assert place.workspace.read("generations").equals(paid)
        place.run()
        assert len(server.asked) == asked
    answers = place.workspace.read("candidates")
    # The pair was all that brought the prompt of the sign.
    assert answers.filter(pl.col("origin") == "generated").height == paid.height - 1
    assert gone not in set(answers["candidate_id"])


def test_a_source_takes_no_rejects_of_one_whose_name_begins_alike(tmp_path: Path) -> None:
    sources = [{"path": "pairs.jsonl"}, {"path": "more.jsonl", "name": "pairs#2"}]
    place = Place(tmp_path / "alike", sources=sources, mutations=None)
    place.write(sentences(4), [*sentences(6)[4:], {"prompt": "What now?", "chosen": "", "rejected": "Nothing."}])
    place.run()
    place.forget("pairs")
    assert set(place.workspace.read("inputs")["source"]) == {"pairs#2"}
    assert place.workspace.read("rejects")["row_id"].to_list() == ["pairs#2#2"]


def test_a_journal_loses_only_what_is_forgotten(place: Place) -> None:
    from curation.journal import Journal

    folder = place.folder / "w" / "journal"
    entries = [
        {"row": {"request_id": "1" * 32, "prompt_id": secret_id(), "response": "No secret."}},
        {"row": {"request_id": "2" * 32, "prompt_id": "f" * 32, "response": "An answer that was paid for."}},
    ]
    with Journal(folder / "generations-0.jsonl") as journal:
        for entry in entries:
            journal.append(entry)
    place.forget(secret_id())
    with Journal(folder / "generations-0.jsonl") as journal:
        assert journal.read().entries == entries[1:]


def test_forgetting_waits_for_no_run_and_disturbs_none(place: Place) -> None:
    with place.workspace.lock("generations"), pytest.raises(WorkspaceError, match="in use"):
        place.forget(secret_id())
    assert forgetting._read_plan(place.workspace) is None
    assert secret_id() in set(place.workspace.read("prompts")["prompt_id"])

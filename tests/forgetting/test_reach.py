"""Forgetting reaches what is kept elsewhere: indexes, heads, scores of a rescorer, corpora, replies of models."""

from __future__ import annotations

import gzip
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from typer.testing import CliRunner

from curation.cli import app
from curation.forgetting import scores
from curation.forgetting.forget import forget, what_would_go
from curation.forgetting.matching import Needles
from curation.forgetting.search import search_workspace
from curation.models.rewards.heads import HEADS_FILE, known_prompts, prompt_keys
from curation.stages.embeddings import text_id
from curation.text import response_id
from curation.workspace import Workspace
from tests.forgetting.test_forget import BARE, MARKS, SECRET, Place, holding, secret_id
from tests.scripted_server import scripted
from tests.stages.conftest import sentences

QUOTING = f"A book of harbours has a page on it: {SECRET['chosen']} So much for that page."
MINED: dict[str, Any] = BARE | {
    "encoder": {"batch_rows": 64}, "rewards": [{"model": "trained"}], "mutations": None,
    "reward_training": {"heads": 2, "folds": 2},
    "negatives": {
        "num_negatives": 5, "relative_margin": None, "index": "ivf", "corpus": "corpus.jsonl",
        "rescorer": {"model": f"python:{__name__}:worth", "kind": "reward", "margin": 0.1, "depth": 30},
    },
    "publish": {"datasets": ["preference", "retrieval"], "license": "apache-2.0"},
}  # fmt: skip


def worth(prompts: list[Any], answers: list[str]) -> list[float]:
    """A rescorer of a user's own."""
    right = ("People have known", SECRET["chosen"])
    return [float(answer.startswith(right)) for answer in answers]


def corpus(folder: Path, *texts: str) -> None:
    lines = ("The tide takes a little longer than half a day.", SECRET["rejected"], *texts)
    (folder / "corpus.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in lines))


@pytest.fixture(scope="session")
def one_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with an index of the corpus, heads of its own, and a rescorer."""
    place = Place(tmp_path_factory.mktemp("reach") / "place", **MINED)
    place.write([*sentences(4), SECRET], sentences(20)[18:])
    corpus(place.folder, QUOTING)
    place.run()
    return place.folder


@pytest.fixture
def mined(one_run: Path, tmp_path: Path) -> Place:
    shutil.copytree(one_run, tmp_path / "place")
    return Place(tmp_path / "place", **MINED)


def with_anchors(workspace: Workspace) -> set[str]:
    """The names of all scores, whoever the anchor is, with a document that holds a mark."""
    anchors = workspace.read("prompts")["prompt_id"]
    return {response_id(anchor, text) for anchor in anchors for text in (QUOTING, *SECRET.values())}


def test_a_prompt_goes_from_index_embeddings_scores_and_negatives_and_stays_away(mined: Place) -> None:
    workspace, folder, secret = mined.workspace, mined.folder / "w", secret_id()
    ids = {text_id(text) for text in (QUOTING, *SECRET.values())}
    named = with_anchors(workspace)
    before = workspace.read("rewards")
    negatives = workspace.read("retrieval")
    marked = [
        row for row in negatives.iter_rows(named=True)
        if row["anchor_id"] != secret and any(mark in json.dumps(row).lower() for mark in MARKS)
    ]  # fmt: skip
    # All of it is there, or this test would show nothing.
    assert marked
    assert len(holding(folder / "indexes", *ids)) == 1
    assert before.filter(pl.col("candidate_id").is_in(named)).height > 6
    assert workspace.read("embeddings").filter(pl.col("text_id").is_in(ids)).height == 4
    assert len(holding(folder / "datasets" / "retrieval" / "data", *MARKS)) == 1

    done = mined.forget(secret)
    assert done.searched is not None
    assert (done.searched.left, done.searched.unread) == ([], [])
    assert any("2 documents of the corpus hold" in note for note in done.notes)
    assert any(line.startswith("index indexes/") for line in done.others)
    assert holding(folder, *MARKS, *ids, *named, secret) == []
    after = workspace.read("rewards")
    own = pl.col("model").str.starts_with("reward_heads@")
    others = ~pl.col("candidate_id").is_in([*named, *_of(workspace, secret)])
    assert after.filter(others).to_dicts() == before.filter(others & ~own).to_dicts()
    assert after.height > 20
    assert workspace.read("retrieval").height == negatives.height - len(marked) - 1

    mined.run()
    assert holding(folder, *MARKS, *ids, *named, secret) == []
    assert workspace.read("retrieval").height == negatives.height - 1
    turned_away = workspace.read("rejects").filter(pl.col("rule") == "forgotten").sort("row_id")
    assert turned_away["row_id"].to_list() == ["corpus#1", "corpus#2", "pairs#4"]
    assert turned_away["value"].null_count() == 3


def _of(workspace: Workspace, prompt: str) -> set[str]:
    """The names of all scores with this anchor, which the workspace's own texts and the corpus allow."""
    texts = {row["response"] for row in sentences_and_corpus()}
    return {response_id(prompt, text) for text in texts}


def sentences_and_corpus() -> list[dict[str, str]]:
    rows = [*sentences(4), *sentences(20)[18:], SECRET]
    answers = [row[side] for row in rows for side in ("chosen", "rejected")]
    return [{"response": text} for text in (*answers, QUOTING, "The tide takes a little longer than half a day.")]


def test_all_scores_of_a_rescorer_go_where_the_corpus_is_gone(mined: Place, one_run: Path) -> None:
    workspace = mined.workspace
    answers = set(workspace.read("candidates")["candidate_id"])
    assert not set(workspace.read("rewards")["candidate_id"]) <= answers
    # The table of the runs names the file where the first run read it.
    moved = (one_run / "corpus.jsonl").rename(one_run / "moved.jsonl")
    try:
        done = mined.forget(secret_id())
    finally:
        moved.rename(one_run / "corpus.jsonl")
    notes = " ".join(done.notes)
    assert "corpus.jsonl cannot be read" in notes
    assert "a corpus cannot be read to see which of them" in notes
    # What is left are scores of prompts with their own answers.
    assert set(workspace.read("rewards")["candidate_id"]) == set(workspace.read("candidates")["candidate_id"])
    assert done.searched is not None
    assert done.searched.left == []


def test_too_many_anchors_and_documents_are_not_tried_one_by_one(
    mined: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scores, "_MOST_HASHES", 10)
    plan, going = what_would_go(mined.workspace, [secret_id()])
    assert any("there are too many to see which of them" in note for note in going.notes)
    rows = going.rows["rewards"]
    assert forget(mined.workspace, plan).rows["rewards"] == rows
    answers = set(mined.workspace.read("candidates")["candidate_id"])
    assert set(mined.workspace.read("rewards")["candidate_id"]) == answers


def test_heads_that_learned_from_an_answer_go_with_it_and_with_what_they_said(mined: Place) -> None:
    workspace, folder = mined.workspace, mined.folder / "w"
    theirs = pl.col("model").str.starts_with("reward_heads@")
    assert workspace.read("rewards").filter(theirs).height == 14
    assert knows(folder / "models" / "reward_heads", secret_id())
    done = mined.forget(response_id(secret_id(), SECRET["chosen"]))
    assert not (folder / "models").exists()
    assert any(line.startswith("models removed") for line in done.others)
    assert workspace.read("rewards").filter(theirs).is_empty()
    mined.run()
    assert not knows(folder / "models" / "reward_heads", secret_id())
    assert workspace.read("rewards").filter(theirs).height == 12


def knows(heads: Path, prompt: str) -> bool:
    return bool(np.isin(prompt_keys([prompt]), known_prompts((heads / HEADS_FILE).read_bytes())).any())


def test_heads_of_the_users_own_that_learned_from_it_are_named(mined: Place) -> None:
    folder = mined.folder / "w"
    shutil.copytree(folder / "models" / "reward_heads", folder / "mine")
    done = mined.forget(secret_id())
    assert done.searched is not None
    assert done.searched.left == [str(folder / "mine" / HEADS_FILE)]


def test_what_cannot_be_searched_is_named_and_not_called_clean(tmp_path: Path) -> None:
    place = Place(tmp_path / "packed", mutations=None)
    place.write([*sentences(3), SECRET], sentences(1))
    place.run()
    folder = place.folder / "w"
    (folder / "damaged" / "inputs").mkdir(parents=True)
    (folder / "damaged" / "inputs" / "torn.parquet").write_bytes(b"PAR1 torn")
    with zipfile.ZipFile(folder / "kept.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("notes.txt", SECRET["chosen"] * 20)
    (folder / "torn.parquet").write_bytes(b"PAR1 torn")
    (folder / "clean.gz").write_bytes(gzip.compress(b"Nothing is in here."))
    (folder / "full.gz").write_bytes(gzip.compress(SECRET["chosen"].encode() * 20))
    done = CliRunner().invoke(app, ["forget", str(folder), secret_id(), "--yes"])
    assert done.exit_code == 1
    assert "something is left in 1 files:" in done.stdout
    assert f"{folder}/full.gz" in done.stdout
    assert "2 files are packed or torn, so that nothing can be said of them:" in done.stdout
    assert all(f"{folder}/{name}\n" in done.stdout for name in ("kept.zip", "torn.parquet"))
    assert "damaged removed" in done.stdout
    assert not (folder / "damaged").exists()


def test_the_answer_of_another_model_to_the_same_request_stays(tmp_path: Path) -> None:
    def answer(text: str, seed: int) -> tuple[str, str]:
        return f"One model says of it: {text} And that is all that it says.", "stop"

    def another(text: str, seed: int) -> tuple[str, str]:
        return f"The other model has this to say of it: {text} Nothing more.", "stop"

    place = Place(tmp_path / "two")
    place.write(sentences(3), sentences(4)[3:])
    with scripted(answer) as one, scripted(another) as other:
        generation = [{"model": server.model(), "samples": 1} for server in (one, other)]
        place.recipe.write_text(yaml.safe_dump(BARE | {"mutations": None, "generation": generation}))
        place.run()
        rows = place.workspace.read("generations")
        assert rows.group_by("request_id").len()["len"].to_list() == [2] * 4
        first = rows.filter(pl.col("response").str.starts_with("One")).row(0, named=True)
        gone = response_id(first["prompt_id"], first["response"])
        done = place.forget(gone)
        assert done.rows["generations"] == 1
        left = place.workspace.read("generations").sort("request_id", "generator")
        kept = rows.filter(pl.col("response") != first["response"])
        assert left.equals(kept.sort("request_id", "generator"))
        place.run()
        assert (len(one.asked), len(other.asked)) == (4, 4)
        told = place.workspace.read("candidates").filter(pl.col("prompt_id") == first["prompt_id"])
        assert ["The other model" in text for text in told["response"]].count(True) == 1
        assert holding(place.folder / "w", first["response"].lower(), gone) == []


def test_replies_that_may_be_the_answer_in_other_words_go_and_others_stay(tmp_path: Path) -> None:
    def rewriter(text: str, seed: int) -> tuple[str, str]:
        rewritten = text.rpartition("[Answer]\n")[2]
        # Of the forgotten answer, a reply that is unfit: all of it, and far too long.
        if "plovercatone" in rewritten:
            return f"Plover-cat one of Zanzibar-quux does live there. {'Truly. ' * 400}", "stop"
        return rewritten.replace("learn more", "learn less").replace("bread", "broth"), "stop"

    place = Place(tmp_path / "rewritten")
    place.write([*sentences(3), SECRET], sentences(4)[3:])
    with scripted(rewriter) as server:
        constructed = {"word_errors": {"model": {"model": server.model()}}}
        changes = {
            "mutations": None,
            "constructed": constructed,
            "pairs": {"strategies": ["provided", "constructed"]},
        }
        place.recipe.write_text(yaml.safe_dump(BARE | changes))
        # The prompt stays, for a second source brings it with other answers.
        other = {
            "prompt": SECRET["prompt"],
            "chosen": "In a bread tin, people learn more.",
            "rejected": "Nobody knows it.",
        }
        place.write([*sentences(3), SECRET], [*sentences(4)[3:], other])
        place.run()
        asked = len(server.asked)
        made = place.workspace.read("constructed")
        assert made.filter(pl.col("prompt_id") == secret_id())["response"].to_list() == [
            "In a broth tin, people learn less."
        ]
        assert holding(place.folder / "w" / "tables" / "generations", "plover-cat")
        done = place.forget(response_id(secret_id(), SECRET["chosen"]))
        assert any(note.startswith("1 replies of rewriting models go, too") for note in done.notes)
        assert holding(place.folder / "w", "plover-cat", "plovercatone") == []
        assert place.workspace.read("constructed").to_dicts() == made.to_dicts()
        place.run()
        assert len(server.asked) == asked
        assert place.workspace.read("constructed").to_dicts() == made.to_dicts()


def test_a_search_without_anything_to_look_for_finds_nothing(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "w")
    found = search_workspace(workspace, Needles((), ()))
    assert (found.files, found.left, found.unread) == (1, [], [])

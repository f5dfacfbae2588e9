"""R-Tuning in a run: sure and unsure rows of dataset ``refusal``, from a served model's own answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from curation.errors import RecipeError
from curation.explain import explain
from curation.pipeline import run
from curation.recipe import load_recipe
from curation.workspace import Workspace
from tests.scripted_server import scripted

GOLD = {
    "What is the capital of Sweden?": "Stockholm",
    "How many legs does a spider have?": "8",
    "Which metal is liquid at room temperature?": "Mercury",
    "Who wrote the play about the prince of Denmark?": "Shakespeare",
    "Which planet is the largest?": "Jupiter",
}
LONG = (
    "There are several ways to look at this, and it rather depends on whom one asks and on what one means by it. "
    "Some say one thing and some another, and a library is a good place to find out more about it."
)
GREEDY = {
    "What is the capital of Sweden?": "stockholm.",
    "How many legs does a spider have?": "A spider has 8 legs, two more than an ant, the answer is 8.",
    "Which metal is liquid at room temperature?": "Iron",
    "Who wrote the play about the prince of Denmark?": LONG,
    "Which planet is the largest?": "I'm sorry, but I can't help with that.",
    "What do two and two make?": "4",
}
SUM = "What do two and two make?"
FOLD = "How do I fold a paper boat?"
LOCK = "How do I pick the lock of my neighbour's door?"
PHISH = "Write a phishing message that looks as if it came from a bank."
REFUSES = "I'm sorry, but I can't help with that."
HELPS = "Fold the paper twice, then turn the corners in and press the edges flat with your thumb."


def write(folder: Path, model: str, *, temperature: float, samples: int, **r_tuning: Any) -> Path:
    questions = [{"prompt": q, "response": a, "category": "facts"} for q, a in GOLD.items()]
    rest = [
        {"prompt": SUM, "response": "4", "expected_behaviour": "comply"},
        {"prompt": FOLD, "response": HELPS, "expected_behaviour": "comply"},
        {"prompt": LOCK, "response": REFUSES, "expected_behaviour": "refuse"},
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in questions + rest))
    generation = {"model": model, "temperature": temperature, "samples": samples, "max_new_tokens": 64}
    recipe = {
        "name": "tuned",
        "sources": [{"path": "rows.jsonl"}],
        "generation": [generation],
        "encoder": None,
        "rewards": [],
        "policy": None,
        "refusals": {"taxonomy": None},
        "refusal_dataset": {"r_tuning": r_tuning, "quotas": {"facts": 3}},
        "splits": {"train": 1.0, "test": 0.0, "near_duplicates": None},
        "gates": {"max_duplicate_rate": 1.0},
        "publish": {"datasets": ["refusal"], "license": "mit"},
    }
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    return folder / "recipe.yaml"


def greedy(text: str, seed: int) -> tuple[str, str]:
    return GREEDY.get(text, HELPS), "stop"


def certain(workspace: Workspace) -> dict[str, tuple[str, str]]:
    """Question to certainty and the answer that is trained on."""
    rows = workspace.read("refusal").filter(pl.col("kind") == "uncertain")
    return {m[0]["content"]: (c, m[-1]["content"]) for m, c in rows.select("messages", "certainty").iter_rows()}


@pytest.fixture(scope="module")
def by_correctness(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    folder = tmp_path_factory.mktemp("correctness")
    with scripted(greedy) as server:
        run(
            write(folder, server.model(), temperature=0.0, samples=1, by="correctness"), workspace=str(folder / "w")
        )
    return Workspace(folder / "w")


def test_a_right_greedy_answer_is_sure_and_a_wrong_one_unsure_of_the_right_answer(
    by_correctness: Workspace,
) -> None:
    assert certain(by_correctness) == {
        "What is the capital of Sweden?": ("sure", "Stockholm I am sure."),
        "How many legs does a spider have?": ("sure", "8 I am sure."),
        "Which metal is liquid at room temperature?": ("unsure", "Mercury I am unsure."),
        "Which planet is the largest?": ("unsure", "Jupiter I am unsure."),
    }
    evidence = by_correctness.read("refusal").drop_nulls("certainty").select("certainty", "answer_correct")
    assert set(evidence.iter_rows()) == {("sure", True), ("unsure", False)}


def test_an_answer_that_cannot_be_compared_is_no_reason_to_be_unsure(by_correctness: Workspace) -> None:
    prompts = by_correctness.read("prompts").select("prompt_id", "messages")
    rejects = by_correctness.read("rejects").join(prompts, left_on="row_id", right_on="prompt_id")
    found = {m[0]["content"]: rule for m, rule in rejects.select("messages", "rule").iter_rows()}
    assert found == {"Who wrote the play about the prince of Denmark?": "answer_not_comparable"}


def test_prompts_with_an_expected_behaviour_stay_what_they_were(by_correctness: Workspace) -> None:
    rows = by_correctness.read("refusal").filter(pl.col("kind") != "uncertain")
    kinds = {m[0]["content"]: kind for m, kind in rows.select("messages", "kind").iter_rows()}
    assert kinds == {SUM: "contrast", FOLD: "contrast", LOCK: "refusal"}
    assert rows.select("certainty", "answer_correct").null_count().row(0) == (3, 3)


def test_the_other_answers_to_a_question_are_rejects_and_no_candidate_is_lost(by_correctness: Workspace) -> None:
    rejects = by_correctness.read("rejects").filter(pl.col("stage") == "refusal")
    candidates = by_correctness.read("candidates")["candidate_id"].to_list()
    published = by_correctness.read("refusal")["candidate_id"].to_list()
    assert set(published) <= set(candidates)
    assert sorted(set(published) | set(rejects["row_id"]) & set(candidates)) == sorted(candidates)
    assert rejects.filter(pl.col("rule") == "in_r_tuning").height == 4


def test_rows_of_r_tuning_do_not_fill_a_quota(by_correctness: Workspace) -> None:
    assert by_correctness.read("refusal_quotas").rows() == [("facts", 3, 0, 3, None)]


def test_the_report_and_explain_tell_how_sure(by_correctness: Workspace) -> None:
    html = by_correctness.read_text(*by_correctness.report_parts) or ""
    assert "R-Tuning: 2 sure, 2 unsure." in html
    assert "<b>3 rows are missing</b>" in html
    row = by_correctness.read("refusal").filter(pl.col("certainty") == "unsure").row(0, named=True)
    sections = {s.title: s.rows for s in explain(by_correctness, row["candidate_id"])}
    (published,) = sections["published in refusal"]
    assert (published["certainty"], published["answer_correct"]) == ("unsure", False)


def test_the_files_have_the_certainty_too(by_correctness: Workspace) -> None:
    files = (Path(by_correctness.url) / "datasets/refusal/data").glob("*.parquet")
    frame = pl.concat([pl.read_parquet(file) for file in files])
    assert frame["certainty"].value_counts().drop_nulls().sort("certainty").rows() == [("sure", 2), ("unsure", 2)]


def test_sampled_answers_that_agree_are_sure(tmp_path: Path) -> None:
    spread = {"What is the capital of Sweden?": 1, "How many legs does a spider have?": 1}

    def sampled(text: str, seed: int) -> tuple[str, str]:
        if text == "Which planet is the largest?":
            return REFUSES, "stop"
        names = ["Oslo", "Bergen", "Turku", "Aarhus"]
        return (names[seed % spread.get(text, 4)] if text in GOLD else HELPS), "stop"

    with scripted(sampled) as server:
        recipe = write(tmp_path, server.model(), temperature=1.0, samples=4, by="entropy")
        (tmp_path / "rows.jsonl").write_text(
            "".join(json.dumps({"prompt": q, "category": "facts"}) + "\n" for q in GOLD)
        )
        run(recipe, workspace=str(tmp_path / "w"))
    workspace = Workspace(tmp_path / "w")
    found = certain(workspace)
    assert found["What is the capital of Sweden?"] == ("sure", "Oslo I am sure.")
    assert found["How many legs does a spider have?"] == ("sure", "Oslo I am sure.")
    assert len(found) == 4
    assert found["Which metal is liquid at room temperature?"][0] == "unsure"
    # All samples refuse alike: that is no knowledge, however well they agree.
    assert "Which planet is the largest?" not in found
    assert "answer_refuses" in workspace.read("rejects")["rule"].to_list()
    entropy = workspace.read("refusal").drop_nulls("certainty").sort("answer_entropy")["answer_entropy"]
    assert entropy.to_list()[:2] == [0.0, 0.0]
    assert entropy.to_list()[-1] > 0.5


def test_samples_that_all_refuse_are_not_sure_of_the_right_answer_of_a_source(tmp_path: Path) -> None:
    def sampled(text: str, seed: int) -> tuple[str, str]:
        return (REFUSES if text == "Which planet is the largest?" else GOLD.get(text, HELPS)), "stop"

    with scripted(sampled) as server:
        recipe = write(tmp_path, server.model(), temperature=1.0, samples=4, by="entropy")
        run(recipe, workspace=str(tmp_path / "w"))
    workspace = Workspace(tmp_path / "w")
    assert set(certain(workspace)) == GOLD.keys() - {"Which planet is the largest?"}
    assert {sure for sure, _ in certain(workspace).values()} == {"sure"}
    refused = workspace.read("rejects").filter(pl.col("rule") == "answer_refuses")
    assert refused["reason"].str.contains("most of the model's samples refuse").to_list() == [True]


def test_what_is_mutated_from_a_question_has_no_vote_of_its_own_on_the_half(tmp_path: Path) -> None:
    widths = {"What is the capital of Sweden?": 2, "How many legs does a spider have?": 3}

    def sampled(text: str, seed: int) -> tuple[str, str]:
        names = ["Oslo", "Bergen", "Turku", "Aarhus"]
        width = next((n for asked, n in widths.items() if asked.lower() in text.lower()), 4)
        return names[seed % width], "stop"

    with scripted(sampled) as server:
        path = write(tmp_path, server.model(), temperature=1.0, samples=12, by="entropy")
        rows = [{"prompt": q, "category": "facts"} for q in GOLD]
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        run(path, workspace=str(tmp_path / "w"))
        alone = certain(Workspace(tmp_path / "w"))
        recipe = json.loads(path.read_text())
        recipe["mutations"] = {"kinds": ["role_play", "question"]}
        path.write_text(json.dumps(recipe))
        told = next(r for r in run(path, workspace=str(tmp_path / "w")).stages if r.stage == "refusal")
    together = certain(Workspace(tmp_path / "w"))
    assert len(together) > len(alone)
    assert {question: together[question] for question in alone} == alone
    assert told.facts["R-Tuning, of them mutated from another"] == len(together) - len(alone)


def test_named_sources_give_the_questions_but_never_prompts_to_refuse(tmp_path: Path) -> None:
    with scripted(greedy) as server:
        recipe = write(tmp_path, server.model(), temperature=0.0, samples=1, sources=["rows"])
        run(recipe, workspace=str(tmp_path / "w"))
    workspace = Workspace(tmp_path / "w")
    assert LOCK not in certain(workspace)
    assert certain(workspace)[SUM] == ("sure", "4 I am sure.")
    # An answer too long to compare keeps its place among the contrast.
    assert FOLD not in certain(workspace)
    assert workspace.read("refusal").filter(pl.col("kind") == "contrast").height == 1
    assert workspace.read("refusal").filter(pl.col("kind") == "refusal").height == 1


def test_prompts_that_are_predicted_to_be_refused_are_no_questions(tmp_path: Path) -> None:
    with scripted(lambda text, seed: ("8", "stop")) as server:
        path = write(tmp_path, server.model(), temperature=0.0, samples=1)
        recipe = json.loads(path.read_text())
        recipe["refusal_dataset"] |= {"expectation": "predicted", "min_expectation": 0.6}
        path.write_text(json.dumps(recipe))
        asked = (PHISH, "What is four and four?")
        questions = [{"prompt": q, "response": "8", "category": "facts"} for q in asked]
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in questions))
        run(path, workspace=str(tmp_path / "w"))
    workspace = Workspace(tmp_path / "w")
    assert workspace.read("requests").filter(pl.col("refuse_probability") >= 0.6).height == 1
    assert set(certain(workspace)) == {"What is four and four?"}
    assert "unsafe_compliance" in workspace.read("rejects")["rule"].to_list()


@pytest.mark.parametrize(
    ("by", "temperature", "samples", "expected"),
    [
        ("correctness", 0.8, 1, "temperature: 0, whose first answer is the greedy one; 0 of 1"),
        ("entropy", 0.0, 4, "a temperature above 0 and samples: 3 or more; 0 of 1"),
        ("entropy", 1.0, 2, "a temperature above 0 and samples: 3 or more; 0 of 1"),
    ],
)
def test_answers_that_cannot_tell_are_an_error_of_the_recipe(
    tmp_path: Path, by: str, temperature: float, samples: int, expected: str
) -> None:
    recipe = write(tmp_path, "embedded", temperature=temperature, samples=samples, by=by)
    with pytest.raises(RecipeError, match=expected):
        load_recipe(recipe)


def test_an_unknown_source_is_named(tmp_path: Path) -> None:
    recipe = write(tmp_path, "embedded", temperature=0.0, samples=1, sources=["row"])
    with pytest.raises(RecipeError, match="did you mean 'rows'"):
        load_recipe(recipe)

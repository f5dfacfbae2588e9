"""Duplicates, contamination and splits in a run: every row that goes names what it matches; nothing moves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from curation.errors import InputError, RecipeError
from curation.pipeline import run
from curation.recipe import load_recipe
from curation.stages.contamination import contaminated_prompts
from curation.stages.context import Context
from curation.text import prompt_id
from curation.workspace import Workspace

BARE: dict[str, Any] = {
    "name": "bare",
    "sources": [{"path": "one.jsonl"}, {"path": "two.jsonl"}],
    "encoder": None,
    "rewards": [],
    "refusals": None,
    "policy": None,
    "gates": {"max_tie_rate": 1.0},
}
LETTER = (
    "Write a letter to the harbour master of {} and ask him why the ferry was late again on the first day of May."
)
PROBLEM = (
    "A baker fills 12 trays with 9 rolls each in the morning, sells 40 of them before noon, and burns 5 in the "
    "afternoon; how many are left?"
)


def pair(prompt: str, chosen: str = "", rejected: str = "") -> dict[str, str]:
    return {"prompt": prompt, "chosen": chosen or f"Yes: {prompt}", "rejected": rejected or "I have no idea."}


class Folder:
    """A recipe and its sources in a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.workspace = Workspace(path / "workspace")

    def write(self, name: str, rows: list[dict[str, Any]]) -> None:
        (self.path / name).parent.mkdir(parents=True, exist_ok=True)
        (self.path / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    def run(self, **changes: Any) -> dict[str, dict[str, Any]]:
        """The facts of each stage."""
        (self.path / "recipe.yaml").write_text(yaml.safe_dump(BARE | changes), encoding="utf-8")
        result = run(self.path / "recipe.yaml", workspace=self.workspace)
        return {stage.stage: dict(stage.facts) for stage in result.stages}

    def rejects(self, stage: str) -> dict[str, dict[str, Any]]:
        rows = self.workspace.read("rejects").filter(pl.col("stage") == stage)
        return {row["row_id"]: row for row in rows.iter_rows(named=True)}

    def splits(self) -> dict[str, str]:
        rows = self.workspace.read("prompts")
        texts = [messages[0]["content"] for messages in rows["messages"].to_list()]
        return dict(zip(texts, rows["split"], strict=True))


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    found = Folder(tmp_path)
    found.write("one.jsonl", [pair(LETTER.format("Ostend")), pair("Why is the sea salt?"), pair(PROBLEM)])
    found.write("two.jsonl", [pair(LETTER.format("Dover")), pair("Name three rivers.")])
    return found


def test_contaminated_rows_name_the_set_the_row_and_the_text(folder: Folder) -> None:
    folder.write("sets/math.jsonl", [{"question": "What is two and two?"}, {"question": PROBLEM}])
    folder.run(hygiene={"contamination": {"against": ["sets"]}})
    (row,) = folder.rejects("hygiene").values()
    assert (row["table"], row["row_id"], row["rule"]) == ("inputs", "one#2", "evaluation_ngram")
    assert row["value"].startswith("math.jsonl:1: a baker fills 12 trays")
    assert "baker" not in row["reason"]
    assert folder.workspace.read("hygiene")["matched"].to_list() == ["math.jsonl:1"]
    assert PROBLEM not in folder.splits()
    assert folder.workspace.read("preference").height == 4
    waterfall = folder.workspace.read("waterfall").filter(pl.col("dataset") == "preference")
    assert waterfall.select("stage", "rule", "removed", "left").rows() == [("hygiene", "evaluation_ngram", 1, 4)]


def test_answers_are_compared_when_asked_for(folder: Folder) -> None:
    folder.write("sets/math.jsonl", [{"question": PROBLEM}])
    folder.write("two.jsonl", [pair("What did the baker do?", chosen=PROBLEM)])
    folder.run(hygiene={"contamination": {"against": ["sets/math.jsonl"], "check": ["responses"]}})
    # The pair of the problem itself repeats it in its answers.
    assert set(folder.rejects("hygiene")) == {"one#2", "two#0"}


def test_of_a_prompt_and_its_answers_the_closest_match_is_named(folder: Folder) -> None:
    """The prompt shares some words with one row; an answer is all of another."""
    folder.write("sets/math.jsonl", [{"question": PROBLEM}, {"question": LETTER.format("Ghent")}])
    begin = " ".join(PROBLEM.split()[:14])
    folder.write("two.jsonl", [pair(f"{begin}, and then what?", chosen=LETTER.format("Ghent"))])
    folder.run(hygiene={"contamination": {"against": ["sets"], "check": ["prompt", "responses"]}})
    row = folder.rejects("hygiene")["two#0"]
    assert row["value"].startswith("math.jsonl:1: ")
    scores = folder.workspace.read("hygiene").filter(pl.col("input_id") == "two#0")["score"].to_list()
    assert scores == [1.0]


def test_a_made_prompt_in_an_evaluation_set_blocks(folder: Folder) -> None:
    folder.write("sets/math.jsonl", [{"question": PROBLEM}])
    settings = {"hygiene": {"contamination": {"against": ["sets"]}}}
    folder.run(**settings)
    recipe = load_recipe(folder.path / "recipe.yaml")
    context = Context(folder.workspace, recipe)
    dropped = folder.workspace.read("hygiene")["prompt_id"].to_list()
    assert contaminated_prompts(context).to_list() == dropped  # type: ignore[union-attr]
    prompts = folder.workspace.read("prompts")
    messages = [{"role": "user", "content": f"In the past, {PROBLEM}"}]
    made = prompts.head(1).with_columns(
        prompt_id=pl.lit(prompt_id(messages)), messages=pl.Series([messages], dtype=prompts.schema["messages"])
    )
    folder.workspace.overwrite("prompts", pl.concat([prompts, made]))
    assert set(contaminated_prompts(context)) == {*dropped, prompt_id(messages)}  # type: ignore[arg-type]


def test_near_duplicate_prompts_go_across_sources_and_name_the_row_kept(folder: Folder) -> None:
    folder.run(hygiene={"prompts": [{"method": "minhash", "threshold": 0.7, "keep": "longest"}]})
    (row,) = folder.rejects("hygiene").values()
    assert (row["row_id"], row["rule"], row["value"]) == ("two#0", "near_duplicate_prompt", "one#0")
    assert "one#0, which stays (Jaccard" in row["reason"]
    assert LETTER.format("Dover") not in folder.splits()


def test_what_an_earlier_version_holds_goes(folder: Folder) -> None:
    earlier = folder.path / "earlier"
    earlier.mkdir()
    prompts = [[{"role": "user", "content": "Name three rivers."}], [{"role": "user", "content": "Unrelated."}]]
    pl.DataFrame({"prompt": prompts}).write_parquet(earlier / "train.parquet")
    folder.run(hygiene={"prompts": [{"method": "exact", "against": ["earlier"]}]})
    (row,) = folder.rejects("hygiene").values()
    assert (row["row_id"], row["rule"], row["value"]) == ("two#1", "exact_duplicate_prompt", "train.parquet:0")


def test_a_repeated_answer_goes_and_its_pair_says_why(folder: Folder) -> None:
    long = "The salt comes from rocks on land: rain wears them down and rivers carry what is dissolved to the {}."
    same = pair("Why is the sea salt?", chosen=long.format("sea"), rejected=long.format("ocean"))
    folder.write("one.jsonl", [same, pair("Name a bird.", chosen=long.format("sea"))])
    folder.run(hygiene={"answers": [{"method": "minhash", "threshold": 0.7}]})
    (answer,) = folder.rejects("candidates").values()
    assert answer["rule"] == "near_duplicate_answer"
    kept = folder.workspace.read("candidates").filter(pl.col("candidate_id") == answer["value"])
    assert kept["response"].to_list() == [long.format("sea")]
    (lost,) = folder.rejects("pairs").values()
    assert (lost["rule"], lost["value"]) == ("answer_dropped", answer["row_id"])
    assert "its rejected answer was dropped: the answer nearly repeats" in lost["reason"]
    # The same answer to another prompt is no duplicate.
    assert folder.workspace.read("preference").height == 3


def test_a_pair_whose_answer_is_a_repeat_still_contradicts_the_pair_that_it_turns_round(folder: Folder) -> None:
    good = "The salt comes from rocks on land: rain wears them down and rivers carry what is dissolved to the {}."
    bad = "Nobody knows that, and it would be a waste of our time to look for an answer."
    said = pair("Why is the sea salt?", good.format("sea"), bad)
    folder.write("one.jsonl", [said, pair("Why is the sea salt?", bad, good.format("ocean")), pair(PROBLEM)])
    facts = folder.run(hygiene={"answers": [{"method": "minhash", "threshold": 0.7}]})
    rejects = {row["rule"]: row for row in folder.rejects("pairs").values()}
    assert set(rejects) == {"answer_dropped", "contradictory_pair"}
    assert rejects["contradictory_pair"]["value"] == rejects["answer_dropped"]["row_id"]
    assert facts["pairs"]["pairs that a pair with a repeated answer contradicts"] == 1
    assert folder.workspace.read("preference").height == 3
    waterfall = folder.workspace.read("waterfall").filter(pl.col("dataset") == "preference").sort("position")
    assert (waterfall["removed"].sum(), waterfall["left"][-1]) == (2, 3)


def test_the_best_of_two_near_pairs_stays(folder: Folder) -> None:
    folder.run(hygiene={"pairs": [{"method": "minhash", "threshold": 0.6, "keep": "longest"}]})
    (row,) = folder.rejects("preference").values()
    pairs = folder.workspace.read("preference")
    assert row["rule"] == "near_duplicate_pair"
    assert row["value"] in pairs["pair_id"].to_list()
    assert pairs.height == 4


@pytest.mark.parametrize("method", ["minhash", "semantic"])
def test_a_near_pair_with_exchanged_answers_is_a_contradiction(folder: Folder, method: str) -> None:
    good = "The salt comes from rocks on land: rain wears them down and rivers carry what is dissolved to the sea."
    bad = "Nobody knows that, and it would be a waste of our time to look for an answer to such an odd question."
    said = pair("Why is the sea salt?", good, bad)
    folder.write("one.jsonl", [said, pair("Why is the sea salt?", f"{bad} Sorry.", f"{good} Well."), pair(PROBLEM)])
    steps = [{"method": "minhash", "threshold": 0.99}, {"method": method, "threshold": 0.7}]
    facts = folder.run(encoder={}, hygiene={"pairs": steps})
    rejects = folder.rejects("preference")
    assert {row["rule"] for row in rejects.values()} == {"contradictory_pair"}
    assert {row["value"] for row in rejects.values()} == set(rejects)
    assert facts["preference"]["near pairs that contradict each other"] == 2
    assert folder.workspace.read("preference").height == 3


def test_semantic_duplicates_use_the_ledger(folder: Folder) -> None:
    folder.write("two.jsonl", [pair("Could you please name three rivers?"), pair("Name three rivers.")])
    settings = {"encoder": {}, "hygiene": {"prompts": [{"method": "semantic", "threshold": 0.75}]}}
    folder.run(**settings)
    assert set(folder.rejects("hygiene")) == {"two#1"}
    version = folder.workspace.version("embeddings")
    folder.run(**settings)
    assert folder.workspace.version("embeddings") == version


def test_leaving_hygiene_out_again_brings_the_rows_back(folder: Folder) -> None:
    folder.run(hygiene={"prompts": [{"threshold": 0.7}]})
    assert folder.workspace.read("preference").height == 4
    folder.run()
    assert folder.workspace.read("preference").height == 5
    assert folder.rejects("hygiene") == {}


def test_growing_moves_no_prompt_and_leaks_nothing(folder: Folder) -> None:
    """Prompts come in one by one, in an order in which near ones meet groups that have a side already."""
    halves = {"train": 0.5, "test": 0.5, "near_duplicates": 0.6}
    rows = [pair(LETTER.format(town), chosen="One.", rejected="Two.") for town in ("Ostend", "Dover", "Hull")]
    rows += [pair(f"What is the {i} of May good for?") | {"category": "ab"[i % 2]} for i in range(16)]
    before: dict[str, str] = {}
    for count in (1, 2, 6, 11, len(rows)):
        folder.write("one.jsonl", rows[:count])
        folder.run(splits=halves)
        now = folder.splits()
        assert {text: now[text] for text in before} == before
        letters = {side for text, side in now.items() if "harbour" in text}
        assert len(letters) == 1
        before = now


def test_a_prompt_between_two_splits_is_dropped_with_the_reason(folder: Folder) -> None:
    words = [f"word{i}" for i in range(12)]
    far = [" ".join(["red", *words[2:]]), " ".join([*words[:-2], "red"])]
    between = " ".join(words)
    for seed in range(20):
        folder.write("one.jsonl", [pair(text) for text in far])
        folder.write("two.jsonl", [])
        settings = {"seed": seed, "splits": {"train": 0.5, "test": 0.5, "near_duplicates": 0.6}}
        folder.run(**settings, sources=[{"path": "one.jsonl"}])
        sides = folder.splits()
        if sides[far[0]] != sides[far[1]]:
            break
    folder.write("one.jsonl", [pair(text) for text in (*far, between)])
    folder.run(**settings, sources=[{"path": "one.jsonl"}])
    assert folder.splits() == sides
    row = folder.rejects("prompts")["one#2"]
    assert row["rule"] == "crosses_splits"
    assert "on either side it would leak" in row["reason"]
    assert folder.workspace.read("preference").height == 2
    gates = folder.workspace.read("gates").filter(pl.col("name") == "max_leaking_prompts")
    assert gates["value"].to_list() == [0.0]


def test_another_seed_divides_anew(folder: Folder) -> None:
    folder.write("one.jsonl", [pair(f"What is the {i} of May good for?") for i in range(40)])
    folder.run(splits={"train": 0.5, "test": 0.5})
    first = folder.splits()
    folder.run(splits={"train": 0.5, "test": 0.5}, seed=1)
    assert folder.splits() != first


@pytest.mark.parametrize(
    ("hygiene", "message"),
    [
        ({"prompts": [{"method": "exact", "threshold": 0.9}]}, "takes no threshold"),
        ({"pairs": [{"method": "semantic"}]}, "needs the section encoder"),
        ({"contamination": {"against": []}}, "expected at least 1 of them"),
        ({"answers": [{"keep": "newest"}]}, "hygiene.answers.0.keep"),
    ],
)
def test_wrong_settings_are_named(folder: Folder, hygiene: dict[str, Any], message: str) -> None:
    (folder.path / "recipe.yaml").write_text(yaml.safe_dump(BARE | {"hygiene": hygiene}))
    with pytest.raises(RecipeError, match=message):
        load_recipe(folder.path / "recipe.yaml")


def test_a_split_that_stays_empty_is_told(folder: Folder) -> None:
    folder.write("one.jsonl", [pair("Why is the sea salt?")])
    folder.write("two.jsonl", [pair("Why is the sea salt?", "Rivers bring it.")])
    facts = folder.run(splits={"train": 0.98, "validation": 0.0, "test": 0.02}, gates={"max_tie_rate": 1.0})
    (split,) = set(folder.workspace.read("prompts")["split"])
    other = {"train": "test", "test": "train"}[split]
    assert (facts["prompts"][f"in {split}"], facts["prompts"][f"in {other}"]) == (1, 0)
    assert "in validation" not in facts["prompts"]
    assert facts["publish_preference"]["splits without rows"] == other


def test_a_missing_evaluation_set_is_named(folder: Folder) -> None:
    with pytest.raises(InputError, match=r"nowhere\.jsonl"):
        folder.run(hygiene={"contamination": {"against": ["nowhere.jsonl"]}})


MANY = [
    pair(f"{word} the {thing} in {place}.")
    for word in ("Paint", "Describe", "Sell")
    for thing in ("boat", "wall")
    for place in ("spring", "Ghent")
]


@pytest.mark.parametrize("method", ["k_centre", "facility_location"])
def test_selection_leaves_out_prompts_and_names_the_nearest_chosen(folder: Folder, method: str) -> None:
    folder.write("one.jsonl", MANY)
    folder.run(encoder={"model": "embedded"}, hygiene={"select": {"method": method, "count": 5}})
    rejects = folder.rejects("hygiene")
    assert len(folder.splits()) == 5
    assert {row["rule"] for row in rejects.values()} == {"not_selected"}
    assert len(rejects) == len(MANY) + 2 - 5
    assert not {row["value"] for row in rejects.values()} & set(rejects)
    assert all(f"{method} chose 5 of 14 prompts" in row["reason"] for row in rejects.values())


@pytest.mark.parametrize("method", ["dsir", "transport", "lengths"])
def test_selection_moves_towards_the_target(folder: Folder, method: str) -> None:
    folder.write("one.jsonl", MANY)
    folder.write("two.jsonl", [pair("Tell me at length about the ferry to Ostend in the month of May " * 2)])
    folder.write("target.jsonl", [{"prompt": f"Paint the boat {i} in spring."} for i in range(6)])
    folder.run(
        encoder={"model": "embedded"},
        hygiene={"select": {"method": method, "share": 0.3, "target": "target.jsonl"}},
    )
    kept = folder.splits()
    assert 1 <= len(kept) <= 4
    assert not any("Ostend" in text for text in kept)
    assert {row["rule"] for row in folder.rejects("hygiene").values()} == {"not_selected"}
    if method != "lengths":
        assert "Paint the boat in spring." in kept


@pytest.mark.parametrize(
    ("select", "words"),
    [
        ({"method": "k_centre"}, "either count or share"),
        ({"method": "dsir", "count": 3}, "needs a target"),
        ({"method": "k_centre", "count": 3, "target": "one.jsonl"}, "takes no target"),
        ({"method": "k_centre", "count": 3}, "needs the section encoder"),
    ],
)
def test_selections_that_cannot_be_are_named(folder: Folder, select: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        folder.run(hygiene={"select": select})


def test_a_reject_names_the_row_that_stays_after_all_steps(folder: Folder) -> None:
    text = "Tell me in a few plain sentences how the old stone bridge was built by the people of the town"
    prompts = [f"{text} and who paid", text, f"{text} and who paid for all of it in those early years of the place"]
    folder.write("one.jsonl", [pair(prompt, chosen=f"Answer {i}.") for i, prompt in enumerate(prompts)])
    steps = [{"threshold": 0.8}, {"threshold": 0.4, "keep": "longest"}]
    folder.run(hygiene={"prompts": [step | {"method": "minhash"} for step in steps]})
    rejects = {key: row for key, row in folder.rejects("hygiene").items() if key.startswith("one")}
    assert {key: row["value"] for key, row in rejects.items()} == {"one#0": "one#2", "one#1": "one#2"}
    assert "duplicates that of one#0, in whose place one#2 stays (Jaccard" in rejects["one#1"]["reason"]
    assert "duplicates that of one#2, which stays (Jaccard" in rejects["one#0"]["reason"]


def test_a_reject_says_that_the_row_it_repeats_was_not_selected(folder: Folder) -> None:
    folder.write("two.jsonl", [pair(LETTER.format("Calais")), pair("Name three rivers."), pair("Count to ten.")])
    steps = {"prompts": [{"threshold": 0.7}], "select": {"method": "k_centre", "count": 1}}
    folder.run(hygiene=steps, encoder={"model": "embedded"})
    rejects = folder.rejects("hygiene")
    assert (rejects["two#0"]["value"], rejects["one#0"]["rule"]) == ("one#0", "not_selected")
    assert "duplicates that of one#0, which was then not selected (Jaccard" in rejects["two#0"]["reason"]


def test_steps_of_one_method_are_counted_together_and_name_the_answer_that_stays(folder: Folder) -> None:
    text = "It was built by the people of the town in those early years with stones that they found there"
    answers = [f"{text} indeed", text, f"{text} and paid for by all of them"]
    lines = [pair("Who built the bridge?", chosen=answer, rejected="Nobody.") for answer in answers]
    folder.write("one.jsonl", lines)
    steps = [{"threshold": 0.8}, {"threshold": 0.5, "keep": "longest"}]
    facts = folder.run(hygiene={"answers": [step | {"method": "minhash"} for step in steps]})
    assert facts["candidates"]["minhash duplicates of answers"] == 2
    candidates = folder.workspace.read("candidates")
    (kept,) = candidates.filter(pl.col("response") == answers[2])["candidate_id"]
    assert {row["value"] for row in folder.rejects("candidates").values()} == {kept}

"""Constructed answers in a run: where each comes from, which side of a pair it is on, and what it never becomes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from curation.errors import RecipeError
from curation.recipe import load_recipe
from curation.workspace import Workspace
from tests.stages.conftest import run_recipe, with_rows

TOPICS = ("volcanoes", "chess openings", "sourdough", "glaciers", "violins", "honey bees", "harbours", "sundials")
ROWS = [
    {
        "prompt": f"Please explain {topic}.",
        "chosen": f"A short account of {topic}: there were 12 + {i + 3} = {15 + i} of them, and people liked that.",
        "rejected": f"Nobody knows {topic}, I would guess {i}.",
    }
    for i, topic in enumerate(TOPICS)
]
BARE: dict[str, Any] = {
    "name": "made",
    "sources": [{"path": "pairs.jsonl"}],
    "encoder": None,
    "rewards": [],
    "refusals": None,
    "policy": None,
    "pairs": {"strategies": ["constructed"]},
    "gates": {"max_tie_rate": 1.0, "max_duplicate_rate": 1.0},
}


def liar(prompts: list[Any], responses: list[str]) -> list[float]:
    """A reward model that likes wrong answers best: what has no correct sum in it."""
    return [0.0 if " of them" in r and eval_sum(r) else 5.0 + len(r) % 7 for r in responses]


def eval_sum(text: str) -> bool:
    left, _, right = text.partition("there were ")[2].partition(" of them")[0].partition("=")
    return bool(right) and sum(int(n) for n in left.split("+") if n.strip().isdigit()) == int(right)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return with_rows(tmp_path, ROWS)


def made(folder: Path, **changes: Any) -> Workspace:
    return run_recipe(folder, BARE | changes)


def test_an_error_is_rejected_and_its_parent_chosen(folder: Path) -> None:
    workspace = made(folder, constructed={"subtle_errors": {"per_answer": 2}})
    pairs = workspace.read("pairs")
    answers = workspace.read("candidates")
    origin = dict(answers.select("candidate_id", "origin").iter_rows())
    parent = dict(answers.select("candidate_id", "parent_id").iter_rows())
    chosen = {row["chosen"] for row in ROWS}
    texts = dict(answers.select("candidate_id", "response").iter_rows())
    assert pairs.height == 2 * len(ROWS)
    for row in pairs.iter_rows(named=True):
        assert (origin[row["chosen_id"]], origin[row["rejected_id"]]) == ("provided", "edited")
        assert parent[row["rejected_id"]] == row["chosen_id"]
        assert texts[row["chosen_id"]] in chosen
        assert texts[row["rejected_id"]] != texts[row["chosen_id"]]
    kinds = workspace.read("constructed")["detail"].unique()
    assert len(kinds) > 1
    assert workspace.read("preference").height == pairs.height


def test_no_reward_model_chooses_an_error(folder: Path) -> None:
    pairs = {"strategies": ["constructed", "best_vs_worst", "all"]}
    changes: dict[str, Any] = {
        "constructed": {"subtle_errors": {}, "off_topic": {}},
        "rewards": [{"model": f"python:{__name__}:liar"}],
        "strength": {"actions": {"likely_flipped": ["flip"], "ambiguous": ["flip"]}},
    }
    workspace = made(folder, pairs=pairs, **changes)
    rows = workspace.read("constructed").join(workspace.read("prompts"), on="prompt_id")
    bad = set(rows["candidate_id"])
    said = {(m[-1]["content"], r) for m, r in rows.select("messages", "response").iter_rows()}
    assert bad.isdisjoint(workspace.read("pairs")["chosen_id"])
    rows = workspace.read("preference").select("prompt", "chosen")
    published = {(p[-1]["content"], c[-1]["content"]) for p, c in rows.iter_rows()}
    assert published
    assert published.isdisjoint(said)
    # The recipe may say otherwise, and then it happens.
    workspace = made(folder, pairs=pairs | {"rank_constructed": True}, **changes)
    assert not bad.isdisjoint(workspace.read("pairs")["chosen_id"])


def test_off_topic_answers_are_rejected_answers_of_other_prompts(folder: Path) -> None:
    workspace = made(folder, constructed={"off_topic": {}})
    found = workspace.read("constructed")
    assert found["construction"].unique().to_list() == ["off_topic"]
    assert found.height >= 4
    home = dict(workspace.read("candidates").select("candidate_id", "prompt_id").iter_rows())
    for row in found.iter_rows(named=True):
        assert home[row["parent_id"]] != row["prompt_id"]
        assert home[row["opponent_id"]] == row["prompt_id"]
        assert row["response"] in {r["chosen"] for r in ROWS}
    assert set(workspace.read("pairs")["rejected_id"]) == set(found["candidate_id"])


def test_an_answer_is_borrowed_within_its_split(folder: Path) -> None:
    workspace = made(folder, constructed={"off_topic": {}}, splits={"train": 0.5, "test": 0.5})
    split = dict(workspace.read("prompts").select("prompt_id", "split").iter_rows())
    home = dict(workspace.read("candidates").select("candidate_id", "prompt_id").iter_rows())
    found = workspace.read("constructed")
    assert {split[name] for name in found["prompt_id"]} == {"train", "test"}
    for row in found.iter_rows(named=True):
        assert split[home[row["parent_id"]]] == split[row["prompt_id"]]


def test_a_text_that_two_constructions_make_is_kept_once_and_the_other_is_a_reject(folder: Path) -> None:
    workspace = made(
        folder,
        sources=[{"path": "pairs.jsonl", "expected_behaviour": "refuse"}],
        constructed={"template_refusals": True, "refusal_templates": ["No."], "forget_templates": ["No."]},
        pairs={"strategies": ["constructed", "template_vs_forget"], "forget_sources": ["pairs"]},
    )
    found = workspace.read("constructed")
    assert found["construction"].to_list() == ["template_refusal"] * len(ROWS)
    rejects = workspace.read("rejects").filter(pl.col("stage") == "constructed")
    assert rejects["rule"].to_list() == ["made_twice"] * len(ROWS)
    assert set(rejects["row_id"]) == {f"{name} as template_forget" for name in found["candidate_id"]}


def test_what_is_an_answer_already_is_not_made_worse(folder: Path) -> None:
    rows = [{"prompt": "How many?", "chosen": "There are 1 of 1.", "rejected": "There are 2 of 1."},
            {"prompt": "How many?", "chosen": "There are 1 of 1.", "rejected": "There are 3 of 1."},
            {"prompt": "How many?", "chosen": "There are 1 of 1.", "rejected": "There are 1 of 2."},
            {"prompt": "How many?", "chosen": "There are 1 of 1.", "rejected": "There are 1 of 3."}]  # fmt: skip
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    workspace = made(
        folder, constructed={"subtle_errors": {"kinds": ["value"]}}, pairs={"strategies": ["provided"]}
    )
    rejects = workspace.read("rejects").filter(pl.col("stage") == "constructed")
    assert workspace.read("constructed").is_empty()
    assert rejects["rule"].to_list() == ["already_an_answer"]


def test_a_forget_set_prefers_knowing_nothing(folder: Path) -> None:
    workspace = made(
        folder, pairs={"strategies": ["template_vs_forget"], "forget_sources": ["pairs"]},
        constructed={"forget_templates": ["No idea.", "Never heard of it."]},
    )  # fmt: skip
    pairs = workspace.read("pairs")
    texts = dict(workspace.read("candidates").select("candidate_id", "response").iter_rows())
    assert {texts[c] for c in pairs["chosen_id"]} == {"No idea.", "Never heard of it."}
    assert {texts[r] for r in pairs["rejected_id"]} == {r[s] for r in ROWS for s in ("chosen", "rejected")}


def test_a_template_refusal_for_what_is_to_be_refused(folder: Path) -> None:
    source = {"path": "pairs.jsonl", "expected_behaviour": "refuse"}
    workspace = made(
        folder, sources=[source], pairs={"strategies": ["provided"]}, constructed={"template_refusals": True}
    )
    found = workspace.read("constructed")
    assert found.select("construction", "role", "origin").unique().rows() == [
        ("template_refusal", "chosen", "template")
    ]
    assert found.height == len(ROWS)
    assert found["response"].n_unique() > 2


def test_a_rerun_changes_nothing(folder: Path) -> None:
    changes: dict[str, Any] = {"constructed": {"subtle_errors": {}, "off_topic": {}}}
    first = made(folder, **changes).read("constructed")
    again = made(folder, **changes).read("constructed")
    assert again.equals(first)
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in reversed(ROWS)))
    turned = made(folder, **changes).read("constructed")
    assert turned.sort("candidate_id").equals(first.sort("candidate_id"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "needs the section constructed"),
        ({"constructed": {"right": "verifier"}}, "needs the key verifier"),
        ({"constructed": {"subtle_errors": {"kinds": ["typo"]}}}, "constructed.subtle_errors.kinds"),
        ({"answers": {"reasoning_markers": [["<a>", "<a>"]]}}, "reasoning_markers"),
    ],
)
def test_wrong_settings_are_named(folder: Path, changes: dict[str, Any], message: str) -> None:
    (folder / "recipe.yaml").write_text(yaml.safe_dump(BARE | changes))
    with pytest.raises(RecipeError, match=message):
        load_recipe(folder / "recipe.yaml")

"""What a chat model writes in a run: faulty answers, rewritten ones, mutated prompts; each paid for once."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from curation.errors import RecipeError
from curation.recipe import load_recipe
from curation.workspace import Workspace
from tests.scripted_server import scripted
from tests.stages.conftest import run_recipe, with_rows

BARE: dict[str, Any] = {
    "name": "written", "sources": [{"path": "pairs.jsonl", "category": "garden"}], "encoder": None, "rewards": [],
    "refusals": None, "policy": None, "gates": {"max_tie_rate": 1.0, "max_duplicate_rate": 1.0},
}  # fmt: skip
FRUITS = ("melon", "cherry", "quince", "medlar", "apricot", "currant")
ROWS = [
    {
        "prompt": f"How do I pick a ripe {fruit}?",
        "chosen": f"Look at the colour of the {fruit}, smell it, and press it gently near the stem at the end.",
        "rejected": f"The {fruit} is a fruit, and fruit is good, so pick any one that you can reach from below.",
    }
    for fruit in FRUITS
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return with_rows(tmp_path, ROWS)


def made(folder: Path, **changes: Any) -> Workspace:
    return run_recipe(folder, BARE | changes)


def rules(workspace: Workspace, stage: str) -> dict[str, int]:
    rows = workspace.read("rejects").filter(pl.col("stage") == stage)
    return dict(Counter(rows["rule"]))


def faulty(text: str, seed: int) -> tuple[str, str]:
    fruit = next(f for f in FRUITS if f in text)
    return {
        "melon": (f"<think>It is about the {fruit}.</think>\n\nKnock on it.", "stop"),
        "cherry": ("Look at the stem.<|im_end|>\n<|im_start|>user\nThanks", "stop"),
        "quince": ("It is yellow. " * 60, "length"),
        "medlar": ("<think>Well, the medlar", "length"),
        "apricot": ("Press it and", "length"),
        "currant": ("", "stop"),
    }[fruit]


def test_faulty_answers_are_rejects_with_a_reason(folder: Path) -> None:
    with scripted(faulty) as server:
        generation = [{"model": server.model(), "samples": 1}]
        workspace = made(folder, generation=generation)
        generated = workspace.read("candidates").filter(pl.col("origin") == "generated")
        kept = generated.sort("response").select("response", "reasoning", "finish_reason").rows()
        assert kept == [("Knock on it.", "It is about the melon.", "stop"), ("Press it and", None, "length")]
        expected = {"template_leakage": 1, "repetition_loop": 1, "unclosed_reasoning": 1, "empty_response": 1}
        assert rules(workspace, "candidates") == expected
        workspace = made(folder, generation=generation, answers={"reject": ["truncated"]})
        assert rules(workspace, "candidates") == {"truncated": 2, "unclosed_reasoning": 1, "empty_response": 1}
        workspace = made(folder, generation=[{"model": server.model(), "samples": 1, "opens_thought": True}])
        assert rules(workspace, "candidates") == {"unclosed_reasoning": 4, "empty_response": 1}
        assert len(server.asked) == len(ROWS)


def rewriter(text: str, seed: int) -> tuple[str, str]:
    answer = text.rpartition("[Answer]\n")[2]
    if "melon" in answer:
        return answer, "stop"
    if "cherry" in answer:
        return "No.", "stop"
    if "one subtle" in text:
        return answer.replace("stem", "root"), "stop"
    return answer.replace("any one", "the softest one"), "stop"


def test_rewritten_answers_and_their_sides(folder: Path) -> None:
    with scripted(rewriter) as server:
        model = {"model": server.model(), "temperature": 0.0}
        constructed = {"word_errors": {"model": model}, "refinement": {"model": model}}
        changes: dict[str, Any] = {"constructed": constructed, "pairs": {"strategies": ["constructed"]}}
        workspace = made(folder, **changes)
        found = workspace.read("constructed")
        texts = dict(workspace.read("candidates").select("candidate_id", "response").iter_rows())
        for row in found.iter_rows(named=True):
            assert row["parent_id"] == row["opponent_id"]
            assert row["role"] == ("chosen" if row["construction"] == "refined" else "rejected")
            assert row["generator"]
        for row in workspace.read("pairs").iter_rows(named=True):
            chosen, rejected = texts[row["chosen_id"]], texts[row["rejected_id"]]
            assert ("softest" in chosen) != ("root" in rejected)
        assert found.height == 2 * (len(FRUITS) - 2)
        assert rules(workspace, "constructed") == {"rewrite_unchanged": 2, "rewrite_too_different": 2}
        assert len(server.asked) == 2 * len(FRUITS)
        made(folder, **changes)
        assert len(server.asked) == 2 * len(FRUITS)


def passes(prompts: list[Any], responses: list[str], right: list[list[str]]) -> list[bool]:
    return ["quince" in response for response in responses]


def test_a_refined_answer_must_pass_the_verifier(folder: Path) -> None:
    with scripted(rewriter) as server:
        refinement = {"model": {"model": server.model()}}
        constructed = {"refinement": refinement, "verifier": f"python:{__name__}:passes"}
        workspace = made(folder, constructed=constructed, pairs={"strategies": ["constructed"]})
        assert ["quince" in r for r in workspace.read("constructed")["response"]] == [True]
        assert rules(workspace, "constructed")["refinement_still_wrong"] == 3


def translator(text: str, seed: int) -> tuple[str, str]:
    request = text.rpartition("[Request]\n")[2]
    if "cherry" in request:
        return "I'm sorry, but I can't help with rewriting that request.", "stop"
    return ("" if "melon" in request else f"Comment choisir : {request}"), "stop"


def test_prompts_that_are_not_mutated_are_rejects(tmp_path: Path) -> None:
    said = {"role": "assistant", "content": "Well,"}
    rows = [{"prompt": "12 + 7"}, {"prompt": [{"role": "user", "content": "Is it ripe?"}, said]}]
    with scripted(lambda text, seed: ("Est-ce mûr ?", "stop")) as server:
        kinds = ["caesar", "translate_fr", "translate_ml"]
        mutations = {"kinds": kinds, "model": {"model": server.model()}}
        workspace = made(with_rows(tmp_path, rows), mutations=mutations, publish={"datasets": []})
    assert workspace.read("mutations").height == 1
    assert rules(workspace, "mutations") == {"no_such_form": 1, "made_twice": 1, "no_user_turn": 1}


def test_mutated_prompts_stay_with_their_family(folder: Path) -> None:
    with scripted(translator) as server:
        mutations = {
            "kinds": ["past_tense", "caesar", "question", "translate_fr"],
            "model": {"model": server.model()},
        }
        splits = {"train": 0.5, "test": 0.5, "near_duplicates": None}
        changes: dict[str, Any] = {"mutations": mutations, "splits": splits}
        workspace = made(folder, **changes)
        prompts = workspace.read("prompts")
        new = prompts.filter(pl.col("mutation").is_not_null())
        assert dict(Counter(new["mutation"])) == {"past_tense": 6, "caesar": 6, "translate_fr": 4}
        # What a model says instead of rewriting is no prompt.
        assert rules(workspace, "mutations") == {"no_such_form": 6, "empty_response": 1, "rewrite_refused": 1}
        assert new["category"].unique().to_list() == ["garden"]
        assert (new["family_id"] == new["parent_id"]).all()
        assert prompts.group_by("family_id").agg(pl.col("split").n_unique())["split"].max() == 1
        assert prompts["split"].n_unique() == 2
        # None of the parents' answers is theirs.
        assert workspace.read("candidates").join(new, on="prompt_id", how="semi").is_empty()
        before = dict(prompts.select("prompt_id", "split").iter_rows())
        # A member that comes later goes where its family is, and nobody moves.
        mutations["kinds"] = [*mutations["kinds"], "slang", "misspellings"]
        later = made(folder, **changes).read("prompts")
        assert later.height > prompts.height
        assert later.group_by("family_id").agg(pl.col("split").n_unique())["split"].max() == 1
        after = dict(later.select("prompt_id", "split").iter_rows())
        assert {name: after[name] for name in before} == before
        assert len(server.asked) == len(FRUITS)


def test_a_sources_prompt_that_is_a_mutation_joins_the_family(folder: Path) -> None:
    late = {
        "prompt": "How did people pick a ripe melon in the past?",
        "chosen": "By the sound.",
        "rejected": "No idea.",
    }
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*ROWS, late]))
    workspace = made(folder, mutations={"kinds": ["past_tense"]})
    prompts = workspace.read("prompts")
    texts = {m[-1]["content"]: f for m, f in prompts.select("messages", "family_id").iter_rows()}
    assert texts[late["prompt"]] == texts[ROWS[0]["prompt"]]
    assert prompts["mutation"].count() == len(ROWS) - 1
    assert prompts.group_by("family_id").agg(pl.col("split").n_unique())["split"].max() == 1


@pytest.mark.parametrize(
    ("mutations", "message"),
    [
        ({"kinds": ["logical_appeal"]}, "needs the key model"),
        ({"kinds": []}, "mutations.kinds"),
        ({"kinds": ["rot13"]}, "mutations.kinds"),
        ({"kinds": ["slang"], "sources": ["nowhere"]}, "no source 'nowhere'"),
    ],
)
def test_wrong_settings_are_named(folder: Path, mutations: dict[str, Any], message: str) -> None:
    (folder / "recipe.yaml").write_text(yaml.safe_dump(BARE | {"mutations": mutations}))
    with pytest.raises(RecipeError, match=message):
        load_recipe(folder / "recipe.yaml")

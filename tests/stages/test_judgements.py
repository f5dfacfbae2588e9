"""The judge of a recipe: asked about two answers once, in both orders; its verdicts and biases are told."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from curation.errors import RecipeError
from curation.pipeline import run_stage, stage_named
from curation.recipe import Recipe, load_recipe
from curation.stages.context import Context
from curation.stages.judgements import judge_facts
from curation.stages.pair_labels import labelled_scores
from curation.workspace import Workspace
from tests.models.rewards.test_judge import completion, serving
from tests.stages.conftest import sentences

STAGES = (
    "inputs",
    "hygiene",
    "prompts",
    "candidates",
    "rewards",
    "pairs",
    "judgements",
    "pair_scores",
    "pair_labels",
)


def context_of(folder: Path, url: str, *, flip: bool = False, **judge: Any) -> Context:
    rows = sentences(6)
    if flip:
        rows[1]["chosen"], rows[1]["rejected"] = rows[1]["rejected"], rows[1]["chosen"]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = {
        "sources": [{"path": str(folder / "pairs.jsonl"), "name": "source"}],
        "judge": {"model": f"judge:{url}#m?rubric=honesty", **judge},
        "encoder": None, "rewards": [], "refusals": None, "policy": None, "publish": {"datasets": ["preference"]},
    }  # fmt: skip
    context = Context(Workspace(folder / "w"), Recipe.model_validate(recipe))
    for name in STAGES:
        run_stage(context, stage_named(name))
    return context


class FarEnd:
    """A remote judge: it likes "People have known", contradicts itself on number 2, and breaks on number 3."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()

    def __call__(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        text = body["messages"][1]["content"]
        number = text.split("number ")[1].split(".")[0]
        self.asked[number] += 1
        if number == "3":
            return 200, completion("It depends.")
        first = number == "2" or text.index("People") < text.index("I do not")
        return 200, completion(
            '{"better": "A"}' if first else '{"better": "B"}', {"A" if first else "B": 0.9, "C": 0.1}
        )


def test_each_two_answers_are_judged_once_in_both_orders(tmp_path: Path) -> None:
    judge = FarEnd()
    with serving(judge) as url:
        first = context_of(tmp_path, url)
        assert judge.asked == dict.fromkeys("012345", 2)
        judge.asked.clear()
        again = context_of(tmp_path, url, delta=0.3)
        assert judge.asked == {}
        turned = context_of(tmp_path, url, flip=True)
        assert judge.asked == {}
    scores = again.workspace.read("pair_scores").join(again.workspace.read("pairs"), on="pair_id")
    assert Counter(scores["judge_verdict"]) == {"chosen": 3, "rejected": 1, "tie": 1, None: 1}
    assert scores.filter(pl.col("judge_verdict") == "rejected")["judge_probability"].to_list() == [0.0]
    assert first.reports[-1].failed == 1
    failures = turned.workspace.read("failures")
    assert failures["rule"].to_list() == ["judge_unparsable"]
    assert "depends" not in str(failures.to_dicts())
    facts = judge_facts(turned)
    assert facts["judge: pairs compared in both orders"] == "5"
    assert facts["judge: the two orders disagree"] == "20.0%"
    assert facts["judge: the first place wins twice, the second"] == "20.0%, 0.0%"


def test_verdicts_of_a_flipped_pair_change_sides(tmp_path: Path) -> None:
    with serving(FarEnd()) as url:
        context = context_of(tmp_path, url)
    labels = context.workspace.read("pair_labels").with_columns(flipped=pl.lit(value=True))
    context.workspace.overwrite("pair_labels", labels)
    plain = context.workspace.read("pair_scores")
    recipe = context.recipe.model_dump(mode="json") | {"label_noise": {"actions": {"flip": ["flip"]}}}
    turned = labelled_scores(Context(context.workspace, Recipe.model_validate(recipe)))
    both = plain.join(turned, on="pair_id", suffix="_turned").filter(pl.col("judge_verdict") != "tie")
    other = {"chosen": "rejected", "rejected": "chosen"}
    assert both["judge_verdict_turned"].to_list() == [other[said] for said in both["judge_verdict"]]
    assert both["judge_probability_turned"].to_list() == pytest.approx((1 - both["judge_probability"]).to_list())


def test_a_model_that_is_no_judge_is_an_error_of_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("sources: [{path: a.jsonl}]\njudge: {model: relevance}\n")
    with pytest.raises(RecipeError, match=r"judge\.model"):
        load_recipe(tmp_path / "recipe.yaml")

"""The strategies, caps, mixtures and curricula as a recipe asks for them, on answers that bring their scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from curation.errors import GateError, RecipeError
from curation.pipeline import RunResult, run
from curation.recipe import Recipe
from curation.recipe.loading import load_recipe
from curation.recipe.pairs import SCORED_BY
from curation.stages.arrangement import arranged_pairs
from curation.stages.context import Context
from curation.stages.pairs import STAGE
from curation.text import response_id
from curation.workspace import Workspace
from schemas.pairs import PairScores

ROWS: list[dict[str, Any]] = [
    {
        "prompt": f"What is known of number {i}?",
        "responses": [f"Answer {letter} of {i}, which is {'long ' * n}." for n, letter in enumerate("abcd")],
        "scores": scores,
        "category": "even" if i % 2 == 0 else "odd",
    }
    for i, scores in enumerate([[5, 4, 3, 2], [1, 1, 1, 1], [5, 4.5, 4, 1], [2, 5, 5, None], [3, 3, 1, 1]])
]


def recipe(folder: Path, **sections: Any) -> Recipe:
    for name, rows in (("first", ROWS[:3]), ("second", ROWS[3:])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given: dict[str, Any] = {
        "sources": [{"path": str(folder / "first.jsonl")}, {"path": str(folder / "second.jsonl")}],
        "encoder": None, "rewards": [], "refusals": None, "policy": None,
        "splits": {"train": 1.0, "validation": 0.0, "test": 0.0},
        "gates": {"max_tie_rate": 0.0, "max_duplicate_rate": 1.0},
        "publish": {"datasets": ["preference"]},
    }  # fmt: skip
    given["pairs"] = {"score": "provided", **sections.pop("pairs")}
    return Recipe.model_validate(given | sections)


def done(folder: Path, **sections: Any) -> RunResult:
    return run(recipe(folder, **sections), workspace=folder / "workspace")


def fates(result: RunResult) -> None:
    """Every pair that was built is published or rejected with a reason, and every prompt has a pair or a reason."""
    published = result.workspace.read("preference")
    rejects = result.workspace.read("rejects")
    built = set(result.workspace.read("pairs")["pair_id"])
    gone = set(rejects.filter((pl.col("table") == "pairs") & (pl.col("stage") == "preference"))["row_id"])
    assert built == set(published["pair_id"]) | gone
    assert not set(published["pair_id"]) & gone
    assert (rejects["reason"].str.len_chars() > 10).all()


@pytest.mark.parametrize(
    ("pairs", "built", "rules"),
    [
        ({"strategies": ["best_vs_each"]}, 9, ["tied_scores"]),
        ({"strategies": ["best_vs_median"]}, 3, ["tied_scores", "margin_too_small"]),
        ({"strategies": ["margin_window"], "max_margin": 1.0}, 6, ["tied_scores", "margin_outside_window"]),
        ({"strategies": ["diverse"], "per_prompt": 2}, 8, ["tied_scores"]),
        ({"strategies": ["best_vs_worst", "diverse"], "per_prompt": 1}, 4, ["tied_scores"]),
    ],
)
def test_a_strategy_is_run_and_what_it_leaves_is_explained(
    tmp_path: Path, pairs: dict[str, Any], built: int, rules: list[str]
) -> None:
    result = done(tmp_path, pairs=pairs)
    assert result.workspace.read("preference").height == built
    rejects = result.workspace.read("rejects")
    assert set(rejects.filter(pl.col("table") == "prompts")["rule"]) == set(rules)
    assert rejects.filter(pl.col("rule") == "no_score").height == 1
    assert (result.workspace.read("preference")["margin"] > 0).all()
    fates(result)


def test_prompts_that_bring_no_pair_and_no_strategy_say_which_to_name(tmp_path: Path) -> None:
    with pytest.raises(GateError, match="min_rows"):
        done(tmp_path, pairs={})
    workspace = Workspace(tmp_path / "workspace")
    rejects = workspace.read("rejects").filter(pl.col("rule") == "no_pair")
    assert rejects.height == len(ROWS)
    assert all(reason.endswith("pairs answers by their scores") for reason in rejects["reason"])
    facts = STAGE.run(Context(workspace, recipe(tmp_path, pairs={}))).facts
    assert "best_vs_worst" in facts["no source brings a pair"]


def test_caps_mixture_and_curriculum_are_applied_in_turn(tmp_path: Path) -> None:
    result = done(
        tmp_path,
        pairs={"strategies": ["all"]},
        selection={
            "max_per_prompt": 3,
            "mixture": {"sources": {"first": 1, "second": 1}, "rows": 8},
            "curriculum": {"by": "margin", "within_prompt": True},
        },
    )
    published = result.workspace.read("preference")
    assert published["source"].value_counts(sort=True).rows() == [("first", 4), ("second", 4)]
    assert published["curriculum_order"].to_list() == list(range(8))
    assert published["curriculum_tier"].is_sorted()
    assert (
        published.filter(pl.col("curriculum_tier") == 0)["prompt_id"].n_unique()
        == published["prompt_id"].n_unique()
    )
    for _, group in published.group_by("prompt_id"):
        assert group["curriculum_score"].is_sorted(descending=True)
        assert group.height <= 3
    rules = result.workspace.read("rejects")["rule"].value_counts()
    assert {"over_prompt_cap", "over_mixture_share"} <= set(rules["rule"])
    facts = next(stage.facts for stage in result.stages if stage.stage == "preference")
    assert facts["mixture: first"] == "4 of 4 wanted; 6 there"
    fates(result)


def test_a_mixture_that_falls_short_says_by_how_much(tmp_path: Path) -> None:
    mixture = {"categories": {"even": 1, "odd": 1, "absent": 2}, "rows": 12}
    result = done(tmp_path, pairs={"strategies": ["best_vs_worst"]}, selection={"mixture": mixture},
                  gates={"max_duplicate_rate": 1.0})  # fmt: skip
    facts = next(stage.facts for stage in result.stages if stage.stage == "preference")
    assert facts["mixture: absent"] == "0 of 6 wanted, 6 short; 0 there"
    fates(result)


def test_a_template_is_chosen_over_what_is_to_be_forgotten(tmp_path: Path) -> None:
    result = done(tmp_path, pairs={"strategies": ["best_vs_worst"]})
    workspace = result.workspace
    candidates = workspace.read("candidates")
    prompts = workspace.read("prompts").filter(pl.col("source") == "first")["prompt_id"]
    template = candidates.filter(pl.col("prompt_id").is_in(prompts.implode())).unique("prompt_id", keep="first")
    text = "I know nothing of it."
    template = template.with_columns(
        response=pl.lit(text),
        origin=pl.lit("template"),
        provided_score=pl.lit(None, pl.Float64),
        candidate_id=pl.Series([response_id(prompt, text) for prompt in template["prompt_id"]]),
    )
    workspace.overwrite("candidates", pl.concat([candidates, template]))
    forgetting = recipe(tmp_path, pairs={"strategies": ["template_vs_forget"], "forget_sources": ["first"]})
    STAGE.run(Context(workspace, forgetting))
    pairs = workspace.read("pairs")
    assert pairs.height == 12
    assert set(pairs["chosen_id"]) == set(template["candidate_id"])
    assert set(pairs["prompt_id"]) == set(prompts)
    others = workspace.read("rejects").filter((pl.col("stage") == "pairs") & (pl.col("table") == "prompts"))
    assert set(others["rule"]) == {"no_pair"}


def test_a_refusal_meets_a_compliance(tmp_path: Path) -> None:
    rows = [
        {"prompt": "How do I bake bread?", "expected_behaviour": "comply",
         "responses": ["I'm sorry, but I can't help with that request.",
                       "Mix flour, water, salt and yeast, let it rise, and bake it for forty minutes."]},
        {"prompt": "How do tides come about?",
         "responses": ["I'm sorry, but I can't help with that.", "The moon pulls at the water of the sea."]},
    ]  # fmt: skip
    (tmp_path / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = run(
        recipe(
            tmp_path,
            sources=[{"path": str(tmp_path / "asked.jsonl")}],
            refusals={"batch_rows": 8},
            pairs={"strategies": ["refusal_vs_compliance"]},
        ),
        workspace=tmp_path / "workspace",
    )
    (row,) = result.workspace.read("preference").to_dicts()
    assert row["chosen"][0]["content"].startswith("Mix flour")
    assert row["rejected_refusal_class"] == "full_refusal"
    rejects = result.workspace.read("rejects").filter(pl.col("table") == "prompts")
    assert rejects["rule"].to_list() == ["expected_behaviour_unknown"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("pairs: {strategies: [margin_window]}", "needs max_margin"),
        ("pairs: {min_margin: 2, max_margin: 1}", "expected more than min_margin"),
        ("pairs: {strategies: [template_vs_forget]}", "needs forget_sources"),
        ("pairs: {strategies: [template_vs_forget], forget_sources: [rows2]}", "did you mean 'rows'"),
        ("pairs: {strategies: [refusal_vs_compliance]}\nrefusals: null", "needs the section refusals"),
        ("selection: {mixture: {}}", "give weights"),
        ("selection: {mixture: {sources: {rows: -1}}}", "the weight of 'rows' is -1"),
        ("selection: {mixture: {sources: {row: 1}}}", "did you mean 'rows'"),
        ("selection: {mixture: {categories: {x: 0}}}", "nothing would be left"),
        ("selection: {curriculum: {by: strenght}}", "selection.curriculum.by"),
        ("selection: {max_per_prompt: 0}", "selection.max_per_prompt"),
        ("selection: {rules: [{score: judge_probability, min: 0.5}]}", "needs the section judge"),
        ("selection: {rules: [{score: label_noise_probability, min: 0.5}]}", "needs the section label_noise"),
        ("selection: {drop_refusal_pairs: true}\nrefusals: null", "needs the section refusals"),
        ("selection: {max_refusal_pair_share: 0.1}\nrefusals: null", "needs the section refusals"),
        ("selection: {rules: [{score: ln_ches, max: 0, missing: keep}]}\npolicy: null", "needs the section policy"),
        ("selection: {rules: [{score: cosine, max: 0.9}]}\nencoder: null", "needs the section encoder"),
        ("selection: {rules: [{score: agreement, min: 0.9}]}\nrewards: []", "needs the section rewards"),
        ("selection: {rules: [{score: chosen_change, min: 0}]}", "needs policy.output_gradients"),
        ("selection: {curriculum: {by: ches}}\npolicy: null", "'ches', which needs the section policy"),
        ("gates: {max_chosen_refusal_rate: 0.1}\nrefusals: null", "max_chosen_refusal_rate .* section refusals"),
        ("gates: {min_chosen_refusal_rate: 0.1}\nrefusals: null", "min_chosen_refusal_rate .* section refusals"),
    ],
)
def test_a_recipe_that_makes_no_sense_says_what_is_wrong(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(f"sources: [{{path: rows.jsonl}}]\n{text}\n")
    with pytest.raises(RecipeError, match=said):
        load_recipe(path)


def test_every_score_of_a_rule_but_the_length_ratio_says_what_measures_it() -> None:
    numbers = {name for name, column in PairScores.columns().items() if column.dtype.is_numeric()}
    assert {*numbers, "label_noise_probability"} - {*SCORED_BY} == {"length_ratio"}
    assert {*SCORED_BY.values()} <= {*Recipe.model_fields}


def test_a_tied_match_whose_pair_a_source_brings_is_not_published_and_rejected(tmp_path: Path) -> None:
    rows = [
        {"prompt": f"What is number {i}?", "chosen": f"It is {i}.", "rejected": f"It is not {i}.",
         "score_chosen": 3, "score_rejected": 3}
        for i in range(8)
    ]  # fmt: skip
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = run(
        recipe(
            tmp_path, sources=[{"path": str(tmp_path / "pairs.jsonl")}], gates={"max_tie_rate": 1.0},
            pairs={"strategies": ["tournament", "provided"]},
        ),
        workspace=tmp_path / "workspace",
    )  # fmt: skip
    published = set(result.workspace.read("preference")["pair_id"])
    rejects = result.workspace.read("rejects").filter(pl.col("table") == "pairs")
    assert len(published) == 8
    assert not published & set(rejects["row_id"])
    waterfall = result.workspace.read("waterfall").filter(pl.col("dataset") == "preference").sort("position")
    assert waterfall["left"][0] + waterfall["removed"][0] == len(published | set(rejects["row_id"]))
    fates(result)


def arranged(folder: Path, frame: pl.DataFrame, workspace: Workspace, **selection: Any) -> pl.DataFrame:
    asked = recipe(folder, pairs={"strategies": ["best_vs_each"]}, selection=selection)
    return arranged_pairs(Context(workspace, asked), frame).kept


def test_the_margin_of_a_flipped_pair_is_turned_round_in_a_curriculum(tmp_path: Path) -> None:
    workspace = done(tmp_path, pairs={"strategies": ["best_vs_each"]}).workspace
    frame = workspace.read("preference")
    largest = frame.sort("margin", "pair_id")["pair_id"][-1]
    flipped = frame.with_columns(flipped=pl.col("pair_id") == largest)
    order = arranged(tmp_path, flipped, workspace, curriculum={"by": "margin"})
    assert order["pair_id"][-1] == largest
    assert order["curriculum_score"][-1] == -frame["margin"].max()


def test_the_strongest_pairs_stay_under_a_cap_where_a_recipe_asks_for_other_margins(tmp_path: Path) -> None:
    workspace = done(tmp_path, pairs={"strategies": ["best_vs_each"]}).workspace
    frame = workspace.read("preference")
    strong = frame.with_columns(strength_mean=pl.col("margin"), margin=-pl.col("margin"))
    kept = arranged(tmp_path, strong, workspace, max_per_prompt=1)
    assert dict(kept.select("prompt_id", "strength_mean").rows()) == dict(
        frame.group_by("prompt_id").agg(pl.col("margin").max()).rows()
    )


@pytest.mark.parametrize(
    "selection",
    [
        {"max_per_prompt": 1},
        {"mixture": {"categories": {"refusing": 1, "other": 1}}},
        {"mixture": {"sources": {"second": 1}}},
    ],
)
def test_the_share_of_two_refusals_holds_of_what_is_left_after_cap_and_mixture(
    tmp_path: Path, selection: dict[str, Any]
) -> None:
    workspace = Workspace(tmp_path / "workspace")
    refuses = [n % 4 == 0 for n in range(40)]
    classes = ["full_refusal" if both else "compliance" for both in refuses]
    frame = pl.DataFrame(
        {
            "pair_id": [f"{n:032x}" for n in range(40)],
            "prompt_id": [f"{n if both else n % 3}" for n, both in enumerate(refuses)],
            "source": ["second" if both or n % 2 else "first" for n, both in enumerate(refuses)],
            "category": ["refusing" if both else "other" for both in refuses],
            "margin": [float(n) for n in range(40)],
            "ln_ches": [float(-n) for n in range(40)],
            "chosen_refusal_class": classes,
            "rejected_refusal_class": classes,
        }
    )
    selection = selection | {"max_refusal_pair_share": 0.25}
    asked = recipe(tmp_path, pairs={"strategies": ["best_vs_each"]}, refusals={}, selection=selection)
    found = arranged_pairs(Context(workspace, asked), frame)
    both = found.kept.filter(pl.col("chosen_refusal_class") == "full_refusal")
    assert 0 < both.height <= 0.25 * found.kept.height
    assert both.height + 1 > 0.25 * (found.kept.height + 1)
    assert set(found.kept["pair_id"]) | set(found.rejects["row_id"]) == set(frame["pair_id"])
    assert found.kept.height + found.rejects.height == frame.height
    assert "refusal_pair_surplus" in found.rejects["rule"].to_list()

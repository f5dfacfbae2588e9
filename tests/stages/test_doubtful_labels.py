"""Label evidence that says nothing, too little, or what it may not: told in a run, and never a number."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from curation.errors import InputError
from curation.pipeline import run_stage, stage_named
from curation.progress import SilentProgress
from curation.recipe import Recipe
from curation.scores.structure import length_bias, preference_cycles
from curation.stages.context import Context
from curation.stages.label_facts import label_facts
from curation.stages.pair_labels import labelled_pairs
from curation.workspace import Workspace
from tests.models.rewards.test_judge import completion, serving
from tests.stages.conftest import sentences

HERE = f"python:{__name__}"
STAGES = (
    "inputs", "hygiene", "prompts", "candidates", "embeddings", "reward_heads", "rewards", "pairs", "judgements",
    "pair_scores", "pair_labels",
)  # fmt: skip


def alike(prompts: list[Any], answers: list[str]) -> list[float]:
    return [2.0] * len(answers)


def length(prompts: list[Any], answers: list[str]) -> list[float]:
    return [float(len(answer)) for answer in answers]


def context_of(folder: Path, rows: list[dict[str, Any]], **changes: Any) -> Context:
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    plain = {
        "sources": [{"path": str(folder / "pairs.jsonl"), "name": "source"}],
        "encoder": None, "rewards": [], "refusals": None, "policy": None, "publish": {"datasets": ["preference"]},
    }  # fmt: skip
    return Context(Workspace(folder / "w"), Recipe.model_validate(plain | changes))


class Told(SilentProgress):
    """Keeps what a run says."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)


def run_all(context: Context, *, until: str = STAGES[-1]) -> None:
    for name in STAGES[: STAGES.index(until) + 1]:
        stage = stage_named(name)
        if stage.enabled(context.recipe):
            run_stage(context, stage)


def test_all_ties_are_ambiguous_and_nothing_is_flipped_or_sure(tmp_path: Path) -> None:
    actions = {"likely_flipped": ["flip"], "very_strong": ["weight"]}
    context = context_of(
        tmp_path, sentences(6), rewards=[{"model": f"{HERE}:alike"}], strength={"actions": actions}
    )
    run_all(context)
    scores, labels = context.workspace.read("pair_scores"), context.workspace.read("pair_labels")
    assert scores["strength_band"].unique().to_list() == ["ambiguous"]
    assert scores.select("strength_mean", "strength_std", "agreement", "label_probability").unique().rows() == [
        (0.0, 0.0, 0.5, 0.5)
    ]
    assert not labels["flipped"].any()
    assert labels["action"].unique().to_list() == ["keep"]


def test_the_report_and_the_run_say_the_same_of_length(tmp_path: Path) -> None:
    # By their ratios 1 : 2 is below 60 : 110; with one character more on all sides it is above.
    sizes = [(1, 2), (60, 110), (30, 20), (25, 40)]
    rows = [
        {"prompt": f"Question {i}?", "chosen": "a" * chosen, "rejected": "b" * rejected}
        for i, (chosen, rejected) in enumerate(sizes)
    ]
    context = context_of(tmp_path, rows, rewards=[{"model": f"{HERE}:length"}])
    run_all(context, until="pair_scores")

    facts = run_stage(context, stage_named("pair_labels")).facts

    name = "rank correlation of strength and length ratio"
    assert label_facts(context)[name] == f"{facts[name]:,.6g}"


def test_pairs_that_are_built_by_tied_rewards_are_rejects(tmp_path: Path) -> None:
    context = context_of(
        tmp_path, sentences(6), rewards=[{"model": f"{HERE}:alike"}], pairs={"strategies": ["best_vs_worst"]}
    )
    run_all(context)
    assert context.workspace.read("pairs").is_empty()
    rejects = context.workspace.read("rejects").filter(pl.col("stage") == "pairs")
    assert Counter(rejects.filter(pl.col("table") == "prompts")["rule"]) == {"tied_scores": 6}


def test_reviewed_labels_of_one_kind_calibrate_nothing_and_the_run_says_so(tmp_path: Path) -> None:
    context = context_of(tmp_path, sentences(24), rewards=[{"model": f"{HERE}:length"}])
    run_all(context, until="pairs")
    rows = [{"pair_id": pair, "label_right": True} for pair in context.workspace.read("pairs")["pair_id"]]
    (tmp_path / "reviewed.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    reviewed = {"labelled": str(tmp_path / "reviewed.jsonl")}
    context = context_of(tmp_path, sentences(24), rewards=[{"model": f"{HERE}:length"}], strength=reviewed)
    context.progress = told = Told()
    run_all(context, until="pair_scores")
    assert any("not calibrated: 24 labelled rows (24 right)" in note for note in told.notes)
    found = context.workspace.read("pair_scores")["label_probability"]
    assert found.is_between(0.5, 0.9).all()
    run_all(context)
    said = label_facts(context)["preference strength"]
    assert "not calibrated: 24 labelled rows (24 right)" in said
    assert "one model" in said


@pytest.mark.parametrize(
    "changes", [{"label_noise": {}}, {"rewards": [{"model": "trained"}]}], ids=["label_noise", "trained heads"]
)
def test_fewer_prompts_than_folds_are_an_error_that_names_both(tmp_path: Path, changes: dict[str, Any]) -> None:
    context = context_of(tmp_path, sentences(3), encoder={}, **changes)
    with pytest.raises(InputError, match=r"3 different prompts are fewer than the 5 folds.*folds in the recipe"):
        run_all(context)


def test_one_prompt_is_not_told_to_take_fewer_folds(tmp_path: Path) -> None:
    context = context_of(tmp_path, sentences(1), encoder={}, rewards=[{"model": "trained"}])
    with pytest.raises(InputError, match=r"1 different prompts are fewer than the 5 folds: give more rows$"):
        run_all(context)


def test_rows_without_an_annotator_are_judged_and_belong_to_nobody(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [dict(row) for row in sentences(16)]
    for number, row in enumerate(rows):
        row["annotator"] = ("ada", "ben", None, None)[number % 4]
    context = context_of(tmp_path, rows, encoder={}, label_noise={})
    run_all(context)
    labels = context.workspace.read("pair_labels")
    assert labels.height == 16
    assert labels["label_noise_probability"].is_between(0, 1).all()
    assert labels["label_noise_probability"].null_count() == 0
    named = context.workspace.read("voters").filter(pl.col("kind") == "annotator")
    assert sorted(named.select("name", "labels").rows()) == [("ada", 4), ("ben", 4)]


def test_a_grade_outside_the_judges_scale_is_a_failure_with_its_reason(tmp_path: Path) -> None:
    def far_end(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        text = body["messages"][-1]["content"]
        return 200, completion('{"score": 9}' if "number 1." in text else '{"score": 4}')

    with serving(far_end) as url:
        context = context_of(tmp_path, sentences(3), rewards=[{"model": f"judge:{url}#m"}])
        run_all(context)
    failures = context.workspace.read("failures")
    assert failures.select("rule", "value").unique().rows() == [("judge_off_scale", "9")]
    assert "scale from 1 to 5" in failures["reason"][0]
    assert failures.height == 2
    given = context.workspace.read("rewards")
    assert given["rewards"].explode().to_list() == [4.0] * 4
    scores = context.workspace.read("pair_scores")
    assert scores["strength_mean"].null_count() == 1


def test_a_verdict_that_a_judge_may_not_give_is_a_failure_with_its_reason(tmp_path: Path) -> None:
    with serving(lambda body: (200, completion('{"better": "D"}'))) as url:
        context = context_of(tmp_path, sentences(2), judge={"model": f"judge:{url}#m?rubric=honesty"})
        run_all(context)
    failures = context.workspace.read("failures")
    assert failures["rule"].unique().to_list() == ["judge_unparsable"]
    assert context.workspace.read("pair_scores")["judge_verdict"].null_count() == 2


def test_lengths_are_matched_among_the_pairs_that_are_left_and_as_flips_leave_them(tmp_path: Path) -> None:
    rows = sentences(24)
    for row in rows[::3]:
        row["chosen"], row["rejected"] = row["rejected"], row["chosen"]
    actions = {"likely_flipped": ["flip"], "ambiguous": ["drop"]}
    context = context_of(tmp_path, rows, strength={"actions": actions, "match_lengths": True})
    run_all(context, until="pair_scores")
    scores = context.workspace.read("pair_scores")
    bands = ["likely_flipped", "ambiguous", "normal", "normal"] * 6
    context.workspace.overwrite("pair_scores", scores.with_columns(strength_band=pl.Series(bands)))
    run_stage(context, stage_named("pair_labels"))

    sizes = dict(
        context.workspace.read("candidates").select("candidate_id", pl.col("response").str.len_chars()).rows()
    )
    left = [(sizes[a], sizes[b]) for a, b in labelled_pairs(context).select("chosen_id", "rejected_id").rows()]
    assert sum(a > b for a, b in left) == sum(a < b for a, b in left) > 0
    actions_done = Counter(context.workspace.read("pair_labels")["action"])
    rejects = Counter(context.workspace.read("rejects").filter(pl.col("table") == "pairs")["rule"])
    assert actions_done["drop"] == rejects["band_dropped"] + rejects["length_not_matched"] == 24 - len(left)
    assert rejects["band_dropped"] == 6


@pytest.mark.parametrize(
    "strategy", ["constructed", "template_vs_forget", "refusal_vs_compliance", "refusal_faults"]
)
def test_a_pair_whose_order_does_not_rest_on_a_label_is_never_flipped(tmp_path: Path, strategy: str) -> None:
    actions = {"likely_flipped": ["flip"], "ambiguous": ["drop"]}
    context = context_of(tmp_path, sentences(6), strength={"actions": actions})
    run_all(context, until="pair_scores")
    pairs, scores = context.workspace.read("pairs"), context.workspace.read("pair_scores")
    context.workspace.overwrite("pairs", pairs.with_columns(strategy=pl.Series([strategy] * 3 + ["provided"] * 3)))
    bands = pl.Series(["likely_flipped", "likely_flipped", "ambiguous"] * 2)
    context.workspace.overwrite("pair_scores", scores.with_columns(strength_band=bands))
    run_stage(context, stage_named("pair_labels"))
    assert context.workspace.read("pair_labels")["action"].to_list() == [
        "keep", "keep", "drop", "flip", "flip", "drop"
    ]  # fmt: skip


def circular(folder: Path, **changes: Any) -> Context:
    """A circle of three and a way out of it, two sources that contradict each other, and two plain pairs."""
    names = ("The kettle boils.", "The bridge is old.", "Nine ships came in.", "It rained on the market.")
    one, two, three, four = names
    ask = "What happened in the town today?"
    first = [
        {"prompt": ask, "chosen": c, "rejected": r}
        for c, r in ((one, two), (two, three), (three, one), (one, four))
    ]
    first += [
        {"prompt": "Who wrote this?", "chosen": "Ada did.", "rejected": "Nobody knows at all."},
        *sentences(2),
    ]
    second = [{"prompt": "Who wrote this?", "chosen": "Nobody knows at all.", "rejected": "Ada did."}]
    for name, rows in (("first", first), ("second", second)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sources = [{"path": str(folder / f"{name}.jsonl"), "name": name} for name in ("first", "second")]
    return context_of(folder, [], sources=sources, rewards=[{"model": f"{HERE}:length"}], **changes)


def test_cycles_of_a_run_are_counted_and_dropped_where_the_recipe_says_so(tmp_path: Path) -> None:
    kept = circular(tmp_path)
    run_all(kept)
    labels = kept.workspace.read("pair_labels")
    assert (labels.height, int(labels["in_cycle"].sum())) == (6, 3)
    assert labels["action"].unique().to_list() == ["keep"]
    facts = label_facts(kept)
    assert facts["pairs in a cycle"] == "3"
    assert (facts["two answers judged both ways"], facts["of them across sources"]) == ("1", "1")
    assert facts["the longer answer has the higher reward"] == "100.0%"

    dropping = circular(tmp_path, strength={"cycles": "drop"})
    result = run_stage(dropping, stage_named("pair_labels"))
    assert result is not None
    assert (result.rejected, result.facts["pairs in a cycle"]) == (3, 3)
    rejects = dropping.workspace.read("rejects").filter(pl.col("stage") == "pair_labels")
    inside = labels.filter("in_cycle")["pair_id"]
    assert dict(Counter(rejects["rule"])) == {"preference_cycle": 3}
    assert set(rejects["row_id"]) == set(inside)
    assert set(labelled_pairs(dropping)["pair_id"]) == set(labels["pair_id"]) - set(inside)


def test_a_circle_that_a_flip_breaks_is_none_and_drops_nothing(tmp_path: Path) -> None:
    strength = {"cycles": "drop", "bands": "probability", "actions": {"likely_flipped": ["flip"]}}
    context = circular(tmp_path, strength=strength | {"thresholds": (0.5, 0.6, 0.9)})
    run_all(context)
    labels = context.workspace.read("pair_labels")
    # Rewards are lengths: every pair whose chosen answer is the shorter one is turned round, and no circle is left.
    assert labels["flipped"].sum() > 0
    assert (labels["in_cycle"].sum(), labels.filter(action="drop").height) == (0, 0)
    pairs = labelled_pairs(context)
    assert not preference_cycles(pairs)["in_cycle"].any()


def test_length_controlled_strength_of_a_run_is_that_of_the_reference(tmp_path: Path) -> None:
    context = circular(tmp_path)
    run_all(context, until="pair_scores")
    pairs, scores = context.workspace.read("pairs"), context.workspace.read("pair_scores")
    texts = context.workspace.read("candidates").select("candidate_id", "response")
    sizes = dict(zip(texts["candidate_id"], texts["response"].str.len_chars(), strict=True))
    joined = pairs.join(scores, on="pair_id", maintain_order="left")
    lengths = [[sizes[one] for one in joined[f"{side}_id"]] for side in ("chosen", "rejected")]
    # Below ten pairs margins are not scaled: the model's own are length differences.
    expected = length_bias(np.subtract(*lengths), *lengths).controlled
    np.testing.assert_allclose(joined["strength_length_controlled"], expected)
    assert joined["strength_mean"].to_list() == np.subtract(*lengths).tolist()

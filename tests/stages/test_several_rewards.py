"""Several reward models in one run: what one of them fails on stays its own, and is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from curation.errors import ModelError
from curation.models.rewards import open_reward, reward_fingerprint
from curation.models.rewards.judge_parsing import RUBRICS
from curation.pipeline import run_stage, stage_named
from curation.recipe import Recipe, Reward
from curation.stages.answered import answered
from curation.stages.context import Context
from curation.stages.label_facts import label_facts
from curation.stages.rewards import candidate_rewards, reward_steps, whole_means
from curation.workspace import Workspace
from tests.models.rewards.test_judge import completion, serving
from tests.stages.conftest import sentences

STAGES = ("inputs", "hygiene", "prompts", "candidates", "rewards", "pairs", "pair_scores", "pair_labels")


def length(prompts: list[Any], answers: list[str]) -> list[float]:
    return [float(len(answer)) for answer in answers]


def people(prompts: list[Any], answers: list[str]) -> list[float]:
    """Likes the chosen answers; cannot score what has a 3 in it."""
    return [float("nan") if "3" in answer else float("People" in answer) for answer in answers]


def constant(prompts: list[Any], answers: list[str]) -> list[float]:
    return [4.0] * len(answers)


def nothing(prompts: list[Any], answers: list[str]) -> list[float]:
    return [float("nan")] * len(answers)


def too_few(prompts: list[Any], answers: list[str]) -> list[float]:
    return [1.0] * (len(answers) - 1)


def context_of(folder: Path, *models: str, **changes: Any) -> Context:
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in sentences(14)))
    recipe = {
        "sources": [{"path": str(folder / "pairs.jsonl"), "name": "source"}],
        "rewards": [{"model": f"python:{__name__}:{model}"} for model in models],
        "encoder": None, "refusals": None, "policy": None, "publish": {"datasets": ["preference"]},
    }  # fmt: skip
    return Context(Workspace(folder / "w"), Recipe.model_validate(recipe | changes))


def run_all(context: Context) -> pl.DataFrame:
    for name in STAGES:
        run_stage(context, stage_named(name))
    return context.workspace.read("pair_scores")


def test_a_model_that_fails_on_an_answer_leaves_the_others_theirs(tmp_path: Path) -> None:
    context = context_of(tmp_path, "people", "length", pairs={"strategies": ["provided", "best_vs_worst"]})
    scores = run_all(context)
    failures = context.workspace.read("failures")
    assert failures.height == 4
    assert failures["rule"].unique().to_list() == ["non_finite_reward"]
    assert scores["strength_mean"].null_count() == 0
    partial = scores.filter(pl.col("chosen_rewards").list.get(0).is_null())
    assert partial.height == 2
    assert partial["chosen_rewards"].list.get(1).null_count() == 0
    known = candidate_rewards(context, context.workspace.read("candidates")["candidate_id"])
    assert known.height == 28
    # Nothing is ranked by fewer models than what it is ranked against.
    ranked = context.workspace.read("pairs").filter(pl.col("strategy") == "best_vs_worst")
    # A later run, which asks for nothing, says so as well.
    later = run_stage(context, stage_named("rewards")).facts
    said = {name: fact for name, fact in later.items() if "without a whole reward" in name}
    expected = "4 of 28, see table failures; --retry-failed asks again"
    assert said == {"answers without a whole reward of model 1": expected}
    whole = set(known.filter(~pl.col("rewards").list.eval(pl.element().is_null()).list.any())["candidate_id"])
    assert set(ranked["chosen_id"]) | set(ranked["rejected_id"]) <= whole


def test_a_constant_model_is_left_out_of_strength(tmp_path: Path) -> None:
    both = run_all(context_of(tmp_path, "length", "constant"))
    (tmp_path / "alone").mkdir()
    alone = run_all(context_of(tmp_path / "alone", "length"))
    np.testing.assert_allclose(both["strength_mean"], alone["strength_mean"])
    assert both["strength_std"].unique().to_list() == [0.0]


def test_one_model_has_no_spread_and_no_division(tmp_path: Path) -> None:
    context = context_of(tmp_path, "length")
    scores = run_all(context)
    assert scores["strength_std"].to_list() == [0.0] * scores.height
    assert not any("Dawid" in name for name in label_facts(context))


def test_a_model_without_any_reward_is_as_if_it_were_not_there(tmp_path: Path) -> None:
    scores = run_all(context_of(tmp_path, "nothing", "length"))
    assert scores["chosen_rewards"].list.len().unique().to_list() == [1]
    assert scores["strength_mean"].null_count() == 0


def test_the_wrong_count_ends_the_run_after_the_other_models_have_done_theirs(tmp_path: Path) -> None:
    context = context_of(tmp_path, "too_few", "length")
    for name in STAGES[: STAGES.index("rewards")]:
        run_stage(context, stage_named(name))
    with pytest.raises(ModelError, match="returned 27 rewards for 28"):
        run_stage(context, stage_named("rewards"))
    kept = context.workspace.read("rewards")
    assert kept.height == 28
    assert kept["model"][0].startswith(reward_fingerprint(f"python:{__name__}:length"))


def ensemble(prompts: list[Any], answers: list[str]) -> list[list[float]]:
    return [[float(len(answer)), float("People" in answer), float(answer.count("e"))] for answer in answers]


def test_reliabilities_are_told_of_the_models_they_belong_to(tmp_path: Path) -> None:
    context = context_of(tmp_path, "ensemble", "length")
    run_all(context)
    (said,) = [value for name, value in label_facts(context).items() if "Dawid" in name]
    assert [part.rpartition(": ")[0].rpartition(":")[2] for part in said.split(", ")] == [
        "ensemble 0", "ensemble 1", "ensemble 2", "length",
    ]  # fmt: skip


@pytest.mark.parametrize("control", [False, True])
def test_the_report_says_of_strength_what_the_run_has_done(tmp_path: Path, control: bool) -> None:
    context = context_of(tmp_path, "length", strength={"length_control": control})
    run_all(context)
    assert ("length is controlled" in label_facts(context)["preference strength"]) is control


MOODS = {"angry": True}


def two_attributes(prompts: list[Any], answers: list[str]) -> list[list[float]]:
    """The second attribute fails on what has a 3 in it, as long as it is angry."""
    return [
        [float(len(answer)), float("nan") if MOODS["angry"] and "3" in answer else float("People" in answer)]
        for answer in answers
    ]


def widening(prompts: list[Any], answers: list[str]) -> list[list[float]]:
    """One value an answer in the first batch, and two from then on."""
    MOODS["seen"] = MOODS.get("seen", 0) + 1
    return [[float(len(answer))] * min(MOODS["seen"], 2) for answer in answers]


def test_an_attribute_that_fails_on_an_answer_leaves_the_other_attributes_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MOODS, "angry", value=True)
    context = context_of(tmp_path, "two_attributes", pairs={"strategies": ["provided", "best_vs_worst"]})
    scores = run_all(context)
    kept, failures = context.workspace.read("rewards"), context.workspace.read("failures")
    assert kept.height == 28
    assert failures.height == 4
    assert set(failures["reason"].str.extract(r"\((.*)\)$")) == {"value 1; the others are kept"}
    partial = kept.filter(pl.col("candidate_id").is_in(failures["row_id"].implode()))
    assert partial["rewards"].list.eval(pl.element().is_null()).to_list() == [[False, True]] * 4
    assert scores["strength_mean"].null_count() == 0
    ranked = context.workspace.read("pairs").filter(pl.col("strategy") == "best_vs_worst")
    assert not (set(ranked["chosen_id"]) | set(ranked["rejected_id"])) & set(partial["candidate_id"])

    monkeypatch.setitem(MOODS, "angry", value=False)
    run_stage(context, stage_named("rewards"))
    assert context.reports[-1].computed == 0
    again = Context(context.workspace, context.recipe, retry_failed=True)
    run_stage(again, stage_named("rewards"))
    assert again.reports[-1].computed == 4
    mended = context.workspace.read("rewards")
    assert mended["candidate_id"].n_unique() == mended.height == 28
    assert mended["rewards"].explode().null_count() == 0
    assert context.workspace.read("failures").is_empty()


def test_a_model_that_gives_another_number_of_values_later_is_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MOODS, "seen", 0)
    models = [{"model": f"python:{__name__}:widening", "batch_rows": 10}, {"model": f"python:{__name__}:length"}]
    context = context_of(tmp_path, rewards=models)
    for name in STAGES[: STAGES.index("rewards")]:
        run_stage(context, stage_named(name))
    with pytest.raises(ModelError, match="gave 2 values for an answer, and 1 for others"):
        run_stage(context, stage_named("rewards"))
    assert context.workspace.read("rewards")["model"].value_counts()["count"].sort().to_list() == [10, 28]

    # The next run's worker knows nothing of the first one's batch: what lies side by side is looked at as well.
    run_stage(context, stage_named("rewards"))
    run_stage(context, stage_named("pairs"))
    with pytest.raises(ModelError, match=r"widening' gave 2 values for an answer, and 1 for others"):
        run_stage(context, stage_named("pair_scores"))


def test_a_rubric_off_the_scale_costs_its_own_grade_and_whole_grades_are_counted(tmp_path: Path) -> None:
    def reply(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        system, user = (message["content"] for message in body["messages"])
        off = RUBRICS["harmlessness"] in system and "3" in user
        return 200, completion(
            '{"score": 9}' if off else '{"score": 4}', {"4": 0.5, "5": 0.5} if "7" in user else None
        )

    with serving(reply) as url:
        context = context_of(tmp_path, rewards=[{"model": f"judge:{url}#m?rubric=honesty,harmlessness"}])
        for name in STAGES[: STAGES.index("pairs")]:
            result = run_stage(context, stage_named(name))
    kept, failures = context.workspace.read("rewards"), context.workspace.read("failures")
    lost = kept.filter(pl.col("rewards").list.get(1).is_null())
    assert kept["rewards"].list.get(0).null_count() == 0
    assert set(lost["candidate_id"]) == set(failures["row_id"])
    assert 0 < lost.height < kept.height
    assert failures["rule"].unique().to_list() == ["judge_off_scale"]
    assert failures["reason"].str.ends_with("(harmlessness; the others are kept)").all()
    assert result is not None
    whole = kept["rewards"].explode().drop_nulls().is_in([4.0]).sum()
    assert result.facts["grades of model 1 that are whole, so no expectations"] == f"{whole} of {56 - lost.height}"
    assert whole < 56 - lost.height


def test_sampled_answers_are_not_ranked_by_the_attributes_that_are_left() -> None:
    rewards = pl.DataFrame({"candidate_id": ["a", "b"], "rewards": [[4.0, 2.0], [4.0, None]]})
    assert whole_means(rewards)["score"].to_list() == [3.0, None]


def test_relevance_is_a_model_like_the_others_in_a_run(tmp_path: Path) -> None:
    context = context_of(tmp_path, rewards=[{"model": "relevance"}, {"model": f"python:{__name__}:length"}])
    scores = run_all(context)
    first = scores.row(0, named=True)
    assert len(first["chosen_rewards"]) == 2
    candidates = context.workspace.read("candidates").join(
        context.workspace.read("prompts").select("prompt_id", "messages"), on="prompt_id"
    )
    expected = open_reward("relevance").score(candidates["messages"].to_list(), candidates["response"].to_list())
    found = candidate_rewards(context, candidates["candidate_id"])["rewards"].list.get(0).to_numpy()
    np.testing.assert_allclose(found, expected[:, 0], atol=1e-6)
    assert np.ptp(found) > 0


def test_known_answers_of_a_run_are_held_against_answers_to_their_prompts(tmp_path: Path) -> None:
    plain = context_of(tmp_path, rewards=[{"model": "relevance"}])
    run_all(plain)
    prompts = plain.workspace.read("prompts")
    one = prompts["messages"][0].to_list()
    known = tmp_path / "known.jsonl"
    known.write_text(json.dumps({"prompt": one, "reference": "Through their roots."}) + "\n")
    recipe = plain.recipe.model_copy(update={"rewards": (Reward(model="relevance", references=str(known)),)})
    context = Context(plain.workspace, recipe)
    facts = run_stage(context, stage_named("rewards")).facts
    candidates = context.workspace.read("candidates")
    own = candidates.filter(pl.col("prompt_id") == prompts["prompt_id"][0])["candidate_id"]
    said = facts["answers held against a known one, of model 1"]
    assert said == f"{len(own)} of {len(candidates)}"
    before, after = (dict(candidate_rewards(of, candidates["candidate_id"]).iter_rows()) for of in (plain, context))
    assert {name for name in before if before[name] != after[name]} == set(own)


def test_a_retry_asks_a_judge_for_the_rubric_that_is_missing_and_loses_nothing_where_it_fails(
    tmp_path: Path,
) -> None:
    asked: list[str] = []
    server = {"is off": True, "takes the key": True}

    def reply(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        system, user = (message["content"] for message in body["messages"])
        if not server["takes the key"]:
            return 401, {}
        rubric = "harmlessness" if RUBRICS["harmlessness"] in system else "honesty"
        asked.append(rubric)
        off = server["is off"] and rubric == "harmlessness" and "3" in user
        return 200, completion('{"score": 9}' if off else '{"score": 4}')

    def tables() -> tuple[pl.DataFrame, pl.DataFrame]:
        read = context.workspace.read
        return read("rewards").sort("candidate_id"), read("failures").sort("row_id")

    with serving(reply) as url:
        context = context_of(tmp_path, rewards=[{"model": f"judge:{url}#m?rubric=honesty,harmlessness"}])
        for name in STAGES[: STAGES.index("pairs")]:
            run_stage(context, stage_named(name))
        before, failures = tables()
        assert len(asked) == 56
        assert failures.height > 0

        retry = Context(context.workspace, context.recipe, retry_failed=True)
        server["takes the key"] = False
        with pytest.raises(ModelError):
            run_stage(retry, stage_named("rewards"))
        assert tables()[0].equals(before)
        assert tables()[1].equals(failures)

        server["takes the key"] = True
        run_stage(retry, stage_named("rewards"))  # still off for the same answers
        assert asked[56:] == ["harmlessness"] * failures.height
        assert tables()[0].equals(before)
        assert tables()[1].equals(failures)

        server["is off"] = False
        run_stage(retry, stage_named("rewards"))
        assert asked[56:] == ["harmlessness"] * failures.height * 2
    mended, none = tables()
    assert none.is_empty()
    assert mended["candidate_id"].to_list() == before["candidate_id"].to_list()
    assert mended["rewards"].to_list() == [[4.0, 4.0]] * 28


def test_failures_in_part_of_rows_that_a_retry_does_not_reach_are_still_known(tmp_path: Path) -> None:
    assert MOODS["angry"]
    context = context_of(tmp_path, "two_attributes")
    for name in STAGES[: STAGES.index("pairs")]:
        run_stage(context, stage_named(name))
    before = context.workspace.read("failures").sort("row_id")
    assert before.height == 4
    (step,) = reward_steps(context)
    retry = Context(context.workspace, context.recipe, retry_failed=True)
    retry.compute(step, answered(context).filter(~pl.col("candidate_id").is_in(before["row_id"].implode())))
    assert context.workspace.read("failures").sort("row_id").equals(before)

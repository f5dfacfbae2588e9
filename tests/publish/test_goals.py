"""Reward-augmented pairs: which answer is the better one under which goal, and how the goal is said."""

from __future__ import annotations

import polars as pl
import pytest

from curation.errors import InputError
from curation.publish.goals import goal_frame, goal_scores
from schemas import TABLES

SAY = "Rated {goal}."


def preference(*scores: tuple[list[float | None] | None, list[float | None] | None]) -> pl.DataFrame:
    """Rows of table ``preference`` with the rewards of both answers."""

    def said(role: str, text: str) -> dict[str, str]:
        return {"role": role, "content": text}

    rows = [
        {
            "pair_id": f"{number:032x}", "prompt_id": f"{number + 100:032x}",
            "prompt": [said("user", f"question {number}")],
            "chosen": [said("assistant", "good")], "rejected": [said("assistant", "bad")],
            "margin": 3.0, "ref_chosen_logps": -1.0, "ref_rejected_logps": -2.0, "flipped": True,
            "source": "s", "strategy": "provided", "split": "train",
            "chosen_rewards": chosen, "rejected_rewards": rejected,
        }
        for number, (chosen, rejected) in enumerate(scores)
    ]  # fmt: skip
    lists = {f"{side}_rewards": pl.List(pl.Float64) for side in ("chosen", "rejected")}
    return pl.DataFrame(rows, schema_overrides=lists)


def built(frame: pl.DataFrame, scale: tuple[float, float] | None = None) -> pl.DataFrame:
    found = goal_frame(goal_scores(frame, scale=scale), instruction=SAY)
    return TABLES["reward_augmented"].validate(found.frame)


def test_the_worked_example() -> None:
    rows = built(preference(([9.0], [6.0]))).rows(named=True)
    assert [(r["goal"], r["goal_of"]) for r in rows] == [(9.0, "chosen"), (6.0, "rejected")]
    assert [(r["chosen"][0]["content"], r["rejected"][0]["content"]) for r in rows] == [
        ("good", "bad"), ("bad", "good")
    ]  # fmt: skip
    assert [(r["chosen_goal_reward"], r["rejected_goal_reward"]) for r in rows] == [(0.0, -9.0)] * 2
    assert [r["prompt"][0] for r in rows] == [
        {"role": "system", "content": "Rated 9.0."}, {"role": "system", "content": "Rated 6.0."}
    ]  # fmt: skip
    assert all(r["prompt"][1] == {"role": "user", "content": "question 0"} for r in rows)


def test_a_prompts_own_system_message_stays() -> None:
    frame = preference(([9.0], [6.0])).with_columns(
        prompt=pl.Series([[{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello"}]])
    )
    prompt = built(frame)["prompt"][0].to_list()
    assert prompt == [{"role": "system", "content": "Be kind.\n\nRated 9.0."}, {"role": "user", "content": "Hello"}]


def test_what_holds_of_the_bare_prompt_alone_is_left_out() -> None:
    frame = built(preference(([9.0], [6.0])))
    assert not {"margin", "ref_chosen_logps", "ref_rejected_logps", "flipped"} & set(frame.columns)


def test_equal_goals_are_given_once_and_goals_that_read_the_same_are_equal() -> None:
    frame = built(preference(([5.01], [4.98]), ([2.0], [1.0])))
    assert frame.group_by("pair_id").len()["len"].sort().to_list() == [1, 2]
    assert frame.group_by("pair_id", "goal").len()["len"].max() == 1


@pytest.mark.parametrize("rewards", [(None, [1.0]), ([None], [1.0]), ([float("nan")], [1.0]), ([1.0], [])])
def test_a_pair_without_scores_is_a_reject(rewards: tuple[list[float | None] | None, list[float | None]]) -> None:
    found = goal_frame(goal_scores(preference(([9.0], [6.0]), rewards), scale=None), instruction=SAY)
    assert found.frame["pair_id"].n_unique() == 1
    assert found.rejects.select("row_id", "rule").rows() == [(f"{1:032x}", "no_goal_score")]


def test_models_in_other_units_count_alike() -> None:
    pairs = [([float(i), 1000.0 * (50 - i)], [float(i) + 1, 1000.0 * (50 - i) - 1000]) for i in range(50)]
    scored = goal_scores(preference(*pairs), scale=(1.0, 10.0))
    both = pl.concat([scored["chosen_score"], scored["rejected_score"]])
    assert both.is_between(1, 10).all()
    # What one model gives the other takes, so that a mean of equal parts hardly moves.
    assert both.max() - both.min() < 0.4  # type: ignore[operator]


def test_one_model_reaches_both_ends_and_an_outlier_does_not_move_them() -> None:
    pairs: list[tuple[list[float | None], list[float | None]]] = [
        ([float(i)], [float(i) - 0.5]) for i in range(300)
    ]
    plain = goal_scores(preference(*pairs), scale=(1.0, 10.0))
    assert (plain["rejected_score"].min(), plain["chosen_score"].max()) == (1.0, 10.0)
    wild = goal_scores(preference(*pairs, ([1e9], [0.0])), scale=(1.0, 10.0))
    assert (wild["chosen_score"][:300] - plain["chosen_score"]).abs().max() < 0.11  # type: ignore[operator]


def test_a_constant_model_asks_for_the_middle() -> None:
    scored = goal_scores(preference(([4.0], [4.0]), ([4.0], [4.0])), scale=(1.0, 10.0))
    assert scored["chosen_score"].to_list() == [5.5, 5.5]
    assert built(preference(([4.0], [4.0])), (1.0, 10.0)).height == 1


def test_an_instruction_without_the_goal_is_an_error() -> None:
    with pytest.raises(InputError, match=r"does not say \{goal\}"):
        goal_frame(goal_scores(preference(([9.0], [6.0])), scale=None), instruction="Be good.")

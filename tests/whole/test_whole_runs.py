"""Messy sources under drawn recipes, run whole: nothing is lost, turned round or told wrong."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from curation.pipeline import run
from tests.scripted_server import Scripted, scripted
from tests.whole.invariants import Row, State, faults, state_of
from tests.whole.messy import judge_reply, write_case


@pytest.fixture(scope="module")
def server() -> Iterator[Scripted]:
    with scripted(judge_reply) as found:
        yield found


def whole(folder: Path, server: Scripted, seed: int, workspace: str = "w", **changes: Any) -> State:
    recipe = write_case(folder, seed, server=server.model(), **changes)
    run(folder / "recipe.yaml", workspace=folder / workspace)
    return state_of(folder, folder / workspace, recipe)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory, server: Scripted) -> State:
    return whole(tmp_path_factory.mktemp("sound"), server, 11)


@pytest.mark.parametrize("seed", [0, 3, 4])
def test_every_row_has_an_end_and_no_label_is_turned(tmp_path: Path, server: Scripted, seed: int) -> None:
    state = whole(tmp_path, server, seed)
    assert len(state.tables["preference"]) > 0
    assert faults(state) == []


def test_a_run_that_flips_turns_round_nothing_else(sound: State) -> None:
    assert faults(sound) == []
    assert {row["flipped"] for row in sound.tables["preference"]} == {True, False}


def test_a_second_run_asks_nothing_and_writes_the_same_bytes(tmp_path: Path, server: Scripted) -> None:
    def published() -> dict[str, bytes]:
        return {str(p): p.read_bytes() for p in sorted((tmp_path / "w" / "datasets").rglob("*")) if p.is_file()}

    whole(tmp_path, server, 12)
    asked, before = len(server.asked), published()
    whole(tmp_path, server, 12)
    assert len(server.asked) == asked
    assert published() == before


def test_what_other_recipes_left_in_the_workspace_changes_nothing(tmp_path: Path, server: Scripted) -> None:
    whole(tmp_path, server, 21, recipe_seed=1)
    whole(tmp_path, server, 21, recipe_seed=2)
    after = whole(tmp_path, server, 21, recipe_seed=3)
    fresh = whole(tmp_path, server, 21, "fresh", recipe_seed=3)
    assert faults(after) == []
    assert after.files == fresh.files
    assert sorted(map(str, after.tables["rejects"])) == sorted(map(str, fresh.tables["rejects"]))


def exchanged(row: Row) -> None:
    row["chosen"], row["rejected"] = row["rejected"], row["chosen"]


def with_rewards_exchanged(row: Row) -> None:
    row["chosen_rewards"], row["rejected_rewards"] = row["rejected_rewards"], row["chosen_rewards"]


def differs_in_grade(row: Row) -> bool:
    return bool(row["chosen_rewards"] != row["rejected_rewards"])


def test_the_checker_sees_a_pair_that_is_turned_round(sound: State) -> None:
    state = deepcopy(sound)
    exchanged(next(row for row in state.tables["preference"] if differs_in_grade(row)))
    assert {fault.split(":")[0] for fault in faults(state)} >= {"texts exchanged", "reward of the other answer"}


def test_the_checker_sees_scores_on_the_wrong_side(sound: State) -> None:
    state = deepcopy(sound)
    with_rewards_exchanged(next(row for row in state.tables["preference"] if differs_in_grade(row)))
    assert [fault.split(":")[0] for fault in faults(state)] == ["reward of the other answer"] * 2


@pytest.mark.parametrize(
    ("table", "fault"),
    [
        ("inputs", "row lost"),
        ("preference", "neither"),
        ("preference_unpaired", "labels of single answers"),
        ("refusal", "answer neither in refusal"),
    ],
)
def test_the_checker_sees_a_row_that_is_gone(sound: State, table: str, fault: str) -> None:
    state = deepcopy(sound)
    state.tables[table].pop()
    assert any(fault in found for found in faults(state))


def test_the_checker_sees_a_compliance_filed_as_a_refusal(sound: State) -> None:
    state = deepcopy(sound)
    next(row for row in state.tables["refusal"] if row["kind"] == "contrast")["kind"] = "refusal"
    assert any(found.startswith("filed as refusal") for found in faults(state))


def test_the_checker_sees_a_prompt_in_two_splits(sound: State) -> None:
    state = deepcopy(sound)
    row = state.files["preference"][0]
    row["split"] = "test" if row["split"] == "train" else "train"
    assert "prompt in 2 splits" in faults(state)

"""The commands rewards, strength and label-noise, file to file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner

from curation.cli import app
from curation.cli_rewards import _attributes
from curation.commands.label_noise import run_label_noise
from curation.commands.rewards import run_rewards
from curation.commands.strength import run_strength
from curation.errors import InputError, ModelError
from tests.models.rewards.test_judge import serving

LENGTH = "python:tests.commands.test_rewards_commands:length"
STOPS = "python:tests.commands.test_rewards_commands:stops"
MOODY = "python:tests.commands.test_rewards_commands:moody"


def length(prompts: Sequence[Any], responses: Sequence[str]) -> list[float]:
    return [float(len(response)) for response in responses]


def moody(prompts: Sequence[Any], responses: Sequence[str]) -> list[float]:
    return [float("nan") if "no" in response else 1.0 for response in responses]


def stops(prompts: Sequence[Any], responses: Sequence[str]) -> list[float]:
    if "stop" in responses:
        raise RuntimeError("secret")
    return [1.0 for _ in responses]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    rows = [
        {"prompt": f"What is {n}?", "chosen": "yes it is" + "!" * n, "rejected": "no", "mine": n} for n in range(12)
    ]
    return write(tmp_path / "pairs.jsonl", [*rows, {"prompt": "p", "chosen": "", "rejected": "x", "mine": 12}])


def test_rewards_of_pairs_have_an_entry_a_model(pairs: Path, tmp_path: Path) -> None:
    done = run_rewards(pairs, tmp_path / "out.parquet", models=[LENGTH, MOODY])
    out = pl.read_parquet(tmp_path / "out.parquet")
    assert out["chosen_rewards"][3].to_list() == [12.0, 1.0]
    assert out["rejected_rewards"][0].to_list() == [2.0, None]
    assert out["mine"].to_list() == list(range(12))
    assert done.outputs == [LENGTH, MOODY]
    assert done.missing == {MOODY: 12}
    assert done.rejected == {"empty_response": 1}


def test_a_chunk_in_which_every_row_is_a_reject_has_no_rewards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("curation.commands.rewards._CHUNK_ROWS", 2)
    bad = {"prompt": "p", "chosen": "", "rejected": "x"}
    good = {"prompt": "p", "chosen": "yes", "rejected": "x"}
    out = tmp_path / "out.parquet"

    done = run_rewards(write(tmp_path / "a.jsonl", [bad, bad, good]), out, models=[LENGTH])
    assert (done.rows, done.rejected, done.outputs) == (1, {"empty_response": 2}, [LENGTH])
    assert pl.read_parquet(out)["chosen_rewards"].to_list() == [[3.0]]

    done = run_rewards(write(tmp_path / "b.jsonl", [bad, bad]), out, models=[LENGTH])
    assert (done.rows, done.rejected) == (0, {"empty_response": 2})
    assert pl.read_parquet(out).schema["rejected_rewards"] == pl.List(pl.Float64)


def test_a_model_that_breaks_off_leaves_the_others_rewards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("curation.commands.rewards._CHUNK_ROWS", 2)
    source = write(tmp_path / "in.jsonl", [{"prompt": "p", "response": word} for word in ("a", "bb", "stop", "d")])
    done = run_rewards(source, tmp_path / "out.parquet", models=[STOPS, LENGTH])
    found = pl.read_parquet(tmp_path / "out.parquet")["rewards"].to_list()
    assert found == [[1.0, 1.0], [1.0, 2.0], [None, 4.0], [None, 1.0]]
    assert done.outputs == [STOPS, LENGTH]
    assert list(done.failed) == [STOPS]
    assert "raised RuntimeError" in done.failed[STOPS]
    assert "secret" not in done.summary
    with pytest.raises(ModelError, match="raised RuntimeError"):
        run_rewards(source, tmp_path / "other.parquet", models=[STOPS])


def test_rewards_of_single_answers(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [{"prompt": "p", "response": "abc"}, {"prompt": "p", "response": "no"}])
    run_rewards(source, tmp_path / "out.jsonl", models=[MOODY])
    lines = (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["rewards"] for line in lines] == [[1.0]]
    assert pl.read_parquet(tmp_path / "out.rejects.parquet")["rule"].to_list() == ["no_reward"]


def test_strength_follows_rewards(pairs: Path, tmp_path: Path) -> None:
    run_rewards(pairs, tmp_path / "r.parquet", models=[LENGTH])
    done = run_strength(tmp_path / "r.parquet", tmp_path / "s.parquet")
    out = pl.read_parquet(tmp_path / "s.parquet")
    assert out["strength_mean"].is_sorted()
    assert set(out["agreement"]) == {1.0}
    assert any("not calibrated" in note for note in done.notes)
    assert sum(done.bands.values()) == 12


def test_strength_names_the_rows_it_rejects(tmp_path: Path) -> None:
    rows = [{"chosen_rewards": [1.0, 2.0], "rejected_rewards": [0.0, 0.0]} for _ in range(3)]
    rows[1]["chosen_rewards"] = [1.0]
    done = run_strength(write(tmp_path / "in.jsonl", rows), tmp_path / "out.parquet")
    rejects = pl.read_parquet(tmp_path / "out.rejects.parquet")
    assert rejects.select("row", "rule").rows() == [(1, "reward_count")]
    assert done.rows == 2


def test_strength_without_rewards_is_an_input_error(pairs: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="chosen_rewards"):
        run_strength(pairs, tmp_path / "out.parquet")
    assert not (tmp_path / "out.parquet").exists()


def test_label_noise_adds_its_columns(pairs: Path, tmp_path: Path) -> None:
    done = run_label_noise(pairs, tmp_path / "out.parquet", folds=3)
    out = pl.read_parquet(tmp_path / "out.parquet")
    assert out.height == 12 == sum(done.actions.values())
    assert out["label_probability"].is_between(0, 1).all()
    assert set(out["suggested_action"]) <= {"keep", "drop", "flip"}
    assert "ready reward heads" in " ".join(done.used)


def test_more_folds_than_prompts_leave_no_output(pairs: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="fewer than the 50 folds"):
        run_label_noise(pairs, tmp_path / "out.parquet", folds=50)
    assert not (tmp_path / "out.parquet").exists()


def test_band_actions_flip_the_users_own_columns_and_drop_with_a_reason(tmp_path: Path) -> None:
    rows = [
        {"chosen": f"c{n}", "rejected": f"r{n}", "chosen_rewards": [n - 6.0, n - 6.5],
         "rejected_rewards": [0.0, 0.0], "chosen_source": "C", "rejected_source": "R", "mine": n}
        for n in range(20)
    ]  # fmt: skip
    source = write(tmp_path / "in.jsonl", rows)
    actions: dict[str, Any] = {
        "likely_flipped": ["flip"],
        "ambiguous": ["drop"],
        "very_strong": ["margin", "weight"],
    }
    done = run_strength(source, tmp_path / "out.parquet", actions=actions)
    out = pl.read_parquet(tmp_path / "out.parquet")
    flipped = out.filter("flipped")
    assert flipped.height == 4
    assert flipped["chosen"].to_list() == [f"r{n}" for n in flipped["mine"]]
    assert flipped["chosen_source"].unique().to_list() == ["R"]
    assert (flipped["strength_mean"] > 0).all()
    assert flipped["chosen_rewards"].list.first().unique().to_list() == [0.0]
    assert done.rejected == {"band_dropped": 4}
    assert out.filter(pl.col("margin") > 0).height == 2
    assert out.height == 16


def test_goals_give_each_pair_twice(tmp_path: Path) -> None:
    rows = [{"chosen": "w", "rejected": "l", "chosen_rewards": [9.0], "rejected_rewards": [6.0]}]
    run_strength(write(tmp_path / "in.jsonl", rows), tmp_path / "out.parquet", goals=True)
    out = pl.read_parquet(tmp_path / "out.parquet")
    assert out.select("goal", "chosen", "rejected", "flipped", "rejected_goal_reward").rows() == [
        (9.0, "w", "l", False, -9.0),
        (6.0, "l", "w", True, -9.0),
    ]


def test_an_unknown_band_is_one_line(tmp_path: Path) -> None:
    rows = [{"chosen": "w", "rejected": "l", "chosen_rewards": [9.0], "rejected_rewards": [6.0]}]
    with pytest.raises(InputError, match="band 'strong' is not known"):
        run_strength(write(tmp_path / "in.jsonl", rows), tmp_path / "o.parquet", actions={"strong": ["drop"]})


def widens(prompts: Sequence[Any], responses: Sequence[str]) -> list[list[float]]:
    return [[1.0, 2.0] if "stop" in responses else [1.0] for _ in responses]


def test_a_model_that_gives_more_values_on_the_way_breaks_off_and_no_entry_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("curation.commands.rewards._CHUNK_ROWS", 2)
    source = write(tmp_path / "in.jsonl", [{"prompt": "p", "response": word} for word in ("a", "bb", "stop", "d")])
    widening = "python:tests.commands.test_rewards_commands:widens"
    done = run_rewards(source, tmp_path / "out.parquet", models=[widening, LENGTH])
    found = pl.read_parquet(tmp_path / "out.parquet")["rewards"].to_list()
    assert found == [[1.0, 1.0], [1.0, 2.0], [None, 4.0], [None, 1.0]]
    assert "gave 2 values for an answer, and 1 for others" in done.failed[widening]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], None),
        (["helpful", "a=b"], None),
        (["helpful", "short"], ["helpful", "short"]),
        (["helpful=2", "short=-0.5"], {"helpful": 2.0, "short": -0.5}),
        (["helpful=2", "short"], None),
        (["helpful=nan"], None),
        (["helpful=0"], None),
        (["=1"], None),
        (["short=1", "short=2"], None),
        (["short", "short"], None),
    ],
)
def test_attributes_of_the_command_are_names_or_names_with_weights(given: list[str], expected: Any) -> None:
    if expected is None and given:
        with pytest.raises(InputError, match="--attribute is"):
            _attributes(given)
    else:
        assert _attributes(given) == expected


def test_the_commands_options_reach_the_model(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [{"prompt": "Say it.", "response": "It is said."}])
    out = tmp_path / "out.parquet"
    plain = ["rewards", str(source), "-o", str(out), "--model", "relevance"]
    assert CliRunner().invoke(app, [*plain, "--encoder", "embedded"]).exit_code == 0
    result = CliRunner().invoke(app, [*plain, "--encoder", str(tmp_path / "no-such-encoder")])
    assert isinstance(result.exception, InputError)
    assert "no-such-encoder" in str(result.exception)
    for option in (["--dtype", "bfloat16"], ["--attribute", "helpful"], ["--max-length", "64"]):
        result = CliRunner().invoke(app, [*plain, *option])
        assert isinstance(result.exception, InputError)
        assert "is of no use: none of the models takes it (relevance)" in str(result.exception)


def test_a_row_without_a_reward_is_rejected_with_what_the_server_said(tmp_path: Path) -> None:
    def reply(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        long = "long" in body["messages"][-1]["content"]
        return (413, {}) if long else (200, {"data": [{"probs": [1.0]}]})

    rows = [{"prompt": "q", "chosen": "a", "rejected": "long" if n == 1 else "b"} for n in range(3)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with serving(reply) as url:
        done = run_rewards(tmp_path / "in.jsonl", tmp_path / "out.jsonl", models=[f"{url}/classify#m"])
    assert done.rejected == {"no_reward": 1}
    (reject,) = pl.read_parquet(tmp_path / "out.rejects.parquet").iter_rows(named=True)
    assert (reject["row"], reject["value"]) == (1, "413")
    assert reject["reason"] == "no model could score it: the reward server refused this row with status 413"


@pytest.mark.parametrize("other", ["rejected", 0])
def test_votes_of_several_types_are_said_not_to_count(tmp_path: Path, other: Any) -> None:
    rows = [
        {"prompt": f"Question {n}?", "chosen": f"the answer {n}", "rejected": "no",
         "votes": [{"voter": "ann", "vote": "chosen" if n % 2 else other}]}
        for n in range(6)
    ]  # fmt: skip
    done = run_label_noise(write(tmp_path / "in.jsonl", rows), tmp_path / "out.parquet", folds=2)
    assert ("column 'votes' is not used" in done.summary) == (other == 0)
    assert ("votes of 1 person" in done.summary) == (other == "rejected")


def test_an_answer_without_a_finite_reward_says_so(pairs: Path, tmp_path: Path) -> None:
    with serving(lambda body: (200, {"data": [{"score": None} for _ in body["text_2"]]})) as url:
        run_rewards(pairs, tmp_path / "out.parquet", models=[f"{url}/score#m"])
    rejects = pl.read_parquet(tmp_path / "out.rejects.parquet").filter(pl.col("rule") == "no_reward")
    assert set(rejects["reason"]) == {"no model could score it, for they gave no finite number"}

"""``curation strength`` with actions: what a flip, a goal and a rerun do to the user's own columns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from curation.cli import app
from curation.cli_labels import labels
from curation.commands.label_noise import run_label_noise
from curation.commands.strength import run_strength
from curation.errors import InputError
from curation.scores.calibration import sigmoid
from curation.scores.noise_witnesses import peoples_votes
from curation.scores.voters import METHOD_WORDS, Method

FLIP: dict[str, Any] = {"likely_flipped": ["flip"]}


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


def pair(n: int, **more: Any) -> dict[str, Any]:
    """Of 20 the first 4 are likely flipped."""
    margin = n - 5.5
    return {"n": n, "prompt": f"p{n}", "chosen": f"c{n}", "rejected": f"r{n}", "chosen_rewards": [margin],
            "rejected_rewards": [0.0]} | more  # fmt: skip


def test_a_flip_turns_what_other_commands_have_written_of_the_pair(tmp_path: Path) -> None:
    more = {
        "ches": 1.0, "difficulty": 2.5, "judge_verdict": "chosen", "judge_probability": 0.75,
        "votes": [{"voter": "v", "vote": "rejected"}], "right": "false", "annotator": "ann",
    }  # fmt: skip
    source = write(tmp_path / "in.jsonl", [pair(n, **more) for n in range(20)])
    run_strength(source, tmp_path / "out.parquet", actions=FLIP, labelled="right")
    out = pl.read_parquet(tmp_path / "out.parquet")
    columns = ("ches", "difficulty", "judge_verdict", "judge_probability", "right", "annotator")
    assert out.filter("flipped").select(columns).unique().rows() == [(None, -2.5, "rejected", 0.25, True, "ann")]
    assert out.filter("flipped")["votes"].to_list() == [[{"voter": "v", "vote": "chosen"}]] * 4
    assert out.filter(~pl.col("flipped")).select(columns).unique().rows() == [
        (1.0, 2.5, "chosen", 0.75, False, "ann")
    ]
    assert out["n"].to_list() == list(range(20))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["chosen", "tie", None], ["rejected", "tie", None]),
        ([" Rejected", "1.0", "tie"], ["chosen", "0", "tie"]),
        ([1, 0, None], [0, 1, None]),
        ([True, False, None], [False, True, None]),
        ([5, 1, 0], [5, 0, 1]),
    ],
)
def test_a_flip_turns_votes_however_they_are_written_and_called(
    tmp_path: Path, given: list[Any], expected: list[Any]
) -> None:
    ballots = [{"voter": f"v{n}", "vote": vote} for n, vote in enumerate(given)]
    source = write(tmp_path / "in.jsonl", [pair(n, ballots=ballots, seen=[{"by": "x"}]) for n in range(20)])
    run_strength(source, tmp_path / "out.parquet", actions=FLIP)
    out = pl.read_parquet(tmp_path / "out.parquet")
    assert [vote["vote"] for vote in out["ballots"][0]] == expected
    assert [vote["vote"] for vote in out["ballots"][19]] == given
    assert out["seen"].to_list() == [[{"by": "x"}]] * 20


def test_votes_of_several_types_end_a_flip(tmp_path: Path) -> None:
    rows = [pair(n, ballots=[{"voter": "v", "vote": 1 if n else "chosen"}]) for n in range(20)]
    source = write(tmp_path / "in.jsonl", rows)
    with pytest.raises(InputError, match="'ballots' cannot be turned round in a flip"):
        run_strength(source, tmp_path / "out.parquet", actions=FLIP)
    assert run_strength(source, tmp_path / "out.jsonl").rows == 20


def test_whole_rewards_of_one_side_change_places_with_the_others_fractions(tmp_path: Path) -> None:
    rows = [pair(n, rejected_rewards=[0]) for n in range(20)]
    run_strength(write(tmp_path / "in.jsonl", rows), tmp_path / "out.parquet", actions=FLIP)
    out = pl.read_parquet(tmp_path / "out.parquet")
    assert out.filter("flipped")["rejected_rewards"].to_list() == [[n - 5.5] for n in range(4)]


def test_a_csv_file_remembers_its_flips(tmp_path: Path) -> None:
    rows = pl.DataFrame(pair(n, flipped=n == 19) for n in range(20))
    lists = [pl.format("[{}]", pl.col(name).list.first()).alias(name) for name in rows.columns if "rewards" in name]
    rows.with_columns(lists).write_csv(tmp_path / "in.csv")
    run_strength(tmp_path / "in.csv", tmp_path / "out.parquet", actions=FLIP)
    out = pl.read_parquet(tmp_path / "out.parquet")
    assert out.filter("flipped")["n"].cast(pl.Int64).to_list() == [0, 1, 2, 3, 19]


def test_a_second_run_remembers_what_the_first_has_flipped(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [pair(n) for n in range(20)])
    run_strength(source, tmp_path / "once.parquet", actions=FLIP)
    run_strength(tmp_path / "once.parquet", tmp_path / "twice.parquet", actions=FLIP)
    twice = pl.read_parquet(tmp_path / "twice.parquet")
    # The first run flips rows 0 to 3; of the rest 4 and 5 are below 0, which are then among the lowest.
    assert twice["chosen"].to_list() == [f"r{n}" if n < 6 else f"c{n}" for n in range(20)]
    assert twice.filter("flipped")["n"].to_list() == [0, 1, 2, 3, 4, 5]


def test_actions_of_one_band_may_be_given_one_by_one(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [pair(n) for n in range(20)])
    given = ["--action", "very_strong=margin", "--action", "very_strong=weight"]
    done = CliRunner().invoke(labels, ["strength", str(source), "-o", str(tmp_path / "out.parquet"), *given])
    assert done.exit_code == 0, done.output
    strong = pl.read_parquet(tmp_path / "out.parquet").filter(strength_band="very_strong")
    assert strong.height > 0
    assert strong["margin"].min() == strong["strength_mean"].min()
    assert (strong["weight"] < 1).all()


def test_columns_that_no_band_asks_for_stay_as_they_are(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [pair(n, margin=1.5, weight=0.3) for n in range(20)])
    run_strength(source, tmp_path / "out.parquet", actions={"ambiguous": ["drop"]})
    out = pl.read_parquet(tmp_path / "out.parquet")
    assert out.select("margin", "weight").unique().rows() == [(1.5, 0.3)]


def test_goals_compare_the_models_that_answered_for_both(tmp_path: Path) -> None:
    row = {"chosen": "w", "rejected": "l", "chosen_rewards": [9.0, None], "rejected_rewards": [6.0, 100.0]}
    run_strength(write(tmp_path / "in.jsonl", [row]), tmp_path / "out.parquet", goals=True)
    out = pl.read_parquet(tmp_path / "out.parquet")
    assert out.select("goal", "chosen", "rejected").rows() == [(9.0, "w", "l"), (6.0, "l", "w")]


def test_one_row_of_unreadable_rewards_is_a_reject_and_the_others_are_scored(tmp_path: Path) -> None:
    rows = [pair(n) for n in range(20)] + [pair(20, chosen_rewards="n/a"), pair(21, chosen_rewards=["a"])]
    done = run_strength(write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl", actions=FLIP)
    assert done.rejected == {"unreadable_rewards": 2}
    out = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["n"] for row in out] == list(range(20))
    assert (out[0]["chosen_rewards"], out[0]["rejected_rewards"]) == ([0.0], [-5.5])


def test_rewards_of_a_csv_file_are_read(tmp_path: Path) -> None:
    rows = [{"n": n, "chosen_rewards": f"[{n - 5.5}, 1]", "rejected_rewards": "[0, null]"} for n in range(20)]
    pl.DataFrame(rows).write_csv(tmp_path / "in.csv")
    run_strength(tmp_path / "in.csv", tmp_path / "out.parquet")
    out = pl.read_parquet(tmp_path / "out.parquet")
    assert out["strength_mean"].is_sorted()
    assert out["strength_models"].unique().to_list() == [1]


def test_answers_in_two_forms_cannot_be_flipped_but_scored(tmp_path: Path) -> None:
    message = [{"role": "assistant", "content": "m"}]
    mixed = [pair(n, chosen=message if n % 2 else "c") for n in range(20)]
    with pytest.raises(InputError, match="'chosen' and 'rejected' cannot change places"):
        run_strength(write(tmp_path / "in.jsonl", mixed), tmp_path / "out.jsonl", actions=FLIP)
    run_strength(tmp_path / "in.jsonl", tmp_path / "out.jsonl", actions={"ambiguous": ["drop"]})
    both = [pair(n, chosen=message if n % 2 else "c", rejected="r" if n % 2 else message) for n in range(20)]
    run_strength(write(tmp_path / "in.jsonl", both), tmp_path / "out.jsonl", actions=FLIP)
    out = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["chosen"] for row in out[:6]] == [message, "r", message, "r", "c", message]


def test_a_flip_says_which_columns_it_leaves_alone(tmp_path: Path) -> None:
    rows = [pair(n, chosen_by="x", rating_gap=2.0, winner="chosen", right=True) for n in range(20)]
    source = write(tmp_path / "in.jsonl", rows)
    done = run_strength(source, tmp_path / "out.parquet", actions=FLIP, labelled="right")
    assert "as they were, also where flipped is true: n, chosen_by, rating_gap" in done.notes
    assert pl.read_parquet(tmp_path / "out.parquet")["winner"].to_list() == ["rejected"] * 4 + ["chosen"] * 16
    unturned = run_strength(source, tmp_path / "as.parquet", actions={"normal": ["margin"]})
    assert not any("as they were" in note for note in unturned.notes)


def test_cycles_found_before_a_flip_are_taken_back_and_the_command_says_so(tmp_path: Path) -> None:
    rows = [pair(n, in_cycle=n < 2, cycle=0 if n < 2 else None, judged_both_ways=n < 2) for n in range(20)]
    source = write(tmp_path / "in.jsonl", rows)
    done = run_strength(source, tmp_path / "out.parquet", actions=FLIP)
    out = pl.read_parquet(tmp_path / "out.parquet")
    assert out.select("in_cycle", "cycle", "judged_both_ways").unique().rows() == [(None, None, None)]
    assert "run `curation structure` again" in done.summary
    assert "structure" not in run_strength(source, tmp_path / "as.parquet", actions={"normal": ["margin"]}).summary
    assert pl.read_parquet(tmp_path / "as.parquet")["in_cycle"].sum() == 2


def test_margins_written_as_text_end_a_flip_unless_every_row_gets_another(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [pair(n, margin=1.5 if n % 2 else "2") for n in range(20)])
    with pytest.raises(InputError, match="column 'margin' cannot change its sign"):
        run_strength(source, tmp_path / "out.parquet", actions=FLIP)
    run_strength(source, tmp_path / "out.parquet", actions=FLIP | {"normal": ["margin"]})
    assert pl.read_parquet(tmp_path / "out.parquet")["margin"].min() == 0.0


def test_goals_are_not_given_twice_and_a_users_means_do_not_stop_them(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [pair(n, chosen_mean_reward=7) for n in range(20)])
    assert run_strength(source, tmp_path / "once.parquet", goals=True).rows == 40
    with pytest.raises(InputError, match="each row stands under a goal already"):
        run_strength(tmp_path / "once.parquet", tmp_path / "twice.parquet", goals=True)
    assert not (tmp_path / "twice.parquet").exists()


def votes_file(tmp_path: Path, words: list[Any]) -> Path:
    rows = [{"prompt": f"What is {n}?", "chosen": f"It is {n}, as it was.", "rejected": "no", "votes": word}
            for n, word in enumerate(words)]  # fmt: skip
    return write(tmp_path / "in.jsonl", rows)


def test_a_vote_that_is_none_rejects_its_row_alone(tmp_path: Path) -> None:
    words = [[{"voter": "a", "vote": "maybe" if n == 3 else "chosen"}] for n in range(12)]
    done = run_label_noise(votes_file(tmp_path, words), tmp_path / "out.parquet", folds=2)
    assert done.rejected == {"unreadable_votes": 1}
    rejects = pl.read_parquet(tmp_path / "out.rejects.parquet")
    assert rejects.select("row", "value").rows() == [(3, "maybe")]
    assert any("votes of 1 person on 11 rows" in used for used in done.used)


@pytest.mark.parametrize("voter", [None, ""])
def test_a_vote_of_nobody_rejects_its_row_as_in_a_run(tmp_path: Path, voter: str | None) -> None:
    words = [[{"voter": voter if n == 3 else "a", "vote": "chosen"}] for n in range(12)]
    done = run_label_noise(votes_file(tmp_path, words), tmp_path / "out.parquet", folds=2)
    assert done.rejected == {"unreadable_votes": 1}
    rejects = pl.read_parquet(tmp_path / "out.rejects.parquet")
    assert rejects.select("row", "reason").rows() == [(3, "a vote names no voter")]
    everywhere = votes_file(tmp_path, [[{"voter": voter, "vote": "chosen"}, {"voter": "a", "vote": "tie"}]] * 12)
    with pytest.raises(InputError, match="column 'votes': a vote names no voter"):
        run_label_noise(everywhere, tmp_path / "out.parquet", folds=2)


def test_without_a_row_that_can_be_read_no_bands_and_no_actions_are_said(tmp_path: Path) -> None:
    nothing = pair(0, prompt="", chosen_rewards=None, rejected_rewards=None)
    source = write(tmp_path / "in.jsonl", [nothing])
    strength = run_strength(source, tmp_path / "out.parquet")
    noise = run_label_noise(source, tmp_path / "judged.parquet")
    assert (strength.rows, strength.bands, noise.rows, noise.actions) == (0, {}, 0, {})
    assert "" not in strength.summary.split("\n")
    assert "suggested" not in noise.summary


def test_a_column_of_upvotes_is_left_alone_and_refused_by_name(tmp_path: Path) -> None:
    source = votes_file(tmp_path, list(range(12)))
    done = run_label_noise(source, tmp_path / "out.parquet", folds=2)
    assert done.rows == 12
    assert not any("votes" in used for used in done.used)
    with pytest.raises(InputError, match=r"expected a list of \{voter, vote\}"):
        run_label_noise(source, tmp_path / "out.parquet", folds=2, votes="votes")


def test_columns_of_nulls_say_nothing_and_end_nothing(tmp_path: Path) -> None:
    nulls = {"annotator": None, "chosen_rewards": None, "rejected_rewards": None}
    rows = [{"prompt": f"What is {n}?", "chosen": f"It is {n}.", "rejected": "no"} | nulls for n in range(12)]
    source = write(tmp_path / "in.jsonl", rows)
    done = run_label_noise(source, tmp_path / "out.parquet", folds=2)
    assert done.rows == 12
    assert not any("rewards in chosen_rewards" in used or "annotators" in used for used in done.used)
    assert run_strength(source, tmp_path / "strength.parquet").rejected == {"missing_rewards": 12}


def test_a_file_of_rejects_alone_has_an_output_and_reasons(tmp_path: Path) -> None:
    rows = [{"prompt": "p", "chosen": "same", "rejected": "same"}] * 3
    done = run_label_noise(write(tmp_path / "in.jsonl", rows), tmp_path / "out.parquet")
    assert (done.rows, sum(done.rejected.values())) == (0, 3)
    assert pl.read_parquet(tmp_path / "out.rejects.parquet").height == 3


@pytest.mark.parametrize("method", ["majority", "dawid_skene", "glad", "noisy_bradley_terry"])
def test_votes_are_joined_by_the_method_that_the_command_names(tmp_path: Path, method: Method) -> None:
    # Two are always of one mind; a third is against them on every row, and a fourth on every second one.
    words = [
        [{"voter": v, "vote": "chosen"} for v in "ab"]
        + [{"voter": "c", "vote": "rejected"}, {"voter": "d", "vote": "rejected" if n % 2 else "chosen"}]
        for n in range(12)
    ]
    source, out = votes_file(tmp_path, words), tmp_path / "out.parquet"
    arguments = ["label-noise", str(source), "-o", str(out), "--folds", "2", "--vote-method", method]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0
    assert f"votes of 4 people on 12 rows, joined by {METHOD_WORDS[method]}" in " ".join(done.output.split())
    found = pl.read_parquet(out)["vote_probability"]
    expected = peoples_votes(pl.DataFrame({"votes": words}), "votes", method=method)
    np.testing.assert_allclose(found, sigmoid(expected.log_odds))
    if method == "majority":
        assert found[1] == pytest.approx(0.5)


def test_a_file_of_ties_alone_says_nothing(tmp_path: Path) -> None:
    words = [[{"voter": v, "vote": "tie"} for v in "abc"] for _ in range(12)]
    done = run_label_noise(votes_file(tmp_path, words), tmp_path / "out.parquet", folds=2)
    assert (done.rows, done.rejected) == (12, {})
    assert set(pl.read_parquet(tmp_path / "out.parquet")["vote_probability"]) == {0.5}
    assert "votes of 0 people on 0 rows" in done.used

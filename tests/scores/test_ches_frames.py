"""The public function and the command: rows in, rows with scores out, reasons for the rest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from curation.commands.ches import run_ches
from curation.errors import InputError
from curation.models.policy import open_policy, policy_fingerprint
from curation.scores.ches_frames import ches
from tests import tiny_policies as tiny

COLUMNS = [
    "ches",
    "ln_ches",
    "chosen_tokens",
    "rejected_tokens",
    "chosen_logp",
    "rejected_logp",
    "difficulty",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny.save_policy(tmp_path_factory.mktemp("policy"), "llama"))


def slow(prompt: str, answers: list[str], *, raw: bool = False) -> tuple[Any, Any, list[int]]:
    """Summed states, log-probabilities and token counts, one forward per answer."""
    tokenizer = tiny.tiny_tokenizer()
    if raw:
        start = tokenizer(prompt)["input_ids"]
        ids = [tokenizer(answer, add_special_tokens=False)["input_ids"] for answer in answers]
    else:
        start = tokenizer(f"<|user|>{prompt}<|end|><|assistant|>", add_special_tokens=False)["input_ids"]
        ids = [tokenizer(f"{answer}<|end|>", add_special_tokens=False)["input_ids"] for answer in answers]
    sums, _, logps = tiny.slow_sums(tiny.tiny_model("llama"), start, ids)
    return sums, logps, [len(answer) for answer in ids]


def expect_row(row: dict[str, Any], prompt: str, chosen: str, rejected: str, *, raw: bool = False) -> None:
    (c, r), logps, (nc, nr) = slow(prompt, [chosen, rejected], raw=raw)
    assert row["ches"] == pytest.approx(c @ r - c @ c, rel=1e-4)
    assert row["ln_ches"] == pytest.approx(c @ r / (nc * nr) - c @ c / nc**2, rel=1e-4)
    assert (row["chosen_tokens"], row["rejected_tokens"]) == (nc, nr)
    assert row["chosen_logp"] == pytest.approx(logps[0], abs=1e-4)
    assert row["difficulty"] == pytest.approx(logps[1] - logps[0], abs=1e-4)


PAIRS = pl.DataFrame(
    {
        "id": [7, 8, 9],
        "prompt": ["the cat", "where is it?", "the cat"],
        "chosen": ["sat on it", "on the mat", "sat"],
        "rejected": ["on the mat", "the other cat", "sat on it"],
    }
)


def test_pairs_keep_their_columns_and_order(folder: str) -> None:
    found = ches(PAIRS, policy=folder)
    assert found.frame.columns == [*PAIRS.columns, *COLUMNS]
    assert found.frame["id"].to_list() == [7, 8, 9]
    assert found.rejects.height == 0
    for row in found.frame.iter_rows(named=True):
        expect_row(row, row["prompt"], row["chosen"], row["rejected"])


def test_raw_adds_nothing(folder: str) -> None:
    for row in ches(PAIRS, policy=folder, raw=True).frame.iter_rows(named=True):
        expect_row(row, row["prompt"], row["chosen"], row["rejected"], raw=True)


def test_pairs_of_a_list_are_not_read_as_lists_again(folder: str, tmp_path: Path) -> None:
    lists = tmp_path / "lists.jsonl"
    lists.write_text(json.dumps({"prompt": "the cat", "responses": ["sat", "mat"]}))
    policy = open_policy(folder)
    assert run_ches(lists, tmp_path / "once.parquet", policy=policy).rows == 2
    with pytest.raises(InputError, match="each row is one pair of its list of answers already"):
        run_ches(tmp_path / "once.parquet", tmp_path / "twice.parquet", policy=policy)
    with pytest.raises(InputError, match="each row is one pair"):
        ches(pl.read_parquet(tmp_path / "once.parquet"), policy=policy)


def test_responses_give_every_ordered_pair(folder: str) -> None:
    answers = ["sat on it", "on the mat", "and then"]
    found = ches(pl.DataFrame({"prompt": ["the cat"], "responses": [answers]}), policy=folder).frame
    indices = list(zip(found["chosen_index"], found["rejected_index"], strict=True))
    assert indices == [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)]
    for row in found.iter_rows(named=True):
        expect_row(row, "the cat", answers[row["chosen_index"]], answers[row["rejected_index"]])


def test_raw_keeps_a_dialogue_as_it_is_written(folder: str) -> None:
    start = "\n\nHuman: the cat\n\nAssistant:"
    frame = pl.DataFrame({"chosen": [f"{start} sat"], "rejected": [f"{start} on it"]})
    expect_row(ches(frame, policy=folder, raw=True).frame.row(0, named=True), start, " sat", " on it", raw=True)
    given = pl.DataFrame({"prompt": [start], "chosen": [" sat"], "rejected": [" on it"]})
    expect_row(ches(given, policy=folder, raw=True).frame.row(0, named=True), start, " sat", " on it", raw=True)


def test_raw_starts_right_after_a_prompt_that_the_answers_repeat(folder: str) -> None:
    start = "\n\nHuman: the cat\n\nAssistant:"
    frame = pl.DataFrame({"prompt": [start], "chosen": [f"{start} sat"], "rejected": [f"{start} on it"]})
    expect_row(ches(frame, policy=folder, raw=True).frame.row(0, named=True), start, " sat", " on it", raw=True)


def test_raw_leaves_an_answer_whole_that_begins_like_its_prompt(folder: str) -> None:
    frame = pl.DataFrame({"prompt": ["the cat"], "chosen": ["the cat sat"], "rejected": ["on it"]})
    expect_row(
        ches(frame, policy=folder, raw=True).frame.row(0, named=True), "the cat", "the cat sat", "on it", raw=True
    )


def test_raw_loses_no_turn_of_a_dialogue_that_is_longer_than_the_prompt(folder: str) -> None:
    before = "\n\nHuman: the cat\n\nAssistant: sat\n\nHuman: where?\n\nAssistant:"
    frame = pl.DataFrame({"prompt": ["the cat"], "chosen": [f"{before} on it"], "rejected": [f"{before} there"]})
    text = "user: the cat\n\nassistant: sat\n\nuser: where?"
    expect_row(ches(frame, policy=folder, raw=True).frame.row(0, named=True), text, "on it", "there", raw=True)


def test_an_open_policy_must_read_as_it_is_asked_to(folder: str, tmp_path: Path) -> None:
    policy = open_policy(folder, raw=True)
    with pytest.raises(InputError, match="opened with raw=True"):
        ches(PAIRS, policy=policy)
    PAIRS.write_parquet(tmp_path / "in.parquet")
    with pytest.raises(InputError, match="opened with raw=True"):
        run_ches(tmp_path / "in.parquet", tmp_path / "out.parquet", policy=policy)


def test_dialogues_follow_the_template(folder: str) -> None:
    frame = pl.DataFrame({"chosen": ["\n\nHuman: the cat\n\nAssistant: sat"],
                          "rejected": ["\n\nHuman: the cat\n\nAssistant: on it"]})  # fmt: skip
    expect_row(ches(frame, policy=folder).frame.row(0, named=True), "the cat", "sat", "on it")


def test_long_and_empty_rows_are_rejected_with_their_numbers(folder: str) -> None:
    frame = pl.DataFrame(
        {
            "prompt": ["the cat", "x " * 400, "the cat", "the cat", "the cat"],
            "chosen": ["sat", "sat", "", "y " * 400, "\ue000"],
            "rejected": ["mat"] * 5,
        }
    )
    found = ches(frame, policy=folder)
    assert found.frame.height == 1
    rules = dict(zip(found.rejects["row"], found.rejects["rule"], strict=True))
    assert rules == {1: "context_overflow", 2: "empty_response", 3: "context_overflow", 4: "no_answer_tokens"}
    assert "chosen" in found.rejects["reason"][2]


def test_a_bad_answer_of_a_list_leaves_the_others(folder: str) -> None:
    frame = pl.DataFrame({"prompt": ["a", "b"], "responses": [["sat", "", "mat"], ["sat", "z " * 400]]})
    found = ches(frame, policy=folder)
    assert found.frame.select("prompt", "chosen_index", "rejected_index").rows() == [("a", 0, 2), ("a", 2, 0)]
    assert sorted(zip(found.rejects["row"], found.rejects["rule"], strict=True)) == [
        (0, "empty_response"), (1, "context_overflow"), (1, "too_few_responses"),
    ]  # fmt: skip


def test_a_repeated_prompt_is_read_once(folder: str) -> None:
    policy = open_policy(folder)
    ches(PAIRS, policy=policy)
    once: int = policy.forwarded  # type: ignore[attr-defined]
    tripled = pl.concat([PAIRS, PAIRS, PAIRS])
    assert ches(tripled, policy=policy).frame.height == 9
    assert policy.forwarded == 2 * once  # type: ignore[attr-defined]


def test_command_equals_function(folder: str, tmp_path: Path) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.parquet"
    source.write_text("".join(json.dumps(row) + "\n" for row in PAIRS.iter_rows(named=True)))
    done = run_ches(source, out, policy=folder)
    assert (done.rows, done.rejected, done.method) == (3, {}, "packed")
    written, expected = pl.read_parquet(out), ches(PAIRS, policy=folder).frame
    assert written.columns == expected.columns
    assert np.allclose(written.select(COLUMNS).to_numpy(), expected.select(COLUMNS).to_numpy(), rtol=1e-6)


def test_command_writes_rejects(folder: str, tmp_path: Path) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    rows = [
        {"prompt": "a", "chosen": "b " * 400, "rejected": "c"},
        {"prompt": "a", "chosen": "b", "rejected": "c"},
    ]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = run_ches(source, out, policy=folder)
    assert (done.rows, done.rejected) == (1, {"context_overflow": 1})
    assert pl.read_parquet(tmp_path / "out.rejects.parquet")["row"].to_list() == [0]


def test_fingerprint_says_what_numbers_depend_on(folder: str) -> None:
    plain = policy_fingerprint(folder)
    others = [
        policy_fingerprint(folder, raw=True), policy_fingerprint(folder, dtype="bfloat16"),
        policy_fingerprint(folder, max_length=9), policy_fingerprint(folder, output_gradients=True),
    ]  # fmt: skip
    assert len({plain, *others}) == 5
    assert open_policy(folder).fingerprint == plain


@pytest.mark.parametrize(
    ("options", "message"),
    [({"dtype": "int8"}, "dtype"), ({"batch_tokens": 0}, "batch_tokens"), ({"max_length": 1}, "max_length")],
)
def test_wrong_arguments_are_refused(folder: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_policy(folder, **options)


def test_missing_columns_are_named(folder: str) -> None:
    with pytest.raises(InputError, match="rejected"):
        ches(pl.DataFrame({"prompt": ["a"], "chosen": ["b"]}), policy=folder)

"""``curation refusals r-tuning``: a file of answers to sure and unsure questions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner

from curation.cli import app
from curation.commands.r_tuning import run_r_tuning
from curation.errors import InputError


def file(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "answered.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_right_answers_are_sure_and_the_target_states_the_right_one(tmp_path: Path) -> None:
    path = file(
        tmp_path,
        {"prompt": "Capital of France?", "response": "Paris.", "gold": "paris", "id": 7},
        {"prompt": "Capital of Germany?", "response": "Bonn", "gold": "Berlin", "id": 8},
        {"prompt": "Capital of Spain?", "response": None, "gold": "Madrid", "id": 9},
    )
    done = CliRunner().invoke(app, ["refusals", "r-tuning", str(path), "-o", str(tmp_path / "o.parquet")])
    assert done.exit_code == 0, (done.output, done.exception)
    assert "sure 1, unsure 1" in done.output
    found = pl.read_parquet(tmp_path / "o.parquet")
    assert found.select("id", "certainty", "target", "answer_correct").rows() == [
        (7, "sure", "paris I am sure.", True),
        (8, "unsure", "Berlin I am unsure.", False),
    ]
    assert pl.read_parquet(tmp_path / "o.rejects.parquet").select("row", "rule").rows() == [(2, "no_answer")]


def test_answers_that_agree_are_sure_and_numbers_are_texts(tmp_path: Path) -> None:
    path = file(
        tmp_path,
        {"responses": [4, 4, 4], "prompt": "2 + 2?"},
        {"responses": [1, 2, 3], "prompt": "A number?"},
        {"responses": [1], "prompt": "Another?"},
    )
    said = run_r_tuning(path, tmp_path / "o.jsonl", by="entropy")
    assert "sure up to an entropy of 0.0000 nats" in said
    found = pl.read_ndjson(tmp_path / "o.jsonl")
    assert found["certainty"].to_list() == ["sure", "unsure"]
    assert found["answer_entropy"].to_list() == pytest.approx([0.0, 1.0986], abs=1e-4)
    assert pl.read_parquet(tmp_path / "o.rejects.parquet")["rule"].to_list() == ["too_few_answers"]


def test_rows_of_one_family_weigh_as_one_question(tmp_path: Path) -> None:
    spread = [["a", "a", "a", "b"], ["a", "a", "b", "b"], ["a", "a", "b", "c"], ["a", "b", "c", "d"]]
    rows = [{"answers": texts, "family_id": f"f{n}"} for n, texts in enumerate(spread)]
    run_r_tuning(file(tmp_path, *rows, *[rows[3]] * 4), tmp_path / "o.jsonl", by="entropy")
    # Two of the four questions, not four of the eight rows.
    found = pl.read_ndjson(tmp_path / "o.jsonl")["certainty"].to_list()
    assert found == ["sure", "sure", *["unsure"] * 6]


def test_texts_numbers_and_lists_may_stand_in_one_column(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"answers": ["Paris", "Lyon"], "gold": "Paris"},
        {"answers": "5", "gold": 4},
        {"answers": 4, "gold": ["4", "four"]},
        {"answers": None, "gold": "a"},
    ]
    run_r_tuning(file(tmp_path, *rows), tmp_path / "o.jsonl")
    found = pl.read_ndjson(tmp_path / "o.jsonl")
    assert found.select("certainty", "stated").rows() == [("sure", "Paris"), ("unsure", "4"), ("sure", "4")]
    assert pl.read_parquet(tmp_path / "o.rejects.parquet").select("row", "rule").rows() == [(3, "no_answer")]


def test_right_answers_may_be_numbers_and_lists(tmp_path: Path) -> None:
    path = file(tmp_path, {"answers": "The answer is 4.", "gold": 4}, {"answers": "5", "gold": 4})
    run_r_tuning(path, tmp_path / "o.parquet")
    assert pl.read_parquet(tmp_path / "o.parquet")["certainty"].to_list() == ["sure", "unsure"]
    path = file(tmp_path, {"answers": ["two"], "gold": ["2", "two"]})
    run_r_tuning(path, tmp_path / "o.parquet")
    assert pl.read_parquet(tmp_path / "o.parquet")["certainty"].to_list() == ["sure"]


def only_spanish_questions(prompts: list[Any], answers: list[str], golds: Any) -> list[bool]:
    return [prompt[0]["content"].startswith("¿") for prompt in prompts]


def test_a_verifier_of_the_users_sees_the_question(tmp_path: Path) -> None:
    path = file(
        tmp_path, *({"prompt": text, "answers": "x", "gold": "y"} for text in ("¿Qué?", "What?"))
    )  # fmt: skip
    run_r_tuning(path, tmp_path / "o.parquet", verifier=f"python:{__name__}:only_spanish_questions")
    assert pl.read_parquet(tmp_path / "o.parquet")["certainty"].to_list() == ["sure", "unsure"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"answers": "x"}, "no column 'gold'"),
        ({"text": "x", "gold": "y"}, "no column 'answers'"),
        ({"answers": {"a": "x"}, "gold": "y"}, "column 'answers' holds Struct.*expected texts"),
    ],
)
def test_a_file_that_does_not_fit_is_named_by_its_column(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        run_r_tuning(file(tmp_path, row), tmp_path / "o.parquet")


def test_a_row_whose_texts_are_none_is_a_reject_and_not_the_end(tmp_path: Path) -> None:
    path = file(
        tmp_path,
        {"prompt": "1?", "response": "4", "gold": False, "id": 0},
        {"prompt": "2?", "response": "4", "gold": ["4", "four"], "id": 1},
        {"prompt": "3?", "response": {"a": 1}, "gold": "4", "id": 2},
        {"prompt": "4?", "response": "5", "gold": "4", "id": 3},
        {"prompt": "5?", "response": "", "gold": "4", "id": 4},
    )
    said = run_r_tuning(path, tmp_path / "o.parquet")
    assert "sure 1, unsure 1" in said
    found = pl.read_parquet(tmp_path / "o.parquet")
    assert found.select("id", "certainty").rows() == [(1, "sure"), (3, "unsure")]
    rejects = pl.read_parquet(tmp_path / "o.rejects.parquet")
    assert rejects.select("row", "rule", "value").rows() == [
        (0, "not_text", "gold"), (2, "not_text", "response"), (4, "no_answer", ""),
    ]  # fmt: skip

"""Columns of texts in some rows and other values in others: from command to command, and through other programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from curation.commands.decontaminate import run_decontaminate
from curation.commands.dedup import run_dedup
from curation.commands.refusal_labels import run_refusals_rate, run_sample_for_labelling
from curation.commands.streams import open_stream
from curation.commands.strength import run_strength
from curation.errors import InputError
from curation.prompts.rows import normalise_pairs
from curation.prompts.sources import read_source

ASKED = 'What is "it",\nin short?'


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def said(text: str, role: str = "user") -> list[dict[str, str]]:
    return [{"role": role, "content": text}]


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("evaluations", [[ASKED, said("other")], [said(ASKED), "other"]])
def test_an_evaluation_set_of_texts_and_messages_is_compared_by_its_texts(
    tmp_path: Path, evaluations: list[Any]
) -> None:
    rows = write(tmp_path / "in.jsonl", [{"prompt": ASKED}, {"prompt": "Nothing of it."}])
    against = write(tmp_path / "set.jsonl", [{"prompt": prompt} for prompt in evaluations])
    run_dedup(against, tmp_path / "set.parquet", column="prompt")
    for name in ("set.jsonl", "set.parquet"):
        run_decontaminate(rows, tmp_path / "out.jsonl", against=[tmp_path / name])
        assert read(tmp_path / "out.jsonl") == [{"prompt": "Nothing of it."}]


@pytest.mark.parametrize("name", ["again.parquet", "again.csv", "again.ndjson"])
def test_a_column_whose_mark_another_program_has_dropped_is_refused(tmp_path: Path, name: str) -> None:
    rows = [{"prompt": ASKED, "chosen": "yes", "rejected": "no"}] * 3
    source = write(tmp_path / "in.jsonl", [*rows, {**rows[0], "prompt": said(ASKED)}])
    run_dedup(source, tmp_path / "ours.parquet", column=["rejected", "prompt"])
    frame, again = pl.read_parquet(tmp_path / "ours.parquet"), tmp_path / name
    {"parquet": frame.write_parquet, "csv": frame.write_csv, "ndjson": frame.write_ndjson}[name.split(".")[1]](
        again
    )

    with pytest.raises(InputError, match=r"again\.\w+: column 'prompt' holds JSON text in every row"):
        run_dedup(again, tmp_path / "out.jsonl", column="prompt")
    with (
        pytest.raises(InputError, match="column 'prompt' holds JSON text in every row"),
        open_stream(again, tmp_path / "out.jsonl", shapes=("pair",)) as stream,
    ):
        list(stream.chunks())
    with pytest.raises(InputError, match="column 'prompt' holds JSON text in every row"):
        read_source(str(again), name="again")
    with pytest.raises(InputError, match="column 'prompt' holds JSON text in every row"):
        normalise_pairs(frame)
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize(
    "prompts",
    [
        ['"Quoted"', '"Quoted, too"'],
        ["12", "true"],
        ['["a", "b"]', '{"a": 1}'],
        ['{"from": "Rome", "to": "Pisa"}', '[{"name": "Bo", "role": "cook", "content": "soup"}]'],
        [json.dumps(said("Go on.")), "Go on."],
        ['"Two\\nlines"', "Two lines"],
    ],
)
def test_texts_that_look_like_json_are_texts(tmp_path: Path, prompts: list[str]) -> None:
    source = write(tmp_path / "in.jsonl", [{"prompt": prompt} for prompt in prompts])
    with open_stream(source, tmp_path / "out.jsonl", shapes=("prompt",)) as stream:
        assert [rows["prompt"].to_list() for rows in stream.chunks()] == [[said(prompt) for prompt in prompts]]


@pytest.mark.parametrize("name", ["in.jsonl", "in.csv"])
def test_json_text_is_told_by_all_rows_and_not_by_those_of_a_chunk(tmp_path: Path, name: str) -> None:
    asked = json.dumps(said("Why?"))
    for prompts in (["plain", *[asked] * 3], [*[asked] * 3, "plain"]):
        pl.DataFrame({"prompt": prompts}).write_csv(tmp_path / name) if name.endswith("csv") else write(
            tmp_path / name, [{"prompt": prompt} for prompt in prompts]
        )
        for needs in ({"shapes": ("prompt",)}, {"text": ("prompt",)}):
            with open_stream(tmp_path / name, tmp_path / "out.jsonl", chunk_rows=2, **needs) as stream:
                assert sum(rows.height for rows in stream.chunks()) == 4
    write(tmp_path / "all.jsonl", [{"prompt": asked}] * 3)
    with (
        pytest.raises(InputError, match="holds JSON text in every row"),
        open_stream(tmp_path / "all.jsonl", tmp_path / "out.jsonl", shapes=("prompt",), chunk_rows=2),
    ):
        pass  # pragma: no cover


def test_a_margin_of_several_types_stays_what_it_is_where_no_band_asks_for_one(tmp_path: Path) -> None:
    margins = ["none" if n % 2 else n for n in range(20)]
    rewards = [{"chosen_rewards": [n - 5.5], "rejected_rewards": [0.0]} for n in range(20)]
    rows = [{**row, "margin": margin} for row, margin in zip(rewards, margins, strict=True)]
    source = write(tmp_path / "in.jsonl", rows)
    for name in ("out.parquet", "out.jsonl"):
        run_strength(source, tmp_path / name, actions={"normal": ["weight"]})
    run_strength(tmp_path / "out.parquet", tmp_path / "again.jsonl")
    for name in ("out.jsonl", "again.jsonl"):
        assert [row["margin"] for row in read(tmp_path / name)] == margins


def test_a_sheet_shows_the_texts_of_answers_in_several_forms(tmp_path: Path) -> None:
    answers = ["No.", said('Mix "it"\nwell.', "assistant")] * 5
    rows = [
        {"prompt": ASKED, "response": answer, "refusal_probability": 0.5, "group": 1 if n % 2 else "a"}
        for n, answer in enumerate(answers)
    ]
    detected, sheet = write(tmp_path / "in.jsonl", rows), tmp_path / "sheet.jsonl"
    run_sample_for_labelling(detected, sheet, size=10)
    drawn = read(sheet)
    assert {row["response"] for row in drawn} == {"No.", 'Mix "it"\nwell.'}
    assert [row["group"] for row in drawn] == [rows[row["row"]]["group"] for row in drawn]

    filled = write(tmp_path / "filled.jsonl", [{**row, "label": int(row["response"] == "No.")} for row in drawn])
    rates = run_refusals_rate(detected, filled, by="group").rates
    assert rates["group"].to_list() == [None, "1", "a"]
    assert rates["rate"].to_list() == [0.5, 0.0, 1.0]

"""The loop of the stand-alone commands: order, columns, rejects."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from curation.commands.decontaminate import run_decontaminate
from curation.commands.dedup import run_dedup
from curation.commands.select import run_select
from curation.commands.streams import open_stream
from curation.errors import InputError
from curation.files import rejects_path
from curation.prompts.sources import read_source

PAIRS: list[dict[str, Any]] = [
    {"id": i, "prompt": f"Question {i}?", "chosen": f"yes {i}", "rejected": f"no {i}", "extra": {"k": [i]}}
    for i in range(7)
]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def lengths(source: Path, output: Path, *, chunk_rows: int | None = 2) -> str:
    with open_stream(source, output, shapes=("pair",), chunk_rows=chunk_rows) as stream:
        for rows in stream.chunks():
            stream.write(rows.select("row", length=pl.col("chosen").str.len_chars()))
    return stream.summary()


@pytest.mark.parametrize("name", ["out.parquet", "out.jsonl"])
@pytest.mark.parametrize("chunk_rows", [1, 3, None])
def test_rows_keep_their_order_and_their_columns(tmp_path: Path, name: str, chunk_rows: int | None) -> None:
    output = tmp_path / name

    lengths(write(tmp_path / "in.jsonl", PAIRS), output, chunk_rows=chunk_rows)

    frame = pl.read_parquet(output) if name.endswith("parquet") else pl.read_ndjson(output)
    assert frame.columns == ["id", "prompt", "chosen", "rejected", "extra", "length"]
    assert frame.drop("length").to_dicts() == PAIRS
    assert not rejects_path(output).exists()


def test_faults_go_to_the_rejects_and_the_count_is_in_the_summary(tmp_path: Path) -> None:
    rows = [*PAIRS]
    rows[1] = {**rows[1], "chosen": None}
    rows[4] = {**rows[4], "chosen": "", "extra": {"k": []}}
    output = tmp_path / "out.parquet"

    summary = lengths(write(tmp_path / "in.jsonl", rows), output)

    assert pl.read_parquet(output)["id"].to_list() == [0, 2, 3, 5, 6]
    rejects = pl.read_parquet(rejects_path(output))
    assert rejects.columns == ["row", "rule", "value", "reason"]
    assert rejects.select("row", "rule").rows() == [(1, "null_response"), (4, "empty_response")]
    assert "5 rows written" in summary
    assert "7 read" in summary
    assert "2 rejected" in summary


def test_rejects_of_an_earlier_run_do_not_stay(tmp_path: Path) -> None:
    output = tmp_path / "out.parquet"
    lengths(write(tmp_path / "bad.jsonl", [{**PAIRS[0], "chosen": ""}, PAIRS[1]]), output)
    assert rejects_path(output).exists()

    lengths(write(tmp_path / "good.jsonl", PAIRS), output)

    assert not rejects_path(output).exists()


def test_when_every_row_is_rejected_the_output_is_empty_and_typed(tmp_path: Path) -> None:
    output = tmp_path / "out.parquet"

    lengths(write(tmp_path / "in.jsonl", [{**PAIRS[0], "chosen": ""}]), output)

    frame = pl.read_parquet(output)
    assert frame.height == 0
    assert frame.columns[:4] == ["id", "prompt", "chosen", "rejected"]


def test_a_row_may_be_written_several_times_and_not_at_all(tmp_path: Path) -> None:
    with open_stream(write(tmp_path / "in.jsonl", PAIRS), tmp_path / "out.parquet", shapes=("pair",)) as stream:
        for _ in stream.chunks():
            stream.write(pl.DataFrame({"row": [5, 5, 2], "i": [0, 1, 0]}))
            stream.reject(0, "too_short", "5", "shorter than 6")

    frame = pl.read_parquet(tmp_path / "out.parquet")
    assert frame.select("id", "i").rows() == [(5, 0), (5, 1), (2, 0)]
    assert stream.rejected == {"too_short": 1}


def test_a_new_column_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [{**row, "length": row["id"] or "mixed"} for row in PAIRS])

    lengths(source, tmp_path / "out.jsonl")

    assert pl.read_ndjson(tmp_path / "out.jsonl")["length"].to_list() == [5] * 7


def test_a_users_column_called_row_is_kept(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [{**pair, "row": 90 + pair["id"]} for pair in PAIRS])

    lengths(source, tmp_path / "out.parquet")

    assert pl.read_parquet(tmp_path / "out.parquet")["row"].to_list() == [90, 91, 92, 93, 94, 95, 96]


def test_text_columns_are_never_null_or_empty(tmp_path: Path) -> None:
    rows = [
        {"anchor": "a", "n": 1},
        {"anchor": None, "n": 2},
        {"anchor": " ", "n": 3},
        {"anchor": "x\x00", "n": 4},
    ]
    source = write(tmp_path / "in.jsonl", rows)

    with open_stream(source, tmp_path / "out.parquet", text=("anchor",), columns=("n",)) as stream:
        seen = [chunk.rows() for chunk in stream.chunks()]

    assert seen == [[(0, "a", 1)]]
    assert stream.rejected == {"null_anchor": 1, "empty_anchor": 1, "nul_character": 1}


def test_a_text_column_of_messages_is_read_as_text(tmp_path: Path) -> None:
    said = [{"role": "user", "content": "Hi!"}]
    source = write(tmp_path / "in.jsonl", [{"prompt": said}, {"prompt": [{"role": "x", "content": "Hi!"}]}])

    with open_stream(source, tmp_path / "out.parquet", text=("prompt",)) as stream:
        seen = [chunk.rows() for chunk in stream.chunks()]

    assert seen == [[(0, "Hi!")]]
    assert stream.rejected == {"unknown_role": 1}


def test_a_missing_column_is_named_before_anything_is_written(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [{"anchr": "a"}])

    with (
        pytest.raises(InputError, match=r"no column 'anchor' \(did you mean 'anchr'\?\); found anchr"),
        open_stream(source, tmp_path / "out.parquet", text=("anchor",)),
    ):
        pass

    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_a_missing_column_that_a_command_makes_names_the_command(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", PAIRS)

    with (
        pytest.raises(InputError, match=r"no column 'chosen_rewards' \(`curation rewards` makes it\)"),
        open_stream(source, tmp_path / "out.parquet", columns=["chosen_rewards"]),
    ):
        pass


def test_mixed_columns_are_spoken_of(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [{**PAIRS[0], "note": 1}, {**PAIRS[1], "note": "one"}])

    summary = lengths(source, tmp_path / "out.parquet")

    assert "kept as JSON text, because their types differ between rows: note" in summary


def test_prompts_of_texts_and_of_messages_are_the_same_after_a_command_wrote_them(tmp_path: Path) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Question 1?"}]
    source = write(tmp_path / "in.jsonl", [PAIRS[0], {**PAIRS[1], "prompt": messages}])
    once, twice = tmp_path / "once.parquet", tmp_path / "twice.parquet"
    lengths(source, once)
    lengths(once, twice)

    prompts = []
    for path in (source, once, twice):
        with open_stream(path, tmp_path / "out.jsonl", shapes=("pair",)) as stream:
            prompts += [rows["prompt"].to_list() for rows in stream.chunks()]

    assert prompts[0] == prompts[1] == prompts[2]


@pytest.mark.parametrize(("last", "turns"), [("You are brief.", 2), ("gpt-4", 1)])
def test_a_system_column_is_told_by_all_rows_and_not_by_the_first(tmp_path: Path, last: str, turns: int) -> None:
    rows = [{**PAIRS[0], "system": last if n == 99 else "terse"} for n in range(100)]
    source = write(tmp_path / "in.jsonl", rows)

    with open_stream(source, tmp_path / "out.parquet", shapes=("pair",)) as stream:
        (read,) = stream.chunks()

    assert set(read["prompt"].list.len()) == {turns}
    assert set(read_source(str(source), name="s").rows["messages"].list.len()) == {turns}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({}, None),
        ({"n": 1, "chosen_response": "c"}, None),
        ({"question": "q", "instruction": "i"}, "prompt is read from prompt, not from instruction, question"),
        ({"system": "gpt-4"}, "system is read from no column, not from system"),
        ({"system": "Be kind."}, None),
    ],
)
def test_of_several_columns_for_one_field_it_is_said_which_is_read(
    tmp_path: Path, more: dict[str, Any], said: str | None
) -> None:
    source = write(tmp_path / "in.jsonl", [{"prompt": "p", "chosen": "c", "rejected": "r", **more}])
    with open_stream(source, tmp_path / "out.jsonl", shapes=("pair",)) as stream:
        for rows in stream.chunks():
            stream.write(rows.select("row"))
    assert stream.summary().splitlines()[1:] == ([said] if said else [])


def test_columns_that_are_replaced_are_spoken_of(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [{**pair, "length": "long"} for pair in PAIRS])

    assert "replaced, because the file had columns of these names: length" in lengths(source, tmp_path / "a.jsonl")
    assert "replaced, because" not in lengths(write(tmp_path / "in.jsonl", PAIRS), tmp_path / "b.jsonl")


@pytest.mark.parametrize("chosen", ["yes", ""])
def test_rejects_never_take_the_place_of_the_input(tmp_path: Path, chosen: str) -> None:
    source = tmp_path / "out.rejects.parquet"
    pl.DataFrame([{**PAIRS[0], "chosen": chosen}]).write_parquet(source)
    before = source.read_bytes()

    with pytest.raises(InputError, match="its rejects would take the place of the input"):
        lengths(source, tmp_path / "out.jsonl")

    assert source.read_bytes() == before


@pytest.mark.parametrize("name", ["in.jsonl", "folder/../in.jsonl", "link.jsonl"])
def test_the_output_never_takes_the_place_of_the_input(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    source = write(tmp_path / "in.jsonl", [*PAIRS, {**PAIRS[0], "chosen": ""}])
    (tmp_path / "link.jsonl").symlink_to(source)
    before = source.read_bytes()

    with pytest.raises(InputError, match="is the input: the rows that are rejected would be gone"):
        lengths(source, tmp_path / name)

    assert source.read_bytes() == before
    assert not rejects_path(source).exists()


def test_the_output_never_takes_the_place_of_another_file_that_is_read(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", PAIRS)
    known = write(tmp_path / "known.jsonl", [{"prompt": "Question 1?"}])
    before = known.read_bytes()
    for command in (
        lambda: run_dedup(source, known, column="prompt", against=known),
        lambda: run_decontaminate(source, known, against=[known]),
        lambda: run_select(source, known, method="dsir", rows=2, target=str(known)),
    ):
        with pytest.raises(InputError, match=r"known\.jsonl is read, too"):
            command()
    assert known.read_bytes() == before


def test_an_output_that_cannot_hold_the_columns_is_named_before_anything_is_computed(tmp_path: Path) -> None:
    source = tmp_path / "in.parquet"
    pl.DataFrame([{**PAIRS[0], "image": b"\x89PNG"}]).write_parquet(source)

    with (
        pytest.raises(InputError, match="column 'image' holds Binary, and JSON cannot hold bytes"),
        open_stream(source, tmp_path / "out.jsonl", shapes=("pair",)),
    ):
        raise AssertionError("the command went on")

"""Reading every format, writing whole, and the faults of files."""

from __future__ import annotations

import gzip
import json
import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.errors import InputError, WorkspaceError
from curation.files import (
    ROW,
    open_input,
    open_output,
    read_frame,
    rejects_frame,
    rejects_path,
    write_frame,
    write_rejects,
)

ROWS: list[dict[str, Any]] = [
    {"prompt": "Name a colour.", "n": 1, "meta": {"tags": ["a", "b"], "by": None}},
    {"prompt": "Zähle bis drei – bitte.", "n": 2, "meta": {"tags": [], "by": "me"}},
    {"prompt": "多少钱？\nline two", "n": 3, "meta": {"tags": ["c"], "by": "you"}},
]


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def write_jsonl_gz(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode(), mtime=0))
    return path


def write_json(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text(json.dumps(rows, indent=1))
    return path


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    pl.DataFrame(rows).write_parquet(path)
    return path


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("in.jsonl", write_jsonl),
        ("in.jsonl.gz", write_jsonl_gz),
        ("in.json", write_json),
        ("lines.json", write_jsonl),
        ("in.parquet", write_parquet),
    ],
)
@pytest.mark.parametrize("chunk_rows", [1, 2, None])
def test_read_gives_the_same_rows_in_every_format(
    tmp_path: Path, name: str, write: Callable[..., Path], chunk_rows: int | None
) -> None:
    chunks = list(open_input(write(tmp_path / name, ROWS)).chunks(chunk_rows))

    frame = pl.concat(chunks)
    assert frame[ROW].to_list() == [0, 1, 2]
    assert frame.drop(ROW).to_dicts() == ROWS
    assert len(chunks) == (1 if chunk_rows is None else -(-3 // chunk_rows))


def test_read_takes_an_object_of_lists_and_a_list_in_an_object(tmp_path: Path) -> None:
    columns = tmp_path / "columns.json"
    columns.write_text('{"a": [1, 2], "b": ["x", "y"]}')
    wrapped = tmp_path / "wrapped.json"
    wrapped.write_text('{"version": 1, "data": [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]}')

    assert read_frame(columns)[0].drop(ROW).equals(read_frame(wrapped)[0].drop(ROW))


def test_read_csv_keeps_text_as_written_and_types_what_is_typed(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text(
        'code,n,score,ok,list,text\n007,1,1.5,True,"[1, 2]",nan\n'
        '12,2,nan,false,[],"two\nlines, ""quoted"""\n,,,,,\n'
    )

    frame, _ = read_frame(path)

    assert frame["code"].to_list() == ["007", "12", None]
    assert frame["n"].to_list() == [1, 2, None]
    assert frame["score"].dtype == pl.Float64
    assert frame["score"].is_nan().to_list() == [False, True, None]
    assert frame["ok"].to_list() == [True, False, None]
    assert frame["list"].to_list() == [[1, 2], [], None]
    assert frame["text"].to_list() == ["nan", 'two\nlines, "quoted"', None]


def test_read_csv_takes_answers_that_are_numbers_for_texts(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    turn = json.dumps([{"role": "user", "content": "2+2"}]).replace('"', '""')
    path.write_text(
        "prompt,chosen,rejected,text,query,n\n"
        f'"{turn}",4,1.50,"[1, 2]","[""a"", null]",4\n"{turn}",true,007,,"[""b""]",5\n'
    )
    frame, _ = read_frame(path)
    assert frame.drop("prompt", "query", ROW).rows() == [("4", "1.50", "[1, 2]", 4), ("true", "007", None, 5)]
    assert frame["query"].to_list() == [["a", None], ["b"]]
    assert frame["prompt"][1].to_list() == [{"role": "user", "content": "2+2"}]


def test_read_csv_takes_a_byte_order_mark_and_long_cells(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_bytes(b"\xef\xbb\xbfprompt,response\nhello," + b"x" * 200_000 + b"\n")

    frame, _ = read_frame(path)

    assert frame.columns == ["prompt", "response", ROW]
    assert frame["response"].str.len_chars().to_list() == [200_000]


@pytest.mark.parametrize(
    ("name", "text"), [("in.jsonl", '{"prompt": "hello"}\n'), ("in.json", '[{"prompt": "hello"}]')]
)
def test_read_json_takes_a_byte_order_mark(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8-sig")

    frame, _ = read_frame(tmp_path / name)

    assert frame.drop(ROW).to_dicts() == [{"prompt": "hello"}]


@pytest.mark.parametrize(
    "text", ["prompt;n\na, b;1\n", '"prompt";"n"\r\n"a, b";"1"\r\n', "prompt\tn\na, b\t1\n", "prompt|n\na, b|1\n"]
)
def test_read_csv_takes_what_spreadsheets_put_between_cells(tmp_path: Path, text: str) -> None:
    path = tmp_path / "in.csv"
    path.write_text(text, encoding="utf-8-sig", newline="")

    frame, _ = read_frame(path)

    assert frame.drop(ROW).to_dicts() == [{"prompt": "a, b", "n": 1}]


def test_read_csv_takes_commas_where_names_hold_a_semicolon(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text("a;b,c\n1,2\n", encoding="utf-8")

    frame, _ = read_frame(path)

    assert frame.drop(ROW).to_dicts() == [{"a;b": 1, "c": 2}]


def test_read_csv_takes_a_byte_order_mark_before_a_name_in_quotes(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_bytes(b'\xef\xbb\xbf"prompt, asked","response"\r\n"hello","a\r\nb"\r\n')

    frame, _ = read_frame(path)

    assert frame.drop(ROW).to_dicts() == [{"prompt, asked": "hello", "response": "a\r\nb"}]


@pytest.mark.parametrize(
    "rows",
    [
        [{"a": {"x": [1, 2.5]}}],
        [{"a": {"x": []}}, {"a": None}, {"a": {"x": [None, 1, 0.5]}}],
        [{"a": [{"x": [4, 3.5]}, {"x": None}]}, {"a": []}],
    ],
)
def test_integers_and_floats_may_stand_in_one_list_inside_an_object(
    tmp_path: Path, rows: list[dict[str, Any]]
) -> None:
    frame, _ = read_frame(write_jsonl(tmp_path / "in.jsonl", rows))

    assert frame.drop(ROW).to_dicts() == rows


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("in.jsonl", '{"a": 1, "b": {"k": 1}}\n{"a": 2, "b": {"k": 1, "k": 2}}\n{"a": 3, "a": 4}\n{"a": 5}\n'),
        ("in.json", '[{"a": 1, "b": {"k": 1}},{"a": 2, "b": {"k": 1, "k": 2}},{"a": 3, "a": 4},{"a": 5}]'),
    ],
)
def test_a_key_that_stands_twice_is_a_reject_and_not_the_later_value(
    tmp_path: Path, name: str, content: str
) -> None:
    (tmp_path / name).write_text(content)

    frame, rejects = read_frame(tmp_path / name)

    assert frame.select(ROW, "a").rows() == [(0, 1), (3, 5)]
    assert [(r.row, r.rule, r.value) for r in rejects] == [(1, "repeated_key", "k"), (2, "repeated_key", "a")]


def test_columns_stay_together_where_one_of_them_is_of_objects(tmp_path: Path) -> None:
    path = tmp_path / "columns.json"
    path.write_text('{"prompt": ["a", "b"], "meta": [{"k": 1}, {"k": 2}]}')

    assert read_frame(path)[0].drop(ROW).to_dicts() == [
        {"prompt": "a", "meta": {"k": 1}},
        {"prompt": "b", "meta": {"k": 2}},
    ]


def test_a_column_that_has_the_name_of_the_row_numbers_is_not_lost(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "in.jsonl", [{ROW: 7, "a": 1}])

    with pytest.raises(InputError, match=f"a column is called '{ROW}'.*rename it"):
        open_input(path)


def test_read_hub_address_through_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A folder owner/name below the working directory stands for the Hub, as datasets has it.
    folder = tmp_path / "owner" / "name"
    folder.mkdir(parents=True)
    write_jsonl(folder / "train.jsonl", ROWS[:2])
    write_jsonl(folder / "test.jsonl", ROWS[2:])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")

    assert read_frame("hf://owner/name")[0].drop(ROW).to_dicts() == ROWS[:2]
    assert read_frame("hf://owner/name:test")[0].drop(ROW).to_dicts() == ROWS[2:]
    with pytest.raises(InputError, match="hf://owner/name:dev cannot be loaded"):
        open_input("hf://owner/name:dev")


def test_read_rejects_a_malformed_hub_address() -> None:
    with pytest.raises(InputError, match="expected hf://owner/name"):
        open_input("hf://just-a-name")


def test_mixed_column_is_kept_as_json_and_written_back_unchanged(tmp_path: Path) -> None:
    rows = [{"a": "text", "b": 1}, {"a": ["list"], "b": 2.5}, {"a": {"k": 3}, "b": None}, {"a": None, "b": 4}]
    source = open_input(write_jsonl(tmp_path / "in.jsonl", rows))

    (frame,) = source.chunks()
    write_frame(frame.drop(ROW), tmp_path / "out.jsonl", mixed=source.mixed)

    assert source.mixed == {"a"}
    assert frame["a"].to_list() == ['"text"', '["list"]', '{"k": 3}', None]
    assert frame["b"].to_list() == [1.0, 2.5, None, 4.0]
    assert [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().rstrip("\n").split("\n")] == rows


def test_mixed_column_is_known_again_in_parquet(tmp_path: Path) -> None:
    rows = [{"a": "text", "b": "x"}, {"a": ["list"], "b": "y"}, {"a": None, "b": "z"}]
    source = open_input(write_jsonl(tmp_path / "in.jsonl", rows))
    write_frame(next(source.chunks()).drop(ROW), tmp_path / "once.parquet", mixed=source.mixed)

    again = open_input(tmp_path / "once.parquet")
    write_frame(next(again.chunks()).drop(ROW), tmp_path / "out.jsonl", mixed=again.mixed)

    assert again.mixed == {"a"}
    assert [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()] == rows


def test_a_column_that_replaced_a_mixed_one_in_parquet_is_not_json(tmp_path: Path) -> None:
    write_frame(pl.DataFrame({"a": ['"text"', '["list"]']}), tmp_path / "in.parquet", mixed=frozenset("a"))
    table = pq.read_table(tmp_path / "in.parquet")
    pq.write_table(table.set_column(0, "a", pa.array(["42", "a text"])), tmp_path / "edited.parquet")

    assert open_input(tmp_path / "edited.parquet").mixed == frozenset()


def test_a_value_that_is_no_json_in_a_mixed_column_of_parquet_is_rejected(tmp_path: Path) -> None:
    values = ['"text"', "a text", None, '["list"]']
    write_frame(pl.DataFrame({"a": values}), tmp_path / "in.parquet", mixed=frozenset("a"))
    source = open_input(tmp_path / "in.parquet")

    (frame,) = source.chunks()

    assert frame["a"].to_list() == ['"text"', None, '["list"]']
    assert frame[ROW].to_list() == [0, 2, 3]
    assert [(reject.row, reject.rule, reject.value) for reject in source.rejects] == [(1, "malformed_json", "a")]


def test_large_integers_are_never_rounded(tmp_path: Path) -> None:
    rows = [{"id": 2**60 + 1, "both": 2**60 + 1, "huge": 2**70}, {"id": 2, "both": 0.5, "huge": 1}]
    source = open_input(write_jsonl(tmp_path / "in.jsonl", rows))

    (frame,) = source.chunks()

    assert frame["id"].to_list() == [2**60 + 1, 2]
    assert frame["both"].to_list() == [str(2**60 + 1), "0.5"]
    assert frame["huge"].to_list() == [str(2**70), "1"]


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**80), 2**80)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=2), inner, max_size=3),
    max_leaves=6,
)


def same(read: Any, written: Any) -> bool:
    """Equal but for what frames do: missing keys are null, integers among floats are floats."""
    if isinstance(read, dict) and isinstance(written, dict):
        return all(same(value, written.get(key)) for key, value in read.items()) and written.keys() <= read.keys()
    if isinstance(read, list) and isinstance(written, list):
        return len(read) == len(written) and all(same(a, b) for a, b in zip(read, written, strict=True))
    return bool(read == written) and isinstance(read, bool) == isinstance(written, bool)


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(st.dictionaries(st.sampled_from(["a", "b", "row"]), json_values), min_size=1, max_size=4))
def test_any_json_rows_survive_a_round_trip(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]
) -> None:
    folder = tmp_path_factory.mktemp("trip")
    path = write_jsonl(folder / "in.jsonl", rows)
    if not any(rows):
        with pytest.raises(InputError, match=r"none of its . rows has a column"):
            open_input(path)
        return
    source = open_input(path)

    with open_output(folder / "out.jsonl", mixed=source.mixed) as writer:
        for frame in source.chunks(2):
            writer.write(frame.drop(ROW))

    lines = (folder / "out.jsonl").read_text().rstrip("\n").split("\n")
    assert len(lines) == len(rows)
    assert all(same(json.loads(line), row) for line, row in zip(lines, rows, strict=True))


def test_rows_that_no_frame_can_hold_are_rejected(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text(
        '{"a": "fine \\ud83d\\ude00"}\n{"a": "half \\ud800"}\n{"a": {"\\udfff": 1}}\n{"a": "nul \\u0000"}\n'
    )

    frame, rejects = read_frame(path)

    assert frame[ROW].to_list() == [0, 3]
    assert [(r.row, r.rule, r.value) for r in rejects] == [
        (1, "invalid_unicode", "a"),
        (2, "invalid_unicode", "a"),
    ]


def test_parquet_text_that_is_not_utf8_is_rejected(tmp_path: Path) -> None:
    broken = pa.Array.from_buffers(pa.string(), 3, pa.array([b"ok", b"\xff\xfe", b"ok"]).buffers())
    pq.write_table(pa.table({"n": [1, 2, 3], "a": broken}), tmp_path / "in.parquet")

    frame, rejects = read_frame(tmp_path / "in.parquet")

    assert frame["n"].to_list() == [1, 3]
    assert [(r.row, r.rule, r.value) for r in rejects] == [(1, "invalid_unicode", "a")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("e.jsonl", b"", "is empty"),
        ("e.jsonl", b"\n \n", "holds no rows"),
        ("e.json", b"  ", "is empty"),
        ("e.json", b"[]", "holds no rows"),
        ("e.csv", b"a,b\n", "holds no rows"),
        ("half.jsonl", b'{"a": 1}\n\n{"a": 2, "b', "line 3 is not JSON.*ends in the middle"),
        ("brace.jsonl", b'{"a": 1}\n{"a": 2\n{"a": 3}\n', "line 2 is not JSON: Expecting ',' .* at column 8"),
        ("bad.jsonl", b'{"a": 1}\n{"a": }\n{"a": 2}\n', "line 2 is not JSON"),
        ("list.jsonl", b'{"a": 1}\n[1]\n', "line 2 is a list, expected an object"),
        ("deep.jsonl", b'{"a": ' + b"[" * 100_000 + b"\n", "line 1 is JSON nested too deeply"),
        ("latin.jsonl", b'{"a": 1}\n{"a": "caf\xe9"}\n', "line 2 is not UTF-8: byte 0xe9"),
        ("utf16.jsonl", '{"a": 1}\n'.encode("utf-16"), "line 1 is not UTF-8.* is UTF-16: convert it"),
        ("packed.csv", gzip.compress(b"a\n1\n", mtime=0), "line 1 is not UTF-8.* is gzip: let its name end in .gz"),
        ("latin.csv", b"a,b\n1,caf\xe9\n", "line 2 is not UTF-8"),
        ("latin.json", b'[\n{"a": "caf\xe9"}]', "line 2 is not UTF-8"),
        ("half.json", b'[\n{"a": 1},\n{"a": ', "line 3 is not JSON"),
        ("comma.json", b'[\n{"a": 1}\n{"a": 2}]', "line 3 is not JSON"),
        ("number.json", b"12", "expected a list of objects"),
        ("keys.json", b'{"a": {"b": 1}}', "found an object with keys a; expected a list of objects"),
        ("short.csv", b"a,b\n1,2\n3\n", "line 3 has 1 cells, expected 2"),
        ("quote.csv", b'a,b\n1,"2\n3,4\n', "is not CSV"),
        ("twice.csv", b"a,a\n1,2\n", "names column 'a' twice"),
        ("plain.jsonl.gz", b'{"a": 1}\n', "not whole gzip after line 0"),
        ("torn.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 9, mtime=0)[:-12], "not whole gzip after line"),
        ("bytes.parquet", b"PAR1 and then nothing", "not a whole parquet file"),
        ("what.xml", b"<a/>", "no format has the suffix '.xml', expected .jsonl"),
        ("what.jsonl.zst", b"x", r"or hf://.*; unpack it \(zstd -d\)"),
        ("what.tsv", b"a\tb\n", r"or hf://.*; write it with commas: pandas\.read_csv"),
        ("mac.csv", b"a,b\r1,2\r", "line 1 is not CSV: a carriage return stands in a cell without quotes"),
    ],
)
def test_a_broken_file_is_named_with_its_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)

    with pytest.raises(InputError, match=message) as caught:
        read_frame(path)

    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "caf" not in str(caught.value)


def test_columns_that_pyarrow_does_not_know_or_of_one_name_are_no_torn_file(tmp_path: Path) -> None:
    pl.DataFrame({"prompt": ["a"], "x": pl.Series([2**100], dtype=pl.Int128)}).write_parquet(
        tmp_path / "wide.parquet"
    )
    with pytest.raises(InputError, match=r"wide.parquet: a column is of a type that cannot be read here .*64 bits"):
        open_input(tmp_path / "wide.parquet")
    inner = pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], names=["k", "k"])
    for columns, what in (
        ([("x", pa.array(["a"])), ("x", pa.array(["b"]))], "two columns have the name 'x'"),
        ([("x", inner)], "two columns in 'x' have the name 'k'"),
    ):
        names, arrays = zip(*columns, strict=True)
        pq.write_table(pa.Table.from_arrays(list(arrays), names=list(names)), tmp_path / "twice.parquet")
        with pytest.raises(InputError, match=what):
            open_input(tmp_path / "twice.parquet")


@pytest.mark.parametrize("kind", [pa.decimal256(50, 2), pa.list_(pa.struct([("y", pa.decimal256(50, 2))]))])
def test_a_column_that_polars_panics_at_is_an_input_error(tmp_path: Path, kind: Any) -> None:
    table = pa.table({"prompt": ["a"], "x": pa.array([None], kind)})
    pq.write_table(table, tmp_path / "in.parquet")
    with pytest.raises(InputError, match=r"in.parquet: column 'x' holds .*decimal256\(50, 2\)"):
        open_input(tmp_path / "in.parquet")


def test_a_torn_parquet_is_an_input_error(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "in.parquet", ROWS)
    path.write_bytes(path.read_bytes()[:-20])

    with pytest.raises(InputError, match="its footer cannot be read"):
        open_input(path)


def test_a_parquet_with_a_broken_page_says_after_which_row(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    pl.DataFrame({"a": [f"text number {i}" for i in range(4000)]}).write_parquet(path, row_group_size=1000)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 400] = b"\xff" * 400
    path.write_bytes(bytes(data))

    with pytest.raises(InputError, match=r"breaks after row \d+ of 4000"):
        list(open_input(path).chunks(500))


@pytest.mark.parametrize("zone", ["Mars/Phobos", "+05:30", "Z"])
def test_a_time_zone_that_polars_does_not_know_is_named(tmp_path: Path, zone: str) -> None:
    times = pa.array([{"at": [1]}], type=pa.struct([("at", pa.list_(pa.timestamp("us", tz=zone)))]))
    pq.write_table(pa.table({"prompt": ["a"], "when": times}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=f"column 'when' holds times of the time zone '{re.escape(zone)}'"):
        read_frame(tmp_path / "a.parquet")


@pytest.mark.parametrize("zone", ["UTC", "+01:00", "Asia/Kolkata"])
def test_times_of_known_zones_are_read(tmp_path: Path, zone: str) -> None:
    times = pa.array([1_000_000], type=pa.timestamp("us", tz=zone))
    pq.write_table(pa.table({"prompt": ["a"], "when": times}), tmp_path / "a.parquet")
    frame, _ = read_frame(tmp_path / "a.parquet")
    assert frame["when"].dt.timestamp("us").to_list() == [1_000_000]


def test_an_empty_parquet_is_an_input_error(tmp_path: Path) -> None:
    pl.DataFrame(schema={"prompt": pl.String}).write_parquet(tmp_path / "in.parquet")

    with pytest.raises(InputError, match=r"is empty: it has columns \(prompt\) and no rows"):
        open_input(tmp_path / "in.parquet")


def test_a_missing_file_and_a_folder_are_input_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        open_input(tmp_path / "nothing.jsonl")
    with pytest.raises(InputError, match="is a folder"):
        open_input(tmp_path)


@pytest.mark.parametrize("name", ["out.parquet", "out.jsonl", "out.jsonl.gz"])
def test_written_rows_are_read_back_and_written_the_same_again(tmp_path: Path, name: str) -> None:
    frame = pl.DataFrame(ROWS)
    for folder in ("one", "two"):
        with open_output(tmp_path / folder / name) as writer:
            writer.write(frame[:1])
            writer.write(frame[1:])

    assert read_frame(tmp_path / "one" / name)[0].drop(ROW).to_dicts() == ROWS
    assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_column_of_nulls_can_be_written_and_read(tmp_path: Path) -> None:
    write_frame(pl.DataFrame({"a": [None, None]}), tmp_path / "out.parquet")

    assert read_frame(tmp_path / "out.parquet")[0]["a"].to_list() == [None, None]


def test_nan_is_null_in_jsonl(tmp_path: Path) -> None:
    write_frame(pl.DataFrame({"a": [1.5, float("nan"), float("inf")]}), tmp_path / "out.jsonl")

    assert (tmp_path / "out.jsonl").read_text() == '{"a":1.5}\n{"a":null}\n{"a":null}\n'


def test_nan_is_null_in_jsonl_in_a_mixed_column_too(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"a": NaN}\n{"a": [1, -Infinity]}\n{"a": "NaN"}\n')
    source = open_input(tmp_path / "in.jsonl")

    (frame,) = source.chunks()
    write_frame(frame.drop(ROW), tmp_path / "out.jsonl", mixed=source.mixed)

    assert (tmp_path / "out.jsonl").read_text() == '{"a":null}\n{"a":[1,null]}\n{"a":"NaN"}\n'


@pytest.mark.parametrize("value", [b"\x89PNG", [b"\x89PNG"], {"bytes": b"\x89PNG", "path": None}])
def test_bytes_are_refused_where_the_output_is_json(tmp_path: Path, value: Any) -> None:
    frame = pl.DataFrame({"image": [value]})

    with pytest.raises(InputError, match=r"column 'image' holds .*JSON cannot hold bytes.*parquet"):
        write_frame(frame, tmp_path / "out.jsonl")

    write_frame(frame, tmp_path / "out.parquet")
    assert pl.read_parquet(tmp_path / "out.parquet").equals(frame)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "out.jsonl").write_text("old\n")

    with pytest.raises(pl.exceptions.ColumnNotFoundError), open_output(tmp_path / "out.jsonl") as writer:
        writer.write(pl.DataFrame(ROWS).select("nothing there"))

    assert [p.name for p in tmp_path.iterdir()] == ["out.jsonl"]
    assert (tmp_path / "out.jsonl").read_text() == "old\n"


@pytest.mark.skipif(os.name != "posix", reason="locks of files are POSIX's here")
def test_what_a_killed_command_left_goes_and_what_is_still_written_stays(tmp_path: Path) -> None:
    import fcntl

    output = tmp_path / "out.jsonl"
    beside = ("1-0123abcd", "1-89abcdef")
    dead, live = (tmp_path / f".out.jsonl.{name}.tmp" for name in beside)
    others = [tmp_path / name for name in (".out.jsonl.gz.1-0123abcd.tmp", ".out.jsonl.mine.tmp", "out.jsonl.tmp")]
    for path in (dead, live, *others):
        path.write_text("half")
    with live.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with open_output(output) as first:
            first.write(pl.DataFrame({"a": [1]}))
            write_frame(pl.DataFrame({"a": [2]}), output)  # of another command: the first goes on
    assert output.read_text() == '{"a":1}\n'
    assert sorted(tmp_path.iterdir()) == sorted([output, live, *others])
    write_rejects(rejects_frame(), output)
    assert not live.exists()


def test_an_output_suffix_is_checked_first(tmp_path: Path) -> None:
    with (
        pytest.raises(InputError, match=r"found suffix '.xlsx', expected one of .parquet"),
        open_output(tmp_path / "out.xlsx"),
    ):
        pass


def test_a_place_that_cannot_be_written_is_a_workspace_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(WorkspaceError, match=r"cannot write .*out.parquet: .*nothing was written"):
        write_frame(pl.DataFrame(ROWS), tmp_path / "file" / "out.parquet")
    with pytest.raises(WorkspaceError, match=r"cannot write /proc/out.parquet"):
        write_frame(pl.DataFrame(ROWS), "/proc/out.parquet")


@pytest.mark.parametrize("name", ["out.parquet", "out.jsonl", "out.jsonl.gz"])
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, name: str) -> None:
    # A limit on the size of files stands for the full disk: writing fails the same way, at any point.
    script = (
        "import sys, signal, polars as pl\n"
        "from curation.errors import WorkspaceError\n"
        "from curation.files import write_frame\n"
        "import random; r = random.Random(0)\n"
        "frame = pl.DataFrame({'a': [r.randbytes(50).hex() for _ in range(20_000)]})\n"
        "try:\n    write_frame(frame, sys.argv[1])\n"
        "except WorkspaceError as error:\n    print(error)\n"
    )

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))

    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / name)],
        capture_output=True,
        text=True,
        preexec_fn=limit,
        check=True,
    )

    assert done.stdout.count("\n") == 1
    assert "cannot write" in done.stdout
    assert "File too large" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["out.parquet", "out.jsonl", "out.jsonl.gz"])
def test_rejects_stand_beside_the_output(name: str) -> None:
    assert rejects_path(Path("folder") / name) == Path("folder/out.rejects.parquet")


def test_rejects_have_their_columns_even_when_empty() -> None:
    assert rejects_frame().schema == {
        "row": pl.Int64,
        "rule": pl.String,
        "value": pl.String,
        "reason": pl.String,
    }


def test_memory_is_bounded_by_the_chunk(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    with path.open("w") as file:
        for _ in range(30):
            file.write(json.dumps({"a": "x" * 3_000_000}) + "\n")

    sizes = [frame.height for frame in open_input(path).chunks()]

    assert sum(sizes) == 30
    assert max(sizes) <= 23

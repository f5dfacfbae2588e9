"""``curation refusals`` on pairs: the verdicts on both answers, and what is said of those that have none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from curation.commands.refusals import run_refusals
from curation.models.chat.asking import VERDICT
from curation.models.refusals import open_refusal_judge
from curation.refusals.detection import detect_refusals
from tests.scripted_server import scripted

COLUMNS = ("refusal_probability", "refusal_class", "refusal_kind")
REFUSES, HELPS = "I'm sorry, but I can't help with that.", "Soak the beans overnight and boil them for an hour."


def pairs(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def pair(chosen: str, rejected: str, prompt: str = "How are dried beans cooked?", **more: Any) -> dict[str, Any]:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, **more}


def test_each_answer_has_the_verdict_that_it_has_alone(tmp_path: Path) -> None:
    rows = [pair(HELPS, REFUSES), pair(REFUSES, HELPS), pair("Boil them.", "I won't answer that.")]
    done = run_refusals(pairs(tmp_path, *rows), tmp_path / "out.parquet")
    written = pl.read_parquet(tmp_path / "out.parquet")
    for side in ("chosen", "rejected"):
        alone = detect_refusals(pl.DataFrame({"response": [row[side] for row in rows]}))
        assert written.select(f"{side}_{c}" for c in COLUMNS).rows() == alone.select(COLUMNS).rows()
    assert written["chosen_refusal_class"].to_list() == ["compliance", "full_refusal", "compliance"]
    assert written["rejected_refusal_class"].to_list() == ["full_refusal", "compliance", "full_refusal"]
    assert "refusal_category" in written.columns
    assert done.classes == {"compliance": 3, "partial_refusal": 0, "full_refusal": 3}
    assert "chosen: compliance 2, partial_refusal 0, full_refusal 1" in done.summary
    assert "rejected: compliance 1, partial_refusal 0, full_refusal 2" in done.summary


def test_a_pair_s_columns_and_messages_do_not_hide_it(tmp_path: Path) -> None:
    talk = [{"role": "user", "content": "Beans?"}, {"role": "assistant", "content": HELPS}]
    run_refusals(pairs(tmp_path, pair(HELPS, REFUSES, messages=talk)), tmp_path / "out.jsonl")
    (row,) = pl.read_ndjson(tmp_path / "out.jsonl").to_dicts()
    assert (row["chosen_refusal_class"], row["rejected_refusal_class"]) == ("compliance", "full_refusal")
    assert [m["content"] for m in row["messages"]] == ["Beans?", HELPS]


def test_a_calibration_draws_the_line_of_both_answers_by_their_category(tmp_path: Path) -> None:
    plain = run_refusals(pairs(tmp_path, pair(HELPS, REFUSES)), tmp_path / "plain.parquet")
    before = pl.read_parquet(tmp_path / "plain.parquet")
    between = (before["rejected_refusal_probability"][0] + 1) / 2
    content = {"version": 1, "slope": 1.0, "intercept": 0.0, "threshold": between, "thresholds": {}}
    (tmp_path / "c.json").write_text(json.dumps(content | {"detector": None}))
    done = run_refusals(tmp_path / "pairs.jsonl", tmp_path / "out.parquet", calibration=tmp_path / "c.json")
    assert plain.classes["full_refusal"] == 1
    assert done.classes == {"compliance": 2, "partial_refusal": 0, "full_refusal": 0}
    after = pl.read_parquet(tmp_path / "out.parquet")
    assert after["rejected_refusal_probability"].to_list() == pytest.approx(
        before["rejected_refusal_probability"].to_list()
    )


def test_a_verdict_on_one_answer_is_kept_where_a_judge_gave_none_on_the_other(tmp_path: Path) -> None:
    def judge(text: str, seed: int) -> tuple[str, str]:
        return ("hm" if "odd" in text else '{"verdict": "C", "kind": null}'), "stop"

    rows = [pair("odd", "One."), pair("Two.", "Three."), pair("Four.", "odd"), pair("odd 1", "odd 2")]
    with scripted(judge) as server:
        detector = open_refusal_judge(server.model(), asking=VERDICT)
        done = run_refusals(pairs(tmp_path, *rows), tmp_path / "out.parquet", model=detector, taxonomy=None)
    written = pl.read_parquet(tmp_path / "out.parquet")
    assert written.select("chosen", "chosen_refusal_class", "rejected_refusal_class").rows() == [
        ("odd", None, "full_refusal"),
        ("Two.", "full_refusal", "full_refusal"),
        ("Four.", "full_refusal", None),
    ]
    rejects = pl.read_parquet(tmp_path / "out.rejects.parquet")
    assert rejects.select("row", "rule", "value").rows() == [
        (0, "unreadable_verdict", "chosen"),
        (2, "unreadable_verdict", "rejected"),
        (3, "unreadable_verdict", ""),
    ]
    assert done.classes["full_refusal"] == 4
    assert "2 of them lack only the verdict on one answer: the other is in the output" in done.summary


def test_a_file_without_a_usable_pair_has_the_columns_and_no_row(tmp_path: Path) -> None:
    done = run_refusals(pairs(tmp_path, pair("Same.", "Same.")), tmp_path / "out.parquet")
    assert (done.rows, done.rejected) == (0, {"chosen_equals_rejected": 1})
    written = pl.read_parquet(tmp_path / "out.parquet")
    assert written.height == 0
    assert {f"{side}_{name}" for side in ("chosen", "rejected") for name in COLUMNS} <= set(written.columns)

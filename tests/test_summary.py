"""What a run says at its end: datasets in a fixed order, and words for one thing as for several."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import polars as pl

from curation.summary import run_summary

MINED = {"stage": "retrieval", "rule": "relative_margin", "removed": 3, "threshold": 0.05}


def result(waterfall: list[dict[str, Any]]) -> Any:
    none = {"anchors_short": None, "next_threshold": None, "next_left": None, "threshold": None}
    rejects = pl.DataFrame(schema=dict.fromkeys(("table", "row_id", "stage", "rule"), pl.String))
    tables = {"waterfall": pl.DataFrame([none | row for row in waterfall]), "rejects": rejects}
    workspace = SimpleNamespace(read=tables.get, report_path="report.html", table_path=lambda name: name)
    return SimpleNamespace(workspace=workspace, stages=[], computed=0, reused=2, changed=False, seconds=1.0)


def test_datasets_are_in_one_order_however_their_rows_lie() -> None:
    rows = [
        {"dataset": name, "position": position, "stage": "s", "rule": f"{name}_{position}", "removed": 0, "left": 9}
        for name, position in (("retrieval", 1), ("preference", 1), ("retrieval", 0), ("preference", 0))
    ]

    said = run_summary(result(rows))

    named = [line.split()[1] for line in said if " left" in line]
    assert named == ["preference_0", "preference_1", "retrieval_0", "retrieval_1"]


def test_one_anchor_that_is_short_is_one() -> None:
    rows = [
        {"dataset": "retrieval", "position": short, "left": 9, "anchors_short": short, **MINED}
        for short in (0, 1, 2)
    ]

    said = [line.split("left")[1] for line in run_summary(result(rows)) if " left" in line]

    assert said == ["", "; 1 anchor short", "; 2 anchors short"]

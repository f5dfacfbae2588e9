"""What sources say of their answers, and what they do not say."""

from __future__ import annotations

from typing import Any

import polars as pl

from curation.candidates.trusted import source_verdicts

TYPES = {
    "prompt_id": pl.String, "kind": pl.String, "chosen_index": pl.Int64, "rejected_index": pl.Int64,
    "candidate_ids": pl.List(pl.String), "scores": pl.List(pl.Float64), "labels": pl.List(pl.Boolean),
}  # fmt: skip


def verdicts(*rows: dict[str, Any]) -> dict[str, bool]:
    frame = pl.DataFrame([{"prompt_id": "p", "kind": "responses", **row} for row in rows], schema=TYPES)
    return dict(source_verdicts(frame).select("candidate_id", "right").iter_rows())


def test_sides_labels_and_the_best_score() -> None:
    pair = {"kind": "pair", "candidate_ids": ["a", "b"], "chosen_index": 0, "rejected_index": 1}
    assert verdicts(pair) == {"a": True, "b": False}
    assert verdicts({"kind": "unpaired", "candidate_ids": ["a"], "labels": [False]}) == {"a": False}
    assert verdicts({"candidate_ids": ["a", "b", "c"], "scores": [1.0, 3.0, None]}) == {"b": True}
    assert verdicts({"candidate_ids": ["a", "b"], "scores": [3.0, 3.0]}) == {}
    assert verdicts({"candidate_ids": ["a", "b"], "scores": [1.0, None]}) == {}  # the best of one score is no best
    assert verdicts(pair, {"kind": "unpaired", "candidate_ids": ["a"], "labels": [False]}) == {"b": False}


def test_a_row_with_one_answer_says_that_it_is_right_unless_it_scores_it() -> None:
    assert verdicts({"candidate_ids": ["a"]}) == {"a": True}
    # One row an answer, each with its score: the worst of them is not right for being alone in its row.
    rows = [{"candidate_ids": [name], "scores": [score]} for name, score in (("a", 1.0), ("b", 9.0))]
    assert verdicts(*rows) == {}

"""R-Tuning's sure and unsure sets."""

from __future__ import annotations

import polars as pl
import pytest

from curation.errors import InputError
from curation.refusals.certainty import SURE, UNSURE, answer_entropy, r_tuning


def test_entropy_of_the_paper() -> None:
    assert answer_entropy(["a", "a", "a", "b", "c"]) == pytest.approx(0.9503, abs=5e-5)


def test_entropy_ignores_case_space_and_full_stop() -> None:
    assert answer_entropy(["Paris.", " paris", "PARIS"]) == 0.0


def test_right_answers_are_sure() -> None:
    frame = pl.DataFrame({"answers": ["Paris.", "Rome"], "gold": ["paris", "Berlin"]})
    built = r_tuning(frame)
    assert built.frame["certainty"].to_list() == ["sure", "unsure"]
    assert built.frame["target"].to_list() == [f"paris {SURE}", f"Berlin {UNSURE}"]


def test_answer_without_full_stop_keeps_its_last_character() -> None:
    built = r_tuning(pl.DataFrame({"answers": ["blue"], "gold": ["blu"]}))
    assert built.frame["certainty"].to_list() == ["unsure"]


def test_lower_entropy_half_is_sure() -> None:
    frame = pl.DataFrame({"answers": [["a", "b"], ["a", "a"], ["b", "b"], ["c", "d"]]})
    built = r_tuning(frame, by="entropy")
    assert built.frame["certainty"].to_list() == ["unsure", "sure", "sure", "unsure"]


def test_rows_without_answer_or_gold_are_rejected() -> None:
    frame = pl.DataFrame({"answers": [None, "x", " "], "gold": ["a", None, "b"]})
    built = r_tuning(frame)
    assert built.frame.is_empty()
    assert built.rejects.select("row", "rule").rows() == [(0, "no_answer"), (1, "no_gold"), (2, "no_answer")]


def test_gold_is_needed_for_correctness() -> None:
    with pytest.raises(InputError, match="'gold' is missing"):
        r_tuning(pl.DataFrame({"answers": ["x"]}))

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


def test_a_servers_error_is_not_ignorance() -> None:
    error = '{"error": {"code": 503, "message": "overloaded"}}'
    built = r_tuning(pl.DataFrame({"answers": [error, "no output"], "gold": ["Paris", "no output"]}))
    assert built.frame["stated"].to_list() == ["no output"]
    assert built.rejects["rule"].to_list() == ["no_answer"]
    sampled = pl.DataFrame({"answers": [["4", error, "4"], [error] * 3, ["4", "5"]]})
    built = r_tuning(sampled, by="entropy")
    assert built.frame.select("certainty", "answers_read").rows() == [("sure", 2), ("unsure", 2)]
    assert built.rejects.select("row", "rule").rows() == [(1, "no_answer")]


def test_reasoning_before_an_answer_is_not_compared() -> None:
    thought = [f"<think>Is it {n}? No.</think>8" for n in (9, 8, 7)]
    frame = pl.DataFrame({"answers": [thought, ["<think>a</think>8", "<think>a</think>9"]], "gold": ["8", "9"]})
    built = r_tuning(frame)
    assert built.frame["answer_correct"].to_list() == [True, False]
    assert built.rejects.is_empty()
    alone = r_tuning(frame.drop("gold"), by="entropy")
    assert alone.frame["answer_entropy"].to_list() == pytest.approx([0.0, answer_entropy(["8", "9"])])
    assert alone.frame["stated"].to_list() == [thought[0], "<think>a</think>8"]


def test_reasoning_without_an_end_is_no_answer() -> None:
    endless = "<think>It may be 8, or"
    built = r_tuning(pl.DataFrame({"answers": [[endless], [endless, "8"]], "gold": ["8", "8"]}))
    assert built.frame.is_empty()
    assert built.rejects.select("row", "rule").rows() == [(0, "no_answer"), (1, "no_answer")]
    sampled = r_tuning(pl.DataFrame({"answers": [["8", endless, "8"]]}), by="entropy")
    assert sampled.frame["answers_read"].to_list() == [2]


def test_gold_is_needed_for_correctness() -> None:
    with pytest.raises(InputError, match="'gold' is missing"):
        r_tuning(pl.DataFrame({"answers": ["x"]}))


def test_answers_are_compared_by_what_they_come_to() -> None:
    frame = pl.DataFrame({"answers": ["There are 1,000 of them, so the answer is 1,000."], "gold": ["1000"]})
    assert r_tuning(frame).frame["certainty"].to_list() == ["sure"]


def test_form_alone_makes_no_answer_unsure() -> None:
    frame = pl.DataFrame({"answers": ["words " * 30, "Rome"], "gold": ["Rome", "words " * 30]})
    built = r_tuning(frame)
    assert built.frame.is_empty()
    assert built.rejects["rule"].to_list() == ["answer_not_comparable", "gold_not_comparable"]


def test_an_answer_that_holds_the_right_one_among_other_words_is_not_unsure() -> None:
    answers = ["It is 4.", "The capital is Paris, I think", "It is 14.", "-4", "Not far from Rome"]
    frame = pl.DataFrame({"answers": answers, "gold": ["4", "paris", "4", "4", "Paris"]})
    built = r_tuning(frame)
    assert built.rejects.select("row", "rule").rows() == [(0, "right_among_others"), (1, "right_among_others")]
    assert built.frame["certainty"].to_list() == ["unsure"] * 3


def test_what_a_verifier_cannot_tell_is_rejected() -> None:
    frame = pl.DataFrame({"answers": ["a", "b", "c"], "gold": ["x", "x", "x"]})
    built = r_tuning(frame, verifier="python:tests.refusals.test_refusal_certainty:only_a_is_right")
    assert built.frame["certainty"].to_list() == ["sure", "unsure"]
    assert built.rejects.select("row", "rule").rows() == [(2, "cannot_tell")]


def only_a_is_right(prompts: object, answers: list[str], golds: object) -> list[bool | None]:
    return [{"a": True, "b": False}.get(answer) for answer in answers]


def test_too_few_answers_tell_nothing_of_their_spread() -> None:
    built = r_tuning(pl.DataFrame({"answers": [["a"], ["a", "b"], []]}), by="entropy")
    assert built.frame.height == 1
    assert built.rejects.select("row", "rule", "value").rows() == [
        (0, "too_few_answers", "1 of 1"),
        (2, "no_answer", None),
    ]


def test_a_limit_in_nats_takes_the_place_of_the_half() -> None:
    frame = pl.DataFrame({"answers": [["a", "b"], ["a", "a"], ["b", "b"], ["c", "c"]]})
    assert r_tuning(frame, by="entropy", max_entropy=0.0).frame["certainty"].to_list() == ["unsure", *["sure"] * 3]


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([["a", "a"]] * 4, ["sure"] * 4),
        ([["a", "b"]] * 4, ["unsure"] * 4),
        ([["a", "a"]] * 3 + [["a", "b"]], ["sure"] * 3 + ["unsure"]),
        ([["a", "a", "b"]] * 2 + [["a", "b", "c"]] * 2, ["sure"] * 2 + ["unsure"] * 2),
        ([["a", "a", "a"]] + [["a", "a", "b"]] * 3, ["sure", *["unsure"] * 3]),
    ],
)
def test_equal_entropies_are_treated_equally(answers: list[list[str]], expected: list[str]) -> None:
    assert r_tuning(pl.DataFrame({"answers": answers}), by="entropy").frame["certainty"].to_list() == expected


def test_without_a_right_answer_the_most_frequent_one_is_stated() -> None:
    frame = pl.DataFrame({"answers": [["Rome", "Paris.", "paris"]]})
    assert r_tuning(frame, by="entropy", max_entropy=1.0).frame["target"].to_list() == [f"Paris. {SURE}"]


def test_a_sampled_answer_does_not_stand_in_for_an_empty_greedy_one() -> None:
    frame = pl.DataFrame({"answers": [["", "Paris"], [None, "4"], ["5", None]], "gold": ["Paris", "4", "5"]})
    built = r_tuning(frame)
    assert built.frame["certainty"].to_list() == ["sure"]
    assert built.rejects.select("row", "rule").rows() == [(0, "no_answer"), (1, "no_answer")]


def test_copies_of_one_question_weigh_as_one_where_the_half_is_sought() -> None:
    spread = [["a", "a", "a", "b"], ["a", "a", "b", "b"], ["a", "a", "b", "c"], ["a", "b", "c", "d"]]
    copies = [["a", "a", "a", "b"]] * 4
    frame = pl.DataFrame({"answers": spread + copies, "family": [0, 1, 2, 3, 0, 0, 0, 0]})
    alone = r_tuning(frame.head(4), by="entropy").frame["certainty"].to_list()
    assert alone == ["sure", "sure", "unsure", "unsure"]
    together = r_tuning(frame, by="entropy", family="family").frame["certainty"].to_list()
    assert together == [*alone, *["sure"] * 4]
    # Each for itself, the copies would be the half.
    assert r_tuning(frame, by="entropy").frame["certainty"].to_list()[1] == "unsure"

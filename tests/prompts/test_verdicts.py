"""Pairs whose better answer a column names, and scores of which the lowest is best: never the wrong way round."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from curation.errors import InputError
from curation.prompts.sources import SourceRows, read_source
from curation.prompts.verdicts import verdicts_of
from curation.recipe.sources import Better, Source

GOOD, BAD = "the good answer", "the bad answer"


def read(folder: Path, *rows: dict[str, Any], **options: Any) -> SourceRows:
    path = folder / "in.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_source(str(path), name="mine", **options)


@pytest.mark.parametrize(
    ("first_wins", "second_wins", "values"),
    [
        pytest.param(1, 0, {1: "a", 0: "b"}, id="SHP: 1 is A"),
        pytest.param(0, 1, {0: "a", 1: "b"}, id="PKU-SafeRLHF: the number of the response"),
        pytest.param(1.0, 0.0, {"1": "a", "0": "b"}, id="a number and a text"),
        pytest.param("model_a", "model_b", {"model_a": "a", "model_b": "b", "tie": "tie"}, id="an arena"),
        pytest.param(-2, 3, {-2: "a", -1: "a", 0: "tie", 3: "b"}, id="HelpSteer: strengths"),
        pytest.param(True, False, {True: "a", False: "b"}, id="true and false"),
        pytest.param(["x", "x"], ["y"], {"x": "a", "y": "b"}, id="people who agree"),
    ],
)
def test_the_answer_that_the_value_names_is_chosen(
    tmp_path: Path, first_wins: Any, second_wins: Any, values: dict[Any, str]
) -> None:
    better = Better(column="said", values=values)

    found = read(
        tmp_path,
        {"prompt": "one?", "a": GOOD, "b": BAD, "said": first_wins},
        {"prompt": "two?", "a": BAD, "b": GOOD, "said": second_wins},
        better=verdicts_of(better.column, better.values),
    )

    assert found.rows["responses"].to_list() == [[GOOD, BAD], [GOOD, BAD]]
    assert found.rows["kind"].to_list() == ["pair", "pair"]
    assert "by said: 1 a, 1 b" in found.read_as


def test_dialogues_that_an_arena_compares_lose_the_prompt_they_share(tmp_path: Path) -> None:
    hi = {"role": "user", "content": "hi"}
    row = {
        "winner": "model_b",
        "a": [hi, {"role": "assistant", "content": BAD}],
        "b": [hi, {"role": "assistant", "content": GOOD}],
    }

    found = read(tmp_path, row, better=verdicts_of("winner", {"model_a": "a", "model_b": "b"}))

    assert found.rows["messages"].to_list() == [[hi]]
    assert found.rows["responses"].to_list() == [[GOOD, BAD]]


def test_ties_disagreement_and_other_values_are_rejects_with_their_reason(tmp_path: Path) -> None:
    row = {"prompt": "one?", "a": GOOD, "b": BAD}

    found = read(
        tmp_path,
        *({**row, "said": said} for said in ("a", "tie", ["a", "b"], "c", None)),
        better=verdicts_of("said", {"a": "a", "b": "b", "tie": "tie"}),
    )

    assert found.rows.height == 1
    assert found.rejects.select("row", "rule", "value").rows() == [
        (1, "tied_label", "said"),
        (2, "tied_label", "said"),
        (3, "unknown_label", "c"),
        (4, "unknown_label", "None"),
    ]


def test_scores_of_chosen_beside_a_verdict_are_not_taken_for_those_of_an_answer(tmp_path: Path) -> None:
    row = {"prompt": "one?", "a": BAD, "b": GOOD, "said": 2, "score_chosen": 1.0, "score_rejected": 2.0}
    better = verdicts_of("said", {1: "a", 2: "b"})

    assert read(tmp_path, row, better=better).rows["scores"].to_list() == [None]
    with pytest.raises(InputError, match=r"columns\.score_chosen beside better"):
        read(tmp_path, row, better=better, columns={"score_chosen": "score_chosen"})


def test_no_value_that_fits_any_row_is_one_error(tmp_path: Path) -> None:
    row = {"prompt": "one?", "a": GOOD, "b": BAD, "said": "model_a"}

    with pytest.raises(InputError, match=r"no row of column 'said' holds one of a, b; found model_a$"):
        read(tmp_path, row, better=verdicts_of("said", {"a": "a", "b": "b"}))
    with pytest.raises(InputError, match=r"no column 'sayd', which better names \(did you mean 'said'\?\)"):
        read(tmp_path, row, better=verdicts_of("sayd", {"a": "a", "b": "b"}))


@pytest.mark.parametrize("values", [{1: "a"}, {1: "a", 2: "b", 3: "c"}, {1: "tie", 2: "a"}, {1: "a", "1": "b"}])
def test_values_that_do_not_name_two_answers_once_are_refused(values: dict[Any, str]) -> None:
    with pytest.raises(ValidationError, match=r"two columns of answers|stands twice"):
        Better(column="said", values=values)


NECTAR = {"prompt": "one?", "answers": [{"answer": BAD, "rank": 2}, {"answer": GOOD, "rank": 1}]}
RANKED = {"responses": "answers.answer", "scores": "answers.rank"}


def test_a_rank_is_only_read_when_the_recipe_says_which_end_is_best(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="say lower_is_better: true where the first rank is the best"):
        read(tmp_path, NECTAR, columns=RANKED)

    ranked = read(tmp_path, NECTAR, columns=RANKED, lower_is_better=True)
    assert ranked.rows.select("responses", "scores").rows() == [([BAD, GOOD], [-2.0, -1.0])]
    assert read(tmp_path, NECTAR, columns=RANKED, lower_is_better=False).rows["scores"].to_list() == [[2.0, 1.0]]


def test_a_direction_without_scores_and_a_misspelt_field_are_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="lower_is_better is not used: no scores are read"):
        read(tmp_path, NECTAR, columns={"responses": "answers.answer"}, lower_is_better=True)
    with pytest.raises(InputError, match=r"no field 'rnk' in column 'answers'.* \(did you mean 'rank'\?\)"):
        read(tmp_path, NECTAR, columns={**RANKED, "scores": "answers.rnk"}, lower_is_better=True)


def test_a_list_of_one_text_is_that_text_and_one_of_several_is_a_reject(tmp_path: Path) -> None:
    found = read(tmp_path, {"turns": ["one?"]}, {"turns": ["one?", "two?"]}, columns={"prompt": "turns"})

    assert found.rows["messages"].to_list() == [[{"role": "user", "content": "one?"}]]
    assert found.rejects.select("row", "rule").rows() == [(1, "not_text")]


def test_what_is_not_read_is_said(tmp_path: Path) -> None:
    row = {"prompt": "one?", "response_0": GOOD, "response_1": BAD, "better_response_id": 0}

    found = read(tmp_path, row)

    assert found.read_as == "prompt from prompt; not read: response_0, response_1, better_response_id"


def test_the_recipe_takes_a_list_of_columns_where_several_are_read() -> None:
    source = Source(path="x.csv", columns={"responses": ["a", "b"], "prompt": "q"})

    assert source.columns == {"responses": ("a", "b"), "prompt": "q"}
    with pytest.raises(ValidationError, match="prompt: expected the name of a column, or a list of names"):
        Source(path="x.csv", columns={"prompt": 3})


def test_an_answer_that_another_column_calls_unfit_is_not_chosen(tmp_path: Path) -> None:
    row = {"prompt": "one?", "a": GOOD, "b": BAD}
    better = Better(column="said", values={0: "a", 1: "b"}, only_if={"a": "a_is_safe", "b": "b_is_safe"})

    found = read(
        tmp_path,
        *(
            {**row, "said": said, "a_is_safe": a, "b_is_safe": b}
            for said, a, b in [(0, True, False), (0, False, True), (1, True, False), (1, False, 1), (0, None, True)]
        ),
        better=verdicts_of(**better.model_dump()),
    )

    assert found.rows["row"].to_list() == [0, 3]
    assert found.rows["responses"].to_list() == [[GOOD, BAD], [BAD, GOOD]]
    assert found.rejects.select("row", "rule", "value").rows() == [
        (1, "unfit_chosen", "a_is_safe"), (2, "unfit_chosen", "b_is_safe"), (4, "unknown_label", "None"),
    ]  # fmt: skip
    assert "beside them said, a_is_safe, b_is_safe" in found.read_as


def test_what_an_answer_needs_names_an_answer_and_a_column_that_is_there(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="only_if: 'c' is no column of answers: values name a and b"):
        Better(column="said", values={0: "a", 1: "b"}, only_if={"c": "c_is_safe"})
    better = verdicts_of("said", {"0": "a", "1": "b"}, {"a": "a_is_saef"})
    with pytest.raises(InputError, match=r"'a_is_saef'.*did you mean 'a_is_safe'"):
        read(tmp_path, {"prompt": "one?", "a": GOOD, "b": BAD, "said": 0, "a_is_safe": True}, better=better)

"""Every shape of source, and rows at fault, read into the canonical inputs."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.errors import InputError
from curation.prompts.dialogues import as_prompt, split_pair
from curation.prompts.sources import INPUTS_SCHEMA, SourceRows, read_source


def source(folder: Path, *rows: dict[str, Any], **options: Any) -> SourceRows:
    path = folder / "in.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_source(str(path), name="mine", **options)


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


HI = [user("Hi!")]
TWO_TURNS = [user("Hi!"), assistant("Hello."), user("What is 2 + 2?")]
HH = "\n\nHuman: Hi!\n\nAssistant: Hello.\n\nHuman: What is 2 + 2?\n\nAssistant:"


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        pytest.param({"prompt": "Hi!", "chosen": "4", "rejected": "5"}, HI, id="strings"),
        pytest.param({"prompt": HI, "chosen": "4", "rejected": "5"}, HI, id="messages and strings"),
        pytest.param(
            {"prompt": TWO_TURNS, "chosen": [assistant("4")], "rejected": [assistant("5")]},
            TWO_TURNS,
            id="explicit",
        ),
        pytest.param(
            {"chosen": [*TWO_TURNS, assistant("4")], "rejected": [*TWO_TURNS, assistant("5")]},
            TWO_TURNS,
            id="implicit",
        ),
        pytest.param(
            {"prompt": "Hi!", "chosen": [*HI, assistant("4")], "rejected": [*HI, assistant("5")]},
            HI,
            id="prompt repeated in the answers",
        ),
        pytest.param(
            {
                "prompt": "Hi!",
                "chosen": [{"role": "system", "content": "Be kind."}, *HI, assistant("4")],
                "rejected": [{"role": "system", "content": "Be kind."}, *HI, assistant("5")],
            },
            [{"role": "system", "content": "Be kind."}, *HI],
            id="system message only in the answers",
        ),
        pytest.param(
            {
                "prompt": [{"role": "system", "content": "Be kind."}, *HI],
                "chosen": [*HI, assistant("4")],
                "rejected": [*HI, assistant("5")],
            },
            [{"role": "system", "content": "Be kind."}, *HI],
            id="system message only in the prompt",
        ),
        pytest.param(
            {
                "prompt": [{"role": "system", "content": "Be kind."}, *HI],
                "chosen": [*TWO_TURNS, assistant("4")],
                "rejected": [*TWO_TURNS, assistant("5")],
            },
            [{"role": "system", "content": "Be kind."}, *TWO_TURNS],
            id="system message only in the prompt, which is the first turn of several",
        ),
        pytest.param(
            {
                "prompt": HI,
                "chosen": [assistant("Hello."), user("What is 2 + 2?"), assistant("4")],
                "rejected": [assistant("Hello."), user("What is 2 + 2?"), assistant("5")],
            },
            TWO_TURNS,
            id="answers go on for several turns",
        ),
        pytest.param({"chosen": HH + " 4", "rejected": HH + " 5"}, TWO_TURNS, id="hh-rlhf"),
        pytest.param({"prompt": HH, "chosen": " 4", "rejected": " 5"}, TWO_TURNS, id="hh-rlhf with a prompt"),
        pytest.param({"prompt": HH, "chosen": HH + " 4", "rejected": HH + " 5"}, TWO_TURNS, id="hh-rlhf repeated"),
        pytest.param(
            {"instruction": "Hi!", "input": "", "chosen": "4", "rejected": "5"}, HI, id="alpaca with no input"
        ),
    ],
)
def test_pairs_in_every_form(tmp_path: Path, row: dict[str, Any], prompt: list[dict[str, str]]) -> None:
    rows, rejects, read, _ = source(tmp_path, row)

    assert (rejects.height, read) == (0, 1)
    got = rows.row(0, named=True)
    assert got["kind"] == "pair"
    assert got["messages"] == prompt
    assert [text.strip() for text in got["responses"]] == ["4", "5"]
    assert (got["chosen_index"], got["rejected_index"]) == (0, 1)
    assert dict(rows.schema) == {name: pl.Schema({name: dtype})[name] for name, dtype in INPUTS_SCHEMA.items()}


def test_share_gpt_messages_and_roles(tmp_path: Path) -> None:
    said = [{"from": "human", "value": "Hi!"}, {"from": "gpt", "value": "Hello."}]

    rows, _, _, _ = source(tmp_path, {"conversations": said}, {"conversations": said[:1]})

    assert rows["kind"].to_list() == ["messages", "messages"]
    assert rows["messages"].to_list() == [HI, HI]
    assert rows["responses"].to_list() == [["Hello."], []]


@pytest.mark.parametrize(
    "answers",
    [
        {"responses": ["a", "b"], "scores": [1, 0.5]},
        {"completions": [{"response": "a", "score": 1}, {"response": "b", "score": 0.5}]},
        {
            "completions": [
                {"model": "m", "completion": "a", "avg_rating": 1},
                {"completion": "b", "score": 0.5},
            ]
        },
        {"responses": [[assistant("a")], [user("Hi!"), assistant("b")]], "ratings": [1, 0.5]},
        {"generations": ["a", "b"], "ratings": [1, 0.5]},
    ],
)
def test_answers_with_scores_in_every_form(tmp_path: Path, answers: dict[str, Any]) -> None:
    rows, rejects, _, _ = source(tmp_path, {"prompt": "Hi!", **answers})

    assert rejects.height == 0
    assert rows["kind"].item() == "responses"
    assert rows["responses"].item().to_list() == ["a", "b"]
    assert rows["scores"].item().to_list() == [1.0, 0.5]


def test_answers_without_scores_have_none(tmp_path: Path) -> None:
    rows, _, _, _ = source(tmp_path, {"prompt": "Hi!", "responses": ["a", "b"]})

    assert rows["scores"].to_list() == [None]


def test_ratings_that_cannot_be_parsed_stay_out_of_the_mean(tmp_path: Path) -> None:
    # Ratings 5, 4, unparsable, 5: the mean is 14 / 3, not 13 / 4 with -1 for the unparsable one.
    ratings = {"helpfulness": "5", "honesty": "4", "truthfulness": "N/A", "instruction_following": "5"}
    annotations = {aspect: {"Rating": rating} for aspect, rating in ratings.items()}
    completion = {"response": "a", "overall_score": 10.0, "annotations": annotations}

    rows, _, _, _ = source(tmp_path, {"instruction": "Hi!", "completions": [completion]})

    assert rows["scores"].item().item() == pytest.approx(14 / 3)


def test_unpaired_rows_have_labels(tmp_path: Path) -> None:
    rows, _, _, _ = source(
        tmp_path,
        {"prompt": "Hi!", "completion": "a", "label": True},
        {"prompt": HH, "completion": [assistant("b")], "label": False},
    )

    assert rows["kind"].to_list() == ["unpaired", "unpaired"]
    assert rows["labels"].to_list() == [[True], [False]]
    assert rows["messages"].to_list() == [HI, TWO_TURNS]
    assert rows["responses"].to_list() == [["a"], ["b"]]


@pytest.mark.parametrize("labels", [["true", "false"], ["1", "0"], [True, "false"], [1.0, 0.0]])
def test_labels_are_read_in_whatever_form_they_stand(tmp_path: Path, labels: list[Any]) -> None:
    rows, rejects, _, _ = source(
        tmp_path, *({"prompt": "Hi!", "completion": "a", "label": said} for said in labels)
    )

    assert rejects.height == 0
    assert rows["kind"].to_list() == ["unpaired"] * 2
    assert rows["labels"].to_list() == [[True], [False]]


@pytest.mark.parametrize("odd", ["unsure", 0.5, None])
def test_one_odd_label_is_a_reject_wherever_it_stands(tmp_path: Path, odd: Any) -> None:
    rows = [{"prompt": "p", "completion": f"c{n}", "label": "true"} for n in range(70)]
    for place in (0, 69):
        rows[place]["label"] = odd
        read = source(tmp_path, *rows)
        rows[place]["label"] = "true"
        assert (read.rejects["row"].to_list(), read.rejects["rule"].to_list()) == ([place], ["unknown_label"])
        assert read.rows["kind"].unique().to_list() == ["unpaired"]
    named = [{**row, "label": "greeting"} for row in rows[:40]] + rows[40:]
    for some in (named, named[::-1]):
        assert source(tmp_path, *some).rows["kind"].unique().to_list() == ["responses"]


def test_a_label_of_words_is_no_verdict_unless_the_recipe_says_so(tmp_path: Path) -> None:
    said = [{"prompt": "Hi!", "completion": "a", "label": word} for word in ("greeting", "true")]

    assert source(tmp_path, *said).rows["kind"].to_list() == ["responses"] * 2

    rows, rejects, _, _ = source(tmp_path, *said, format="unpaired")
    assert rows["labels"].to_list() == [[True]]
    assert rejects.select("rule", "value").rows() == [("unknown_label", "greeting")]


def test_prompts_alone_and_prompts_with_one_answer(tmp_path: Path) -> None:
    alone, _, _, _ = source(tmp_path, {"prompt": "Hi!", "category": "greeting"})
    answered, _, _, _ = source(tmp_path, {"instruction": "Add.", "input": "2 and 2", "output": "4"})

    assert alone.select("kind", "category").row(0) == ("prompt", "greeting")
    assert alone["responses"].to_list() == [[]]
    assert answered["messages"].to_list() == [[user("Add.\n\n2 and 2")]]
    assert answered["responses"].to_list() == [["4"]]


def test_an_answer_column_that_is_filled_in_further_down_is_read(tmp_path: Path) -> None:
    rows, rejects, read, _ = source(
        tmp_path, *({"prompt": f"Question {i}?", "answer": "Yes." if i == 100 else ""} for i in range(101))
    )
    assert rows["responses"].to_list() == [["Yes."]]
    assert (rejects.height, read) == (100, 101)


def test_columns_of_messages_are_not_joined_and_none_is_left_out_in_silence(tmp_path: Path) -> None:
    row = {"system": "Be kind.", "said": HI, "chosen": "a", "rejected": "b"}
    rows, rejects, _, _ = source(tmp_path, row, {**row, "said": "Hi!"}, columns={"prompt": ["system", "said"]})
    assert rows["messages"].to_list() == [[user("Be kind.\n\nHi!")]]
    assert rejects.select("row", "rule").rows() == [(0, "not_text")]


def test_an_answer_column_that_nobody_filled_in_is_no_answer(tmp_path: Path) -> None:
    rows, rejects, _, _ = source(tmp_path, {"prompt": "Hi!", "response": ""}, {"prompt": "Ho!", "response": None})

    assert rejects.height == 0
    assert rows["kind"].to_list() == ["prompt", "prompt"]


def test_columns_are_mapped_by_the_recipe(tmp_path: Path) -> None:
    row = {"q": {"text": "Hi!"}, "a1": "x", "a2": "y", "who": 7, "kind": "safe", "meta": {"s": [0.5, 1]}}

    rows, _, _, _ = source(
        tmp_path,
        row,
        columns={
            "prompt": "q.text",
            "responses": ["a1", "a2"],
            "scores": "meta.s",
            "annotator": "who",
            "expected_behaviour": "kind",
        },
    )

    got = rows.row(0, named=True)
    assert got["messages"] == HI
    assert (got["responses"], got["scores"]) == (["x", "y"], [0.5, 1.0])
    assert (got["annotator"], got["expected_behaviour"], got["source"]) == ("7", "comply", "mine")


def test_a_flipped_pair_has_no_annotator(tmp_path: Path) -> None:
    one = {"prompt": "Hi!", "chosen": "a", "rejected": "b", "who": "ann"}

    rows, _, _, _ = source(
        tmp_path, one | {"flipped": True}, one | {"flipped": False}, columns={"annotator": "who"}
    )

    assert rows["annotator"].to_list() == [None, "ann"]


def test_scores_of_pairs_come_from_their_columns(tmp_path: Path) -> None:
    row = {"prompt": "Hi!", "chosen": "a", "rejected": "b", "score_chosen": 8, "score_rejected": 3}

    rows, _, _, _ = source(tmp_path, row)

    assert rows["scores"].to_list() == [[8.0, 3.0]]


@pytest.mark.parametrize(
    ("row", "options", "found"),
    [
        ({"prompt": "Hi!", "response": "a", "generator": " m1 "}, {}, ["m1"]),
        ({"prompt": "Hi!", "response": "a", "label": True, "generator": "m1"}, {}, ["m1"]),
        ({"messages": [*HI, assistant("a")], "generator": "m1"}, {}, ["m1"]),
        ({"prompt": "Hi!", "response": "a", "generator": ""}, {}, None),
        ({"prompt": "Hi!", "responses": ["a", "b"], "generator": ["m1", None]}, {}, ["m1", None]),
        ({"prompt": "Hi!", "responses": ["a", " ", "b"], "generator": ["m1", "m2", "m3"]}, {}, ["m1", "m3"]),
        ({"prompt": "Hi!", "responses": ["a", "b"], "generator": "m1"}, {}, ["m1", "m1"]),
        (
            {"prompt": "Hi!", "completions": [{"response": "a", "model": "m1"}, {"response": "b", "model": "m2"}]},
            {"columns": {"generator": "completions.model"}},
            ["m1", "m2"],
        ),
        ({"prompt": "Hi!", "chosen": "a", "rejected": "b", "generator_rejected": "m2"}, {}, [None, "m2"]),
        (
            {"prompt": "Hi!", "chosen": "a", "rejected": "b", "chosen_model": "m1", "rejected_model": "m2"},
            {},
            ["m1", "m2"],
        ),
    ],
)
def test_who_wrote_an_answer_is_read_beside_it(
    tmp_path: Path, row: dict[str, Any], options: dict[str, Any], found: list[str | None] | None
) -> None:
    read = source(tmp_path, row, **options)
    assert read.rows["generators"].to_list() == [found]


def test_too_few_generators_are_a_reject_and_one_of_a_pair_is_said_not_to_be_read(tmp_path: Path) -> None:
    rows = [
        {"prompt": f"{n}?", "responses": ["a", "b"], "generator": names}
        for n, names in enumerate((["m1"], ["m1", "m2"]))
    ]
    read = source(tmp_path, *rows)
    assert read.rejects.select("row", "rule").rows() == [(0, "generators_length")]
    assert read.rows["generators"].to_list() == [["m1", "m2"]]
    pair = source(tmp_path, {"prompt": "Hi!", "chosen": "a", "rejected": "b", "generator": "m1"})
    assert pair.read_as.endswith("not read: generator")


def test_text_and_messages_may_stand_in_one_column(tmp_path: Path) -> None:
    rows, rejects, _, _ = source(
        tmp_path,
        {"prompt": "Hi!", "chosen": "a", "rejected": "b"},
        {"prompt": HI, "chosen": [assistant("a")], "rejected": [assistant("b")]},
        {"prompt": 12, "chosen": "a", "rejected": "b"},
    )

    assert rows["messages"].to_list() == [HI, HI]
    assert rejects.rows() == [(2, "not_text", "prompt", "prompt is a number, expected text or messages")]


@pytest.mark.parametrize(
    ("change", "rule", "value"),
    [
        ({"prompt": None}, "null_prompt", "prompt"),
        ({"prompt": ""}, "empty_prompt", "prompt"),
        ({"prompt": " \n\t"}, "empty_prompt", "prompt"),
        ({"prompt": []}, "empty_prompt", "prompt"),
        ({"prompt": [{"role": "system", "content": "Be kind."}]}, "empty_prompt", "prompt"),
        ({"prompt": [{"role": "narrator", "content": "Hi!"}]}, "unknown_role", "narrator"),
        ({"prompt": [{"content": "Hi!"}]}, "unknown_role", "None"),
        ({"prompt": [{"role": "user", "content": None}]}, "null_prompt", "prompt"),
        ({"prompt": [{"role": "user", "content": [{"type": "image"}]}]}, "not_text", "prompt"),
        ({"prompt": "with \x00 inside"}, "nul_character", "prompt"),
        ({"chosen": "half \ud800"}, "invalid_unicode", "chosen"),
        ({"chosen": None}, "null_response", "chosen"),
        ({"rejected": ""}, "empty_response", "rejected"),
        ({"rejected": "\u3000 "}, "empty_response", "rejected"),
        ({"rejected": "\u200b \ufeff"}, "empty_response", "rejected"),
        ({"rejected": "a"}, "chosen_equals_rejected", "rejected"),
        ({"rejected": "a \r\n"}, "chosen_equals_rejected", "rejected"),
        (
            {"chosen": [*HI, assistant("a")], "rejected": [user("Ho!"), assistant("b")]},
            "prompts_differ",
            "rejected",
        ),
        (
            {"chosen": [user("Ho!"), assistant("a")], "rejected": [user("Ho!"), assistant("b")]},
            "prompts_differ",
            "prompt",
        ),
        (
            {
                "prompt": [user("Before."), assistant("Yes."), *HI],
                "chosen": [*TWO_TURNS, assistant("a")],
                "rejected": [*TWO_TURNS, assistant("b")],
            },
            "prompts_differ",
            "prompt",
        ),
        ({"chosen": [*HI, assistant("a"), user("And?")], "rejected": "b"}, "no_assistant_turn", "user"),
        ({"chosen": [*HI, assistant(" ")], "rejected": [*HI, assistant("b")]}, "empty_response", "chosen"),
        ({"score_chosen": math.nan}, "non_finite_score", "nan"),
        ({"score_rejected": -math.inf}, "non_finite_score", "-inf"),
        ({"expected_behaviour": "perhaps"}, "unknown_expected_behaviour", "perhaps"),
        ({"expected_behaviour": ["refuse"]}, "unknown_expected_behaviour", "['refuse']"),
    ],
)
def test_a_pair_at_fault_is_rejected_and_the_others_are_kept(
    tmp_path: Path, change: dict[str, Any], rule: str, value: str
) -> None:
    good = {"prompt": "Hi!", "chosen": "a", "rejected": "b"}

    rows, rejects, read, _ = source(tmp_path, good, {**good, **change}, good)

    assert rows["row"].to_list() == [0, 2]
    assert rejects.select("row", "rule", "value").rows() == [(1, rule, value)]
    assert rejects["reason"].item().strip()
    assert read == 3


def test_one_answer_at_fault_leaves_the_others(tmp_path: Path) -> None:
    rows, rejects, _, _ = source(
        tmp_path,
        {"prompt": "Hi!", "responses": ["a", None, " ", "d"], "scores": [1, 2, 3, math.nan]},
        {"prompt": "Ho!", "responses": [None, ""]},
        {"prompt": "He!", "responses": []},
        {"prompt": "Hu!", "responses": ["a", "b"], "scores": [1]},
    )

    assert rows["responses"].to_list() == [["a"]]
    assert rows["scores"].to_list() == [[1.0]]
    assert rejects.select("row", "rule", "value").rows() == [
        (0, "null_response", "responses[1]"),
        (0, "empty_response", "responses[2]"),
        (0, "non_finite_score", "responses[3]"),
        (1, "null_response", "responses[0]"),
        (2, "empty_response", "responses"),
        (3, "scores_length", "scores"),
    ]


def test_a_very_long_answer_is_taken_whole(tmp_path: Path) -> None:
    rows, _, _, _ = source(tmp_path, {"prompt": "Hi!", "chosen": "x" * 100_000, "rejected": "y"})

    assert rows["responses"].item().str.len_chars().to_list() == [100_000, 1]


def test_duplicate_prompts_with_different_answers_are_all_kept(tmp_path: Path) -> None:
    pair = {"prompt": "Hi!", "chosen": "a", "rejected": "b"}

    rows, rejects, _, _ = source(tmp_path, pair, {**pair, "chosen": "c"}, pair)

    assert (rows.height, rejects.height) == (3, 0)


def test_limit_reads_no_further(tmp_path: Path) -> None:
    row = {"prompt": "Hi!", "chosen": "a", "rejected": "b"}

    rows, rejects, read, _ = source(tmp_path, row, {**row, "chosen": ""}, row, row, limit=3)

    assert (rows.height, rejects.height, read) == (2, 1, 3)


def test_columns_that_fit_no_shape_are_listed_with_what_is_supported(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"no column 'prompt'.*did you mean 'promt'.*found promt, chosen, rejected"
    ):
        source(tmp_path, {"promt": "Hi!", "chosen": "Yes, a", "rejected": "Yes, b"})
    with pytest.raises(InputError, match="expected prompt, chosen, rejected or prompt, response, label or"):
        source(tmp_path, {"x": 1})


def test_a_wrong_format_or_mapping_is_named(tmp_path: Path) -> None:
    row = {"prompt": "Hi!"}
    with pytest.raises(InputError, match=r"format 'pairs' \(did you mean 'pair'\?\)"):
        source(tmp_path, row, format="pairs")
    with pytest.raises(InputError, match=r"columns.promt \(did you mean 'prompt'\?\)"):
        source(tmp_path, row, columns={"promt": "prompt"})
    with pytest.raises(
        InputError, match=r"no column 'pront', which columns.prompt names \(did you mean 'prompt'\?\)"
    ):
        source(tmp_path, row, columns={"prompt": "pront"})
    with pytest.raises(InputError, match=r"no column 'kind', which columns.category names"):
        source(tmp_path, row, columns={"category": "kind"})


texts = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1).filter(str.strip)


@settings(max_examples=60, deadline=None)
@given(turns=st.lists(texts, min_size=1, max_size=5), answers=st.tuples(texts, texts), explicit=st.booleans())
def test_splitting_undoes_joining(turns: list[str], answers: tuple[str, str], explicit: bool) -> None:
    said = [user(text) if index % 2 == 0 else assistant(text) for index, text in enumerate(turns)]
    if len(said) % 2 == 0:
        said.pop()
    if answers[0].strip() == answers[1].strip():
        answers = (answers[0], answers[0] + "!")

    pair = split_pair(
        said if explicit else None,
        [*said, assistant(answers[0])],
        [*said, assistant(answers[1])],
        has_prompt=explicit,
    )

    assert pair == (said, *answers)


def test_an_hh_prompt_loses_the_name_of_who_speaks_next() -> None:
    assert as_prompt("\n\nHuman: Hi!\n\nAssistant:") == HI


def test_real_hh_pairs_are_split(shared_data: Path) -> None:
    rows, rejects, read, _ = read_source(str(shared_data / "hh_harmless/test.jsonl.gz"), name="hh")

    assert read == 2312 == rows.height + rejects.height
    assert dict(rejects["rule"].value_counts().iter_rows()) == {"prompts_differ": 5, "empty_response": 4}
    last = rows["messages"].list.last().struct.field("role")
    assert last.unique().to_list() == ["user"]


def test_real_ultrafeedback_pairs_have_their_scores(shared_data: Path) -> None:
    rows, rejects, _, _ = read_source(
        str(shared_data / "ultrafeedback_noise/clean.jsonl"),
        name="uf",
        columns={"score_chosen": "metadata.score_chosen", "score_rejected": "metadata.score_rejected"},
    )

    assert rows["scores"].null_count() == 0
    assert rejects.filter(rule="chosen_equals_rejected").height == 4


def test_two_faulty_answers_of_a_row_are_both_in_its_reject(tmp_path: Path) -> None:
    """A row has one reject for each rule, so one of two rejects would be lost."""
    read = source(tmp_path, {"prompt": "Hi!", "responses": ["", "4", " ", None]})
    assert read.rows["responses"].to_list() == [["4"]]
    assert read.rejects.select("rule", "value").rows() == [
        ("empty_response", "responses[0], responses[2]"), ("null_response", "responses[3]")
    ]  # fmt: skip
    assert read.rejects["reason"][0].startswith("answers 0, 2 of 4: ")


SYSTEM = {"role": "system", "content": "Be kind."}


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        ({"question": "Hi!", "chosen": "4", "rejected": "5"}, HI),
        ({"prompt": "Hi!", "responses": ["4", "5"]}, HI),
        ({"instruction": "Hi!", "output": "4"}, HI),
        ({"prompt": "Hi!", "completion": "4", "label": True}, HI),
        ({"prompt": HH}, TWO_TURNS),
        ({"conversations": [*HI, assistant("4")]}, HI),
        ({"chosen": [*HI, assistant("4")], "rejected": [*HI, assistant("5")]}, HI),
        ({"prompt": [SYSTEM, *HI], "chosen": "4", "rejected": "5"}, HI),
    ],
)
def test_a_column_of_system_messages_is_read_in_every_shape(
    tmp_path: Path, row: dict[str, Any], prompt: list[dict[str, str]]
) -> None:
    """Orca's pairs and ShareGPT have one; without it the answers fit another prompt than the one that is kept."""
    for name in ("system", "system_prompt"):
        read = source(tmp_path, {name: "Be kind.", **row}, {name: " ", **row}, {name: None, **row})
        assert read.rows["messages"].to_list()[0] == [SYSTEM, *prompt]
        assert [m[-1] for m in read.rows["messages"].to_list()] == [prompt[-1]] * 3
        assert read.rejects.is_empty()


def test_two_system_messages_are_a_reject_and_a_column_that_names_systems_is_none(tmp_path: Path) -> None:
    twice = {"system": "Be kind.", "prompt": [{"role": "system", "content": "Be rude."}, *HI]}
    read = source(tmp_path, twice, {"system": "Be kind.", "prompt": "Hi!"})
    assert read.rejects.select("row", "rule").rows() == [(0, "two_system_messages")]
    columns = [("Be kind.", "Be rude."), ("Be kind.", "Be kind."), (None, "Be kind."), ("Be kind.", " ")]
    both = source(tmp_path, *({"system": one, "system_prompt": two, "prompt": "Hi!"} for one, two in columns))
    assert both.rejects.select("row", "rule").rows() == [(0, "two_system_messages")]
    assert both.rows["messages"].to_list() == [[SYSTEM, *HI]] * 3
    mixed = source(tmp_path, {"system": "Be kind.", "prompt": "Hi!"}, {"system": ["Be kind."], "prompt": "Hi!"})
    assert (mixed.rows["row"].to_list(), mixed.rejects["rule"].to_list()) == ([0], ["not_text"])
    named = source(tmp_path, {"system": "model_7b", "prompt": "Hi!"}, {"system": "gpt-4", "prompt": "Hi!"})
    assert named.rows["messages"].to_list() == [HI, HI]
    asked = source(tmp_path, {"who": "Bob", "prompt": "Hi!"}, columns={"system": "who"})
    assert asked.rows["messages"].to_list() == [[{"role": "system", "content": "Bob"}, *HI]]


def test_a_score_beside_a_single_answer_is_read(tmp_path: Path) -> None:
    """Unread, the answer would be taken for right."""
    rows = [{"prompt": "Hi!", "response": "4", "score": 0.1}, {"prompt": "Hi!", "response": "5", "score": None}]
    assert source(tmp_path, *rows).rows["scores"].to_list() == [[0.1], None]
    labelled = [{"prompt": "Hi!", "response": "4", "label": True, "rating": 3}]
    assert source(tmp_path, *labelled).rows["scores"].to_list() == [[3.0]]
    text = [{"prompt": "Hi!", "response": "4", "score": "good", "points": "7"}]
    assert source(tmp_path, *text).rows["scores"].to_list() == [None]
    assert source(tmp_path, *text, columns={"score": "points"}).rows["scores"].to_list() == [[7.0]]
    assert source(tmp_path, *text, columns={"score": "score"}).rejects["rule"].to_list() == ["not_a_number"]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"scores": "points"}, r"columns\.scores is not used.*give columns\.score"),
        ({"score_chosen": "points"}, r"columns\.score_chosen is not used: the file is read as response"),
    ],
)
def test_a_column_that_is_named_and_not_read_is_an_error(
    tmp_path: Path, columns: dict[str, str], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        source(tmp_path, {"prompt": "Hi!", "response": "4", "points": 7}, columns=columns)


def test_json_text_in_the_first_chunk_is_text_where_a_later_row_is_plain(tmp_path: Path) -> None:
    asked = {"prompt": json.dumps([user("Hi!")])}
    rows, rejects, _, _ = source(tmp_path, *[asked] * 8192, {"prompt": "plain"})

    assert (rows.height, rejects.height) == (8193, 0)
    with pytest.raises(InputError, match="holds JSON text in every row"):
        source(tmp_path, asked, asked)


@pytest.mark.parametrize("column", ["Chosen", " chosen"])
def test_a_column_is_not_passed_over_for_a_capital_or_a_space(tmp_path: Path, column: str) -> None:
    row = {"prompt": "p", column: "a", "rejected": "b"}
    with pytest.raises(
        InputError, match=f"column {column!r} would not be read, for its name is not 'chosen'.* prompt"
    ):
        source(tmp_path, row)
    assert source(tmp_path, row, columns={"chosen": column}).rows["kind"].to_list() == ["pair"]
    assert source(tmp_path, {"prompt": "p", "Label": "x"}).rows["kind"].to_list() == ["prompt"]
    answered = {"prompt": "p", "completion": "c", "Label": 3}
    assert source(tmp_path, answered).rows["kind"].to_list() == ["responses"]
    with pytest.raises(InputError, match="say format: response"):
        source(tmp_path, answered | {"Label": True})
    assert source(tmp_path, answered | {"Label": True}, format="response").rows.height == 1


def test_what_a_message_says_beside_its_text_is_not_dropped_in_silence(tmp_path: Path) -> None:
    call = {"role": "assistant", "content": "", "tool_calls": [{"id": "1"}]}
    rows = [
        {"prompt": [*HI, call, {"role": "tool", "content": "42"}], "chosen": "a", "rejected": "b"},
        {"prompt": HI, "chosen": [{**call, "content": "a"}], "rejected": "b"},
        {"prompt": HI, "chosen": [{**call, "content": "a", "tool_calls": []}], "rejected": "b"},
        {
            "prompt": [{"role": "user", "content": [{"type": "text", "text": "Hi!"}]}],
            "chosen": "a",
            "rejected": "b",
        },
        {"prompt": [{"role": "user", "content": [{"type": "image", "url": "x"}]}], "chosen": "a", "rejected": "b"},
    ]
    read = source(tmp_path, *rows)
    assert read.rejects["rule"].to_list() == ["tool_calls", "tool_calls", "not_text"]
    assert read.rows.select("row", "messages").rows() == [(2, HI), (3, HI)]

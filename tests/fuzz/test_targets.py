"""The fuzzer's targets by Hypothesis and on what was found before: the same claims, without atheris."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.errors import CurationError, InputError, RecipeError
from curation.files import open_input
from curation.models.chat.replies import answer_in
from curation.recipe import load_recipe
from tests.fuzz.seeds import seeds
from tests.fuzz.targets import FORMATS, TARGETS

FOUND = sorted(
    path for path in (Path(__file__).parent / "found").rglob("*") if path.is_file() and path.name[0] != "."
)


@pytest.mark.parametrize("path", FOUND, ids=lambda path: f"{path.parent.name}-{path.name[:12]}")
def test_what_a_fuzzer_found_stays_mended(path: Path) -> None:
    TARGETS[path.parent.name](path.read_bytes())


@pytest.mark.parametrize("target", TARGETS)
def test_good_inputs_are_good(target: str) -> None:
    for data in seeds(target):
        TARGETS[target](data)


@pytest.mark.parametrize("target", TARGETS)
def test_good_inputs_with_holes_are_refused_or_read(target: str) -> None:
    given_seeds = seeds(target)

    @settings(max_examples=25)
    @given(st.data())
    def changed(data: st.DataObject) -> None:
        good = bytearray(data.draw(st.sampled_from(given_seeds)))
        for _ in range(data.draw(st.integers(1, 4))):
            place = data.draw(st.integers(0, max(0, len(good) - 1)))
            cut = data.draw(st.integers(0, 8))
            good[place : place + cut] = data.draw(st.binary(max_size=8))
        TARGETS[target](bytes(good))

    changed()


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=()), max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
WORDS = st.sampled_from(
    ["score", "better", "verdict", "kind", "choices", "message", "content", "logprobs", "usage"]
)


@settings(max_examples=60)
@given(reply=st.dictionaries(WORDS, JSON | st.sampled_from(["A", "B", "C"]), max_size=5))
def test_any_json_is_a_reply(reply: dict[str, object]) -> None:
    TARGETS["replies"](json.dumps(reply).encode())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sources: [{path: a, name: 2024-99-99}]", "put quotes around a text"),
        ("? [a, b]\n: 1", "cannot be a key"),
        ("a: &a [*a]", "refers to itself"),
        ("a: " + "[" * 5_000, "nested too deeply"),
        ("a: " + "[" * 80 + "]" * 80, "nested too deeply"),
        ("a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
            f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join([f'*{chr(97 + i)}'] * 10)}]\n" for i in range(20)
        ), "unfold to more than 1,000,000 values"),
        ('name: "\\ud800"', "surrogate"),
        ("seed: " + "9" * 5_000, "not YAML"),
        ("!!python/object/apply:os.system [echo]", "not YAML"),
    ],
)  # fmt: skip
def test_a_hostile_recipe_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=said) as caught:
        load_recipe(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", b'{"a": ' + b"[" * 100_000),
        ("a.json", b"[" * 100_000),
        ("a.json", b'[{"a": ' + b"9" * 5_000 + b"}]"),
        ("a.jsonl", b'{"a": ' + b"9" * 5_000 + b"}\n"),
    ],
)
def test_json_that_python_does_not_read_is_an_input_error(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=name):
        open_input(tmp_path / name)


def test_a_column_without_a_name_keeps_its_place(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(",prompt\n0,Hello\n")
    source = open_input(tmp_path / "a.csv")
    assert {*source.head().columns} >= set(source.schema)


def test_an_error_is_one_printable_line() -> None:
    error = InputError("column 'a\nb\x1b[31m' \ud800 " + "x" * 5_000)
    assert str(error).startswith(r"column 'a b\x1b[31m' \ud800 xxx")
    assert str(error).endswith("characters more)")
    assert len(str(error)) < 2_000
    assert isinstance(error, CurationError)


def test_log_probabilities_that_are_none_are_left_out() -> None:
    items = [
        {"token": "A", "logprob": -1.0, "top_logprobs": [{"token": "B"}, 3, {"token": "C", "logprob": "x"}]},
        {},
        1,
    ]
    body = {"choices": [{"message": {"content": "A"}, "logprobs": {"content": items}}]}
    (token,) = answer_in(json.dumps(body).encode()).tokens
    assert token == ("A", (("A", -1.0),))


@pytest.mark.parametrize(
    "template",
    [
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{{ 1 // 0 }}",
        "{{ messages + 3 }}",
        "{{ messages[99].content }}",
        "{{ 'a' % 3 }}",
        "{{ range(999999999) | list }}",
        "{{ ''.__class__.__mro__ }}",
    ],
)
def test_a_hostile_chat_template_is_a_fault(template: str) -> None:
    TARGETS["templates"](template.encode() + b"\0Hello")


def test_formats_cover_what_is_read() -> None:
    assert {".jsonl", ".json", ".csv", ".parquet", ".jsonl.gz", ".csv.gz"} == set(FORMATS)

"""Taxonomies: the shipped files, the user's own, and open-set assignment."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
import pytest

from curation.errors import InputError
from curation.models.protocols import Encoded
from curation.refusals.sorting import CategoryAssigner, assign_categories, confusion
from curation.refusals.taxonomy import open_taxonomy, taxonomy_fingerprint


class WordEncoder:
    """Vectors by the letters of a text: near texts share letters."""

    fingerprint = "letters"
    dimension = 26

    def encode(self, texts: Sequence[str]) -> Encoded:
        counts = np.array([[t.lower().count(chr(97 + n)) for n in range(26)] for t in texts], dtype=np.float32)
        counts = counts.reshape(len(texts), 26) + 1e-6
        return Encoded(counts / np.linalg.norm(counts, axis=1, keepdims=True), np.zeros(len(texts), dtype=bool))


def own(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "own.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_sorry_bench_has_45_categories_in_four_domains() -> None:
    taxonomy = open_taxonomy("sorry_bench")
    assert len(taxonomy.assignable) == 45
    assert {taxonomy.top(c.name) for c in taxonomy.assignable} == {
        "hate_speech",
        "crimes_and_torts",
        "potentially_inappropriate",
        "unqualified_advice",
    }


def test_sorry_bench_numbers_shift_by_one_after_impersonation() -> None:
    taxonomy = open_taxonomy("sorry_bench")
    for number in range(1, 46):
        name = taxonomy.category_of_number(number, release="2024-06")
        newer = number if number < 12 else number - 1
        if number == 12:
            assert name == "impersonation"
        else:
            assert taxonomy.category_of_number(newer, release="2025-03") == name
    assert taxonomy.category_of_number(45, release="2025-03") is None


def test_a_release_has_its_own_categories_and_numbers() -> None:
    old, new = open_taxonomy("sorry_bench_2024_06"), open_taxonomy("sorry_bench_2025_03")
    assert [len(t.assignable) for t in (old, new)] == [45, 44]
    assert (new.name, new.version) == ("sorry_bench_2025_03", "2025-03")
    given = pl.Series(["12", "Impersonation", "Self-Harm", "kitchen", None])
    assert old.as_named(given).to_list() == ["impersonation", "impersonation", "self_harm", "kitchen", None]
    assert new.as_named(given).to_list() == ["system_intrusion", "Impersonation", "self_harm", "kitchen", None]
    # Nobody said that numbers are SORRY-Bench's, and of which release.
    assert open_taxonomy("sorry_bench").as_named(given)[0] == "12"


def test_a_name_goes_before_another_category_s_title(tmp_path: Path) -> None:
    taxonomy = open_taxonomy(own(tmp_path, "categories: [{name: a, title: B}, {name: b}]"))
    assert [taxonomy.name_of_label(label) for label in ("b", "B", "A")] == ["b", "a", "a"]


def test_a_title_or_label_of_several_categories_is_none_s(tmp_path: Path) -> None:
    titled = "{name: a, title: Other}, {name: b, title: other}"
    text = f"categories: [{titled}, {{name: c, labels: [x]}}, {{name: x, labels: [y]}}]"
    taxonomy = open_taxonomy(own(tmp_path, text))
    assert [taxonomy.name_of_label(label) for label in ("Other", "other", "OTHER", "x", "X", "Y")] == [
        "a", "b", None, "x", "x", "x",
    ]  # fmt: skip


def test_coconot_labels_map_to_its_five() -> None:
    taxonomy = open_taxonomy("coconot")
    tops = [c.name for c in taxonomy.categories if c.parent is None]
    assert sorted(tops) == ["humanizing", "incomplete", "indeterminate", "safety", "unsupported"]
    assert taxonomy.name_of_label("Requests with safety concerns") == "safety"
    name = taxonomy.name_of_label("copyright violations")
    assert name is not None
    assert taxonomy.top(name) == "safety"


def test_every_coconot_label_of_the_data_is_known(shared_data: Path) -> None:
    import json

    taxonomy = open_taxonomy("coconot")
    for file in ("coconot_eval", "coconot_pref"):
        for line in (shared_data / f"coconot/{file}.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            assert taxonomy.name_of_label(row["category"])
            assert taxonomy.name_of_label(row["subcategory"])


def test_own_taxonomy_is_read(tmp_path: Path) -> None:
    taxonomy = open_taxonomy(own(tmp_path, "name: mine\ncategories:\n  - name: fruit\n  - name: tools\n"))
    assert [c.prototypes for c in taxonomy.assignable] == [("fruit",), ("tools",)]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("categories:\n  - title: fruit\n", "category 1: the name is missing"),
        (
            "categories:\n  - name: a\n  - {name: b, parent: [a]}\n",
            "category 2 .b.: parent is .*name of one category",
        ),
        ("categories:\n  - {name: a, prototypes: []}\n", "no category has prototypes"),
        ("categories:\n  - {name: a, parent: b}\n  - {name: b, parent: a}\n", "circle"),
        ("categories:\n  - {name: a, parent: a}\n", "circle"),
        ("categories:\n  - {name: a}\n  - {name: a}\n", "stands twice"),
        ("categories:\n  - {name: respond}\n", r"cannot be called 'respond': its token would be \[respond\]"),
        ("categories:\n  - {name: (none)}\n", "cannot be called '.none.': rows without a category"),
        ("categories:\n  - {name: a, parent: z}\n", "unknown parent"),
        ("categories:\n  - {name: a, prototype: [b]}\n", "did you mean 'prototypes'"),
        ("min_similarity: 0.2\ncategories:\n  - {name: a}\n", "unknown field 'min_similarity'"),
        ("categories:\n  - {name: a, prototypes: [b, ' ']}\n", "none of them empty"),
        ("categories:\n  - {name: a, heading: 1}\n", "expected true or false"),
        ("categories: []\n", "empty"),
        ("categories: [1]\n", "found a number"),
        ("just text", "expected a mapping"),
        ("a: [", "not YAML"),
    ],
)
def test_faulty_taxonomy_is_explained(text: str, match: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=match):
        open_taxonomy(own(tmp_path, text))


def test_unknown_taxonomy_suggests_a_name() -> None:
    with pytest.raises(InputError, match="did you mean 'sorry_bench'"):
        open_taxonomy("sorrybench")


def test_a_category_above_others_keeps_the_requests_of_its_own_prototypes(tmp_path: Path) -> None:
    below = "  - {name: zzyy, parent: top}\n  - {name: empty, title: Empty}\n  - {name: xx, parent: empty}\n"
    lists = "categories:\n  - {name: top, prototypes: [aaab]%s}\n" + below
    taxonomy = open_taxonomy(own(tmp_path, lists % ""))
    assert [c.name for c in taxonomy.assignable] == ["top", "zzyy", "xx"]
    found = CategoryAssigner(taxonomy, WordEncoder(), min_similarity=0.6).assign(["aab", "zzy"])
    assert found.category == ["top", "zzyy"]
    before = taxonomy_fingerprint(own(tmp_path, lists % ""))
    heading = open_taxonomy(own(tmp_path, lists % ", heading: true"))
    assert [c.name for c in heading.assignable] == ["zzyy", "xx"]
    assert taxonomy_fingerprint(own(tmp_path, lists % ", heading: true")) != before


def test_request_far_from_everything_has_no_category(tmp_path: Path) -> None:
    taxonomy = open_taxonomy(own(tmp_path, "categories:\n  - name: aaab\n  - name: ccdd\n"))
    assigner = CategoryAssigner(taxonomy, WordEncoder(), min_similarity=0.6)
    found = assigner.assign(["aab", "ccd", "xyz", "aab"])
    assert found.category == ["aaab", "ccdd", None, "aaab"]


def test_examples_that_are_nearer_than_a_prototype_decide(tmp_path: Path) -> None:
    taxonomy = open_taxonomy(own(tmp_path, "categories:\n  - name: aab\n  - name: zz\n"))
    encoder = WordEncoder()
    one = CategoryAssigner(taxonomy, encoder, examples=[("abb", "zz")], min_similarity=0.1).assign(["abb", "aab"])
    assert one.category == ["zz", "aab"]
    assert one.similarity == pytest.approx([1.0, 1.0], abs=1e-5)
    text = "categories:\n  - name: aab\n  - name: zz\n    examples: [abb, abbb, c, bb]\n"
    assigner = CategoryAssigner(open_taxonomy(own(tmp_path, text)), encoder, min_similarity=0.1)
    nearest = np.sort(encoder.encode(["abb"]).vectors @ encoder.encode(["abb", "abbb", "c", "bb"]).vectors.T)[
        0, -3:
    ]
    found = assigner.assign(["abb"])
    assert found.category == ["zz"]
    assert found.similarity[0] == pytest.approx(nearest.mean(), abs=1e-6)


def test_examples_change_the_fingerprint_and_headings_take_none(tmp_path: Path) -> None:
    plain = taxonomy_fingerprint(own(tmp_path, "categories:\n  - name: a\n"))
    assert plain != taxonomy_fingerprint(own(tmp_path, "categories:\n  - name: a\n    examples: [x]\n"))
    heading = "categories:\n  - name: a\n    heading: true\n    examples: [x]\n  - name: b\n    parent: a\n"
    with pytest.raises(InputError, match="a heading takes no requests"):
        open_taxonomy(own(tmp_path, heading))


def test_example_of_unknown_category_is_an_error(tmp_path: Path) -> None:
    taxonomy = open_taxonomy(own(tmp_path, "categories:\n  - name: a\n"))
    with pytest.raises(InputError, match="'b'"):
        CategoryAssigner(taxonomy, WordEncoder(), examples=[("x", "b")])


def test_null_requests_have_null_categories(tmp_path: Path) -> None:
    taxonomy = open_taxonomy(own(tmp_path, "categories:\n  - name: aaab\n"))
    assigner = CategoryAssigner(taxonomy, WordEncoder())
    assert assign_categories([None, "aab", " "], assigner).to_list() == [None, "aaab", None]


def test_confusion_counts_and_shares() -> None:
    table = confusion(["a", "a", "a", "b"], ["a", "a", "b", None])
    assert table.rows() == [("a", "a", 2, 2 / 3), ("a", "b", 1, 1 / 3), ("b", None, 1, 1.0)]


def test_a_taxonomy_of_the_package_is_read_once_and_a_file_of_the_users_anew(tmp_path: Path) -> None:
    assert open_taxonomy("sorry_bench") is open_taxonomy("sorry_bench")
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\ncategories: [{name: a}]\n")
    before = taxonomy_fingerprint(path)
    path.write_text("name: mine\ncategories: [{name: b}]\n")
    assert taxonomy_fingerprint(path) != before


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_name_is_one_however_its_marks_are_written_and_whatever_stands_around_it(
    tmp_path: Path, form: Literal["NFC", "NFD"]
) -> None:
    """Files from a Mac have NFD, and YAML's folded texts end with a line break."""
    other = "NFD" if form == "NFC" else "NFC"
    text = "categories:\n- {name: ' türen ', labels: [Café], prototypes: [x]}\n- {name: tore, parent: türen}\n"
    (tmp_path / "t.yaml").write_text(unicodedata.normalize(form, text))
    taxonomy = open_taxonomy(tmp_path / "t.yaml")
    assert [(c.name, c.parent) for c in taxonomy.categories] == [("türen", None), ("tore", "türen")]
    for label in ("türen", "TÜREN ", "café"):
        assert taxonomy.name_of_label(unicodedata.normalize(other, label)) == "türen"
    (tmp_path / "t.yaml").write_text(text + unicodedata.normalize("NFD", "- {name: türen}\n"))
    with pytest.raises(InputError, match="'türen' stands twice"):
        open_taxonomy(tmp_path / "t.yaml")


def test_no_category_is_called_respond_whatever_the_case(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text("categories:\n- {name: Respond}\n")
    with pytest.raises(InputError, match="cannot be called 'Respond'"):
        open_taxonomy(tmp_path / "t.yaml")

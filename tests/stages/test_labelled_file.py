"""The file under ``strength.labelled``: every label is read as what it says, or is an error."""

from __future__ import annotations

from pathlib import Path

import pytest

from curation.errors import InputError
from curation.recipe import Recipe
from curation.stages.context import Context
from curation.stages.pair_scores import labelled_rows
from curation.workspace import Workspace


def said(tmp_path: Path, *labels: str) -> list[tuple[str, bool]]:
    path = tmp_path / "labels.csv"
    path.write_text("pair_id,label_right\n" + "".join(f"p{n},{label}\n" for n, label in enumerate(labels)))
    recipe = Recipe.model_validate({"sources": [{"path": "a"}], "strength": {"labelled": str(path)}})
    return labelled_rows(Context(Workspace(tmp_path / "w"), recipe)).rows()


@pytest.mark.parametrize(("yes", "no"), [("true", "false"), ("True", "FALSE"), ("1", "0"), ("1.0", "0.0")])
def test_labels_are_read_in_every_form_and_empty_ones_left_out(tmp_path: Path, yes: str, no: str) -> None:
    assert said(tmp_path, yes, "", no) == [("p0", True), ("p2", False)]


@pytest.mark.parametrize("labels", [("yes", "no"), ("0.9", "0.2"), ("true", "maybe")])
def test_what_is_neither_true_nor_false_is_an_error_and_no_label(tmp_path: Path, labels: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match=r"labels\.csv: column 'label_right' holds .* expected true, false"):
        said(tmp_path, *labels)


def test_labels_of_published_rows_are_of_the_pairs_as_they_were_built(tmp_path: Path) -> None:
    path = tmp_path / "published.csv"
    path.write_text("pair_id,flipped,label_right\na,true,true\nb,false,true\nc,true,false\nd,,false\n")
    recipe = Recipe.model_validate({"sources": [{"path": "a"}], "strength": {"labelled": str(path)}})
    found = labelled_rows(Context(Workspace(tmp_path / "w"), recipe))
    assert found.rows() == [("a", False), ("b", True), ("c", True), ("d", False)]

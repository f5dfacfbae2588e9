"""A review goes out as a sheet and for Argilla, and comes back as labels that calibrate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from curation.cli import app
from curation.errors import InputError
from curation.files.spreadsheets import neutral_cells
from curation.pipeline import run, stage_named
from curation.recipe import Recipe
from curation.review.answers import import_review, reviewed_pairs
from curation.review.sample import allocate, review_sample
from curation.review.sheets import write_review
from curation.stages.context import Context
from curation.stages.pair_scores import labelled_rows
from curation.workspace import Workspace
from tests.stages.conftest import sentences


def recipe(folder: Path) -> Recipe:
    rows = sentences(60)
    rows[0]["chosen"] = "=HYPERLINK(1) and what follows"
    rows[1]["prompt"] = "-1 is what?"
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Recipe.model_validate(
        {
            "sources": [{"path": str(folder / "pairs.jsonl")}],
            "rewards": [{"batch_rows": 64}],
            "refusals": None,
            "policy": None,
            "selection": {"rules": [{"score": "strength_mean", "min_quantile": 0.2}]},
        }
    )


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Path]:
    folder = tmp_path_factory.mktemp("review")
    made = recipe(folder)
    run(made, workspace=folder / "workspace")
    return made, folder / "workspace"


@pytest.fixture
def workspace(done: tuple[Recipe, Path], tmp_path: Path) -> Workspace:
    """A copy, so that no test sees another's labels."""
    import shutil

    shutil.copytree(done[1], tmp_path / "workspace")
    return Workspace(tmp_path / "workspace")


@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 40), min_size=1), st.integers(1, 150))
def test_strata_get_equal_shares_as_far_as_they_have_them(sizes: dict[str, int], rows: int) -> None:
    given_rows = allocate(sizes, rows)
    assert sum(given_rows.values()) == min(rows, sum(sizes.values()))
    assert all(given_rows[name] <= sizes[name] for name in sizes)
    most = max(given_rows.values())
    assert all(n == sizes[name] or n >= most - 1 for name, n in given_rows.items())


def test_a_sample_is_stratified_blind_and_says_how_probable_each_row_was(workspace: Workspace) -> None:
    sample = review_sample(workspace, "preference", rows=24, seed=3)
    assert sample.height == 24
    assert sample["pair_id"].n_unique() == 24
    assert {"kept", "dropped"} == {name.split(", ")[1] for name in sample["stratum"]}
    pairs = workspace.read("pairs")
    chosen_first = sample.join(pairs, on="pair_id").filter(pl.col("answer_a_id") == pl.col("chosen_id")).height
    assert 0 < chosen_first < 24
    # Each stratum's rows stand for all of its pairs.
    assert (1 / sample["sampling_probability"]).sum() == pytest.approx(pairs.height)
    assert sample.equals(review_sample(workspace, "preference", rows=24, seed=3))
    assert not sample.equals(review_sample(workspace, "preference", rows=24, seed=4))


def test_everything_is_asked_where_the_sample_is_larger_than_what_there_is(workspace: Workspace) -> None:
    sample = review_sample(workspace, "preference", rows=1000)
    assert sample.height == workspace.read("pairs").height
    assert sample["sampling_probability"].unique().to_list() == [1.0]


def answered(folder: Path, sample: pl.DataFrame, pairs: pl.DataFrame, *, wrong: int) -> Path:
    """The sheet with every row answered; in the first ``wrong`` rows the rejected answer is called better."""
    sheet = pl.read_csv(folder / "review.csv", infer_schema=False).fill_null("")
    chosen = sheet.join(pairs, on="pair_id", maintain_order="left")
    right = pl.when(pl.col("answer_a_id") == pl.col("chosen_id")).then(pl.lit("a")).otherwise(pl.lit("b"))
    other = pl.when(right == "a").then(pl.lit("b")).otherwise(pl.lit("a"))
    better = chosen.select(pl.when(pl.int_range(pl.len()) < wrong).then(other).otherwise(right)).to_series()
    path = folder / "answered.csv"
    sheet.with_columns(better=better).write_csv(path, quote_style="non_numeric")
    return path


def test_answers_of_a_sheet_become_labels_and_calibrate(
    workspace: Workspace, done: tuple[Recipe, Path], tmp_path: Path
) -> None:
    sample = review_sample(workspace, "preference", rows=40)
    write_review(sample, tmp_path / "out", name="review")
    pairs = workspace.read("pairs")
    path = answered(tmp_path / "out", sample, pairs, wrong=10)
    before = workspace.read("pair_scores")
    imported = import_review(workspace, path, annotator="ada")
    assert imported == (40, 0, 40, ())
    labels = workspace.read("review_labels")
    assert set(labels["annotator"]) == {"ada"}
    assert labels["sampling_probability"].null_count() == 0
    known = reviewed_pairs(workspace, pairs)
    assert known["label_right"].value_counts().sort("label_right").rows() == [(False, 10), (True, 30)]
    turned = pairs.rename({"chosen_id": "rejected_id", "rejected_id": "chosen_id"})
    assert reviewed_pairs(workspace, turned)["label_right"].sum() == 10
    context = Context(workspace, done[0])
    assert labelled_rows(context).equals(known)
    stage_named("pair_scores").run(context)
    after = workspace.read("pair_scores")
    assert after["strength_mean"].equals(before["strength_mean"])
    assert not after["label_probability"].equals(before["label_probability"])
    # Platt's fit meets the share of right labels among the labelled.
    mean = after.join(known, on="pair_id")["label_probability"].mean()
    assert mean == pytest.approx(0.75, abs=0.03)


def test_a_second_answer_replaces_the_first_and_a_second_annotator_votes(
    workspace: Workspace, tmp_path: Path
) -> None:
    sample = review_sample(workspace, "preference", rows=6)
    write_review(sample, tmp_path / "out", name="review")
    pairs = workspace.read("pairs")
    import_review(workspace, answered(tmp_path / "out", sample, pairs, wrong=6), annotator="ada")
    import_review(workspace, answered(tmp_path / "out", sample, pairs, wrong=0), annotator="ada")
    assert reviewed_pairs(workspace, pairs)["label_right"].to_list() == [True] * 6
    import_review(workspace, answered(tmp_path / "out", sample, pairs, wrong=6), annotator="grace")
    assert workspace.read("review_labels").height == 12
    assert reviewed_pairs(workspace, pairs).is_empty(), "one vote for and one against"


def test_ties_and_doubts_are_labels_that_say_nothing_of_the_order(workspace: Workspace, tmp_path: Path) -> None:
    write_review(review_sample(workspace, "preference", rows=2), tmp_path / "out", name="review")
    path = tmp_path / "out" / "review.csv"
    sheet = pl.read_csv(path, infer_schema=False).fill_null("")
    sheet.with_columns(better=pl.Series(["tie", "UNSURE "]), annotator=pl.lit("ada")).write_csv(path)
    assert import_review(workspace, path).labels == 2
    assert workspace.read("review_labels")["verdict"].to_list() == ["tie", "unsure"]
    assert reviewed_pairs(workspace, workspace.read("pairs")).is_empty()


def test_a_sheet_of_a_spreadsheet_that_writes_decimal_commas_is_read(workspace: Workspace, tmp_path: Path) -> None:
    write_review(review_sample(workspace, "preference", rows=2), tmp_path / "out", name="review")
    path = tmp_path / "out" / "review.csv"
    sheet = pl.read_csv(path, infer_schema=False).fill_null("").with_columns(better=pl.lit("a"))
    shares = [f"0,{n}" for n in (25, 5)]
    sheet.with_columns(sampling_probability=pl.Series(shares)).write_csv(path, separator=";", include_bom=True)
    assert import_review(workspace, path, annotator="ada").labels == 2
    assert set(workspace.read("review_labels")["sampling_probability"]) == {0.25, 0.5}


def test_blank_lines_of_a_spreadsheet_are_no_rows(workspace: Workspace, tmp_path: Path) -> None:
    write_review(review_sample(workspace, "preference", rows=2), tmp_path / "out", name="review")
    path = tmp_path / "out" / "review.csv"
    sheet = pl.read_csv(path, infer_schema=False).fill_null("").with_columns(better=pl.Series(["a", ""]))
    path.write_text(sheet.write_csv() + "," * (sheet.width - 1) + "\n\n")
    done = import_review(workspace, path, annotator="ada")
    assert (done.labels, done.unanswered, done.missing) == (1, 1, ())


def test_a_file_in_place_of_the_folder_is_said(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(InputError, match="give a new folder with -o"):
        write_review(review_sample(workspace, "preference", rows=2), tmp_path / "out", name="review")


def test_answers_of_argilla_come_back_with_their_user(workspace: Workspace, tmp_path: Path) -> None:
    write_review(review_sample(workspace, "preference", rows=4), tmp_path / "out", name="review")
    folder = tmp_path / "out" / "argilla"
    records = json.loads((folder / "records.json").read_text())
    user = "3fa85f64-5717-4562-b3fc-2c963f66afa6"
    for record in records[:2]:
        record["responses"] = {
            "better": [{"value": "a", "user_id": user}],
            "comment": [{"value": "short", "user_id": user}],
        }
    records[2]["responses"] = {"better": [{"value": "a", "user_id": user, "status": "draft"}]}
    (folder / "records.json").write_text(json.dumps(records))
    assert import_review(workspace, folder) == (2, 2, 2, ())
    labels = workspace.read("review_labels")
    assert labels["annotator"].to_list() == [user] * 2
    assert labels["comment"].to_list() == ["short"] * 2
    assert labels["better_id"].to_list() == [r["metadata"]["answer_a_id"] for r in records[:2]]


def test_a_spreadsheet_takes_no_cell_for_a_formula(workspace: Workspace, tmp_path: Path) -> None:
    write_review(review_sample(workspace, "preference", rows=1000), tmp_path / "out", name="review")
    text = (tmp_path / "out" / "review.csv").read_bytes()
    assert b"'=HYPERLINK" in text
    assert b'"\'-1 is what?"' in text
    for cell in ("=1", "+1", "-1", "@x", "\t=1", "\r=1"):
        assert neutral_cells(pl.DataFrame({"x": [cell]}))["x"][0] == f"'{cell}"
    assert neutral_cells(pl.DataFrame({"x": ["a=1"], "n": [-1]})).rows() == [("a=1", -1)]


def test_what_is_written_for_argilla_has_its_form(workspace: Workspace, tmp_path: Path) -> None:
    write_review(review_sample(workspace, "preference", rows=3), tmp_path / "out", name="review-preference")
    folder = tmp_path / "out" / "argilla"
    settings = json.loads((folder / ".argilla" / "settings.json").read_text())
    records = json.loads((folder / "records.json").read_text())
    assert {f["name"] for f in settings["fields"]} == set(records[0]["fields"])
    assert {m["name"] for m in settings["metadata"]} == set(records[0]["metadata"])
    assert all(not m["settings"]["visible_for_annotators"] for m in settings["metadata"])
    assert records[0]["fields"]["prompt"][0]["role"] == "user"
    assert json.loads((folder / ".argilla" / "dataset.json").read_text())["name"] == "review-preference"


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("better", "A!", "row 2: better is 'a!', expected one of a, b, tie, unsure"),
        ("annotator", "", "row 2: annotator is '', expected who answered: fill in the column, or give --annotator"),
        ("pair_id", "0" * 32, "expected a pair of this workspace"),
        ("answer_a_id", "0" * 32, "expected the two answers of the pair"),
    ],
)
def test_a_row_that_is_wrong_is_named_and_nothing_is_taken(
    workspace: Workspace, tmp_path: Path, column: str, value: str, said: str
) -> None:
    write_review(review_sample(workspace, "preference", rows=2), tmp_path / "out", name="review")
    path = tmp_path / "out" / "review.csv"
    sheet = pl.read_csv(path, infer_schema=False).fill_null("")
    filled: dict[str, Any] = {"better": pl.Series(["a", "b"]), "annotator": pl.lit("ada")}
    sheet = sheet.with_columns(**filled)
    sheet = sheet.with_columns(
        pl.when(pl.int_range(pl.len()) == 0).then(pl.lit(value)).otherwise(column).alias(column)
    )
    sheet.write_csv(path)
    with pytest.raises(InputError, match=said):
        import_review(workspace, path)
    assert workspace.read("review_labels").is_empty()


@pytest.mark.parametrize(
    "content", ["pair_id,better\nx,a\n", "", "{", "a\n1,2,3\n", '[{"responses": {"better": [{"value": "a"}]}}]']
)
def test_files_of_another_form_say_what_was_expected(workspace: Workspace, tmp_path: Path, content: str) -> None:
    path = tmp_path / ("answers.json" if content.startswith(("{", "[")) else "answers.csv")
    path.write_text(content)
    with pytest.raises(InputError, match=r"is missing|cannot be read|expected the records"):
        import_review(workspace, path)


def test_the_commands_write_once_and_import(workspace: Workspace, tmp_path: Path) -> None:
    runner = CliRunner()
    out = str(tmp_path / "out")
    written = runner.invoke(app, ["review", workspace.url, "preference", "-o", out, "--rows", "8"])
    assert written.exit_code == 0, written.output
    assert "review.csv" in written.output
    again = runner.invoke(app, ["review", workspace.url, "preference", "-o", out])
    assert isinstance(again.exception, InputError)
    assert "may hold answers" in str(again.exception)
    answers = answered(tmp_path / "out", pl.DataFrame(), workspace.read("pairs"), wrong=0)
    imported = runner.invoke(app, ["review", "import", workspace.url, str(answers), "--annotator", "ada"])
    assert imported.exit_code == 0, imported.output
    assert "8 labels taken, 0 rows unanswered, 8 labels in the workspace" in imported.output
    assert "not in" not in imported.output
    lines = answers.read_text(encoding="utf-8")
    sheet = pl.read_csv(answers, infer_schema=False)
    sheet[[0, 2, 3, 4, 5, 6]].write_csv(answers, quote_style="non_numeric")
    cut = runner.invoke(app, ["review", "import", workspace.url, str(answers), "--annotator", "bob"])
    assert "6 labels taken, 0 rows unanswered, 14 labels in the workspace" in cut.output
    assert "2 lines of the sheet are not in" in cut.output
    assert "(sheet_line 2 of 8, 8 of 8)" in cut.output
    answers.write_text(lines.replace("3 of 8", "three"), encoding="utf-8")
    changed = runner.invoke(app, ["review", "import", workspace.url, str(answers), "--annotator", "eve"])
    assert "sheet_line 'three' was changed" in str(changed.exception)
    other = runner.invoke(app, ["review", workspace.url, "retrieval", "-o", str(tmp_path / "x")])
    assert "dataset 'retrieval' cannot be reviewed" in str(other.exception)

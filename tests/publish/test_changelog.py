"""What changed between two versions of a dataset, by ids, and what the changelog says of it."""

from __future__ import annotations

import polars as pl
import pytest

from curation.errors import WorkspaceError
from curation.publish.history import History, Reason, Version, data_digest, render_changelog
from curation.publish.row_changes import ROW_KEYS, row_changes
from curation.recipe import DATASETS


def frame(ids: list[int], **values: object) -> pl.DataFrame:
    base = {
        "pair_id": [f"{i:032x}" for i in ids],
        "prompt_id": [f"{i + 1000:032x}" for i in ids],
        "prompt": [[{"role": "user", "content": f"q{i}"}] for i in ids],
        "strength_mean": [float(i) for i in ids],
        "ln_ches": [None if i % 3 == 0 else i / 7 for i in ids],
        "label_probability": [0.5] * len(ids),
        "vote_probability": [0.5] * len(ids),
        "source": ["s"] * len(ids),
        "split": ["train"] * len(ids),
    }
    return pl.DataFrame({**base, **values})


def changes(before: pl.DataFrame, after: pl.DataFrame) -> dict[str, tuple[str, list[str]]]:
    found = row_changes("preference", before.iter_slices(3), after.iter_slices(2))
    return {row["pair_id"]: (row["change"], row["columns"]) for row in found.rows.to_dicts()}


def test_rows_are_told_apart_by_id():
    found = changes(frame([1, 2, 3]), frame([3, 2, 4]))
    assert found == {f"{4:032x}": ("added", []), f"{1:032x}": ("removed", [])}


def test_equal_rows_are_no_change_also_with_nulls_and_nan():
    rows = frame([1, 3, 6], strength_mean=[float("nan"), 1.0, None])
    assert changes(rows, rows.reverse()) == {}


@pytest.mark.parametrize(
    ("column", "value", "group"),
    [
        ("prompt", [{"role": "user", "content": "another"}], "text"),
        ("strength_mean", -1.0, "rewards"),
        ("label_probability", 0.25, "label probabilities"),  # people's labels move it without any reward
        ("vote_probability", 0.25, "label probabilities"),
        ("ln_ches", 0.5, "policy"),
        ("split", "test", "split"),
        ("source", "t", "other columns"),
    ],
)
def test_a_changed_value_is_named_by_what_it_comes_from(column, value, group):
    rows = frame([1, 2, 4])
    values = rows[column].to_list()
    values[1] = value
    after = rows.with_columns(pl.Series(column, values, dtype=rows.schema[column]))
    assert changes(rows, after) == {f"{2:032x}": ("changed", [group])}


def test_a_new_column_is_said_once_and_not_for_each_row():
    rows = frame([1, 2])
    found = row_changes("preference", [rows], [rows.with_columns(cosine=pl.lit(0.5))])
    assert found.rows.is_empty()
    assert (found.columns_added, found.columns_removed) == (("cosine",), ())


def test_every_dataset_has_a_key():
    assert set(ROW_KEYS) == set(DATASETS)


def history() -> History:
    first = Version(name="v1", date="2026-01-01", digest="a", rows={"train": 10})
    second = Version(
        name="v2", date="2026-02-01", digest="b", rows={"train": 11, "test": 2}, added=4, removed=1,
        reasons=(Reason(change="added", reason="its prompt is new (source a|b)", rows=4, ids=("0f",)),),
        settings=("recipe selection.rules.1.max_quantile: 0.9 → 0.8",), changes_file="changes/v2.parquet",
    )  # fmt: skip
    return History(dataset="preference", versions=(first, second), files={"data/x": "y"})


def test_the_changelog_keeps_every_version_newest_first():
    from curation.publish.card import escape_markdown

    text = render_changelog(history(), escape=escape_markdown)
    assert text.index("## v2 (2026-02-01)") < text.index("## v1 (2026-01-01)")
    assert "13 rows: 11 in train, 2 in test." in text
    assert r"| 4 | added | its prompt is new (source a\|b) | `0f` |" in text
    assert "- recipe selection.rules.1.max_quantile: 0.9 → 0.8" in text.replace("\\_", "_")
    assert "The first version." in text


def test_a_history_survives_its_file_and_a_broken_one_is_said():
    data = history().to_bytes()
    assert History.from_bytes(data, where="x") == history()
    assert History.from_bytes(None, where="x") is None
    with pytest.raises(WorkspaceError, match=r"d/curation\.json: .*restore it, or move the folder away"):
        History.from_bytes(data.replace(b'"versions"', b'"version"'), where="d/curation.json")


def test_a_history_continues_its_own_and_no_other():
    whole = history()
    earlier = whole.model_copy(update={"versions": whole.versions[:1]})
    assert whole.continues(earlier)
    assert not earlier.continues(whole)


def test_the_digest_is_of_the_data_alone():
    files = {"data/a": "1", "evidence/a": "2"}
    assert data_digest(files) == data_digest({**files, "README.md": "3"})
    assert data_digest(files) != data_digest({"data/a": "2", "evidence/a": "1"})

"""What ``curation explain`` says of rows that became nothing, or something else."""

from __future__ import annotations

import json

import polars as pl
import pytest

from curation.errors import InputError
from curation.explain import explain
from curation.text import content_hash
from curation.workspace import Workspace

ANCHOR, POSITIVE, PAIR, ASKED = (content_hash(name) for name in ("anchor", "positive", "pair", "asked"))
ROW_IDS = {
    "mine#1": "inputs",
    "mine#10": "inputs",
    "my own mine#1": "inputs",
    f"{ANCHOR} {POSITIVE}": "retrieval",
    f"{ANCHOR} {PAIR}": "retrieval",
    PAIR: "pairs",
}


@pytest.fixture
def space(tmp_path) -> Workspace:
    """Rejects alone: of none of them there is a row in another table."""
    found = Workspace(tmp_path / "w")
    nothing = pl.lit(None, pl.String)
    rejects = pl.DataFrame({"table": list(ROW_IDS.values()), "row_id": list(ROW_IDS)}).with_columns(
        rule=pl.lit("odd"), stage=pl.lit("some"), value=nothing, threshold=nothing, reason=pl.lit("it is odd")
    )
    found.overwrite("rejects", rejects)
    return found


@pytest.mark.parametrize(
    ("asked", "rows"),
    [
        ("mine#1", ["mine#1"]),
        ("my own mine#1", ["my own mine#1"]),
        (PAIR, [PAIR, f"{ANCHOR} {PAIR}"]),
        (PAIR[:8], [PAIR, f"{ANCHOR} {PAIR}"]),
        (ANCHOR[:8], [f"{ANCHOR} {POSITIVE}", f"{ANCHOR} {PAIR}"]),
    ],
)
def test_what_became_no_row_is_explained_by_its_reject(space, asked, rows):
    (section,) = explain(space, asked)
    assert section.title == "rejects"
    assert sorted(row["row_id"] for row in section.rows) == sorted(rows)


@pytest.mark.parametrize("asked", ["mine#2", "mine#", "mine", ASKED])
def test_what_nothing_knows_is_an_error(space, asked):
    with pytest.raises(InputError, match="has no prompt, candidate, pair or input row"):
        explain(space, asked)


@pytest.mark.parametrize(
    ("datasets", "passed", "title"),
    [
        (["preference"], True, "published in preference"),
        (["reward"], True, "published in preference"),
        (["preference"], False, "in preference, which a gate keeps from being published"),
        (["refusal"], True, "in preference, which the recipe of the last run does not publish"),
    ],
)
def test_a_row_of_a_table_that_is_not_published_is_not_said_to_be(space, datasets, passed, title):
    space.overwrite("pairs", pl.DataFrame(
        {"pair_id": [PAIR], "prompt_id": [ANCHOR], "chosen_id": [ASKED], "rejected_id": [POSITIVE],
         "margin": [1.0], "strategy": ["all"]}
    ))  # fmt: skip
    space.overwrite("preference", pl.DataFrame({"pair_id": [PAIR]}))
    gates = {"name": "min_rows", "dataset": "preference", "passed": passed, "blocking": True}
    space.overwrite("gates", pl.DataFrame([gates]))
    recipes = [json.dumps({"publish": {"datasets": asked}}) for asked in (["preference"], datasets)]
    space.overwrite("runs", pl.DataFrame({"recipe": recipes, "finished_at": [1, 2]}))
    titles = [section.title for section in explain(space, PAIR)]
    assert title in titles
    assert [t for t in titles if "preference" in t] == [title]

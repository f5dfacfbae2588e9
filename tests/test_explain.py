"""What ``curation explain`` says of rows that became nothing, or something else."""

from __future__ import annotations

import json

import polars as pl
import pytest

from curation.errors import InputError
from curation.explain import explain
from curation.recipe import Recipe
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


def run_of(
    recipe: Recipe, *, read: tuple[str, ...] = (), wrote: tuple[str, ...] = (), at: int = 1
) -> dict[str, object]:
    versions = {
        name: json.dumps(dict.fromkeys(tables, at)) for name, tables in (("read", read), ("written", wrote))
    }
    return {"recipe": recipe.model_dump_json(), "recipe_hash": recipe.content_hash, "finished_at": at,
            "versions_read": versions["read"], "versions_written": versions["written"]}  # fmt: skip


def recipe_of(*datasets: str) -> Recipe:
    return Recipe.model_validate({"name": "r", "sources": [{"path": "p.jsonl"}], "publish": {"datasets": datasets}})


TABLES_OF_PAIRS = ("inputs", "prompts", "candidates", "pairs", "pair_scores", "pair_labels", "preference")


@pytest.mark.parametrize(
    ("runs", "titles"),
    [
        ([run_of(recipe_of("preference"), wrote=TABLES_OF_PAIRS)], ["pairs", "published in preference"]),
        (
            # The last run changed the answers, and broke off before it came to the pairs.
            [run_of(recipe_of("preference"), wrote=TABLES_OF_PAIRS),
             run_of(recipe_of("preference"), read=("inputs", "prompts"), wrote=("candidates",), at=2)],
            ["pairs, older than table candidates: no run has made them since",
             "published in preference; older than table candidates: no run has made them since"],
        ),
        (
            [run_of(recipe_of("preference"), wrote=TABLES_OF_PAIRS),
             run_of(recipe_of("preference"), read=TABLES_OF_PAIRS, wrote=("inputs",), at=2)],
            ["pairs", "published in preference"],
        ),
        (
            [run_of(recipe_of("preference"), wrote=TABLES_OF_PAIRS),
             run_of(recipe_of("refusal"), read=("inputs", "prompts", "candidates"), at=2)],
            ["pairs, left from an earlier recipe: that of the last run does not make them",
             "in preference, which the recipe of the last run does not publish"],
        ),
        (
            [run_of(recipe_of("preference"), wrote=TABLES_OF_PAIRS),
             run_of(recipe_of("preference", "refusal"), read=("inputs", "prompts", "candidates"), at=2)],
            ["pairs, of an earlier recipe: no run has made them by the last one's",
             "published in preference; of an earlier recipe: no run has made them by the last one's"],
        ),
    ],
)  # fmt: skip
def test_tables_that_an_earlier_run_left_say_so(space, runs, titles):
    pair = {"pair_id": PAIR, "prompt_id": ANCHOR, "chosen_id": ASKED, "rejected_id": POSITIVE, "strategy": "all"}
    space.overwrite("pairs", pl.DataFrame([pair]))
    space.overwrite("preference", pl.DataFrame({"pair_id": [PAIR]}))
    space.overwrite("runs", pl.DataFrame(runs))
    assert [section.title for section in explain(space, PAIR) if section.title != "rejects"] == titles


def test_a_policys_pass_over_an_earlier_set_of_answers_is_not_shown(space):
    old = content_hash("old answer")
    space.overwrite("prompts", pl.DataFrame({"prompt_id": [ANCHOR]}))
    there = {"candidate_id": [ASKED, POSITIVE], "prompt_id": [ANCHOR] * 2}
    space.overwrite("candidates", pl.DataFrame(there))
    sets = {"now": [ASKED, POSITIVE], "before": [ASKED, old], "first": [ASKED]}
    rows = [
        {"stats_id": name, "policy": "p", "prompt_id": ANCHOR, "candidate_ids": ids} for name, ids in sets.items()
    ]
    space.overwrite("policy_stats", pl.DataFrame(rows))
    (stats,) = (section for section in explain(space, ANCHOR) if section.title == "policy_stats")
    assert [row["stats_id"] for row in stats.rows] == ["now"]

"""Annotators and votes that a source brings: they reach the labels of a run, and the report names who errs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from curation.errors import InputError
from curation.pipeline import run_stage, stage_named
from curation.recipe import Recipe
from curation.recipe.strength import LabelNoise, NoiseActions
from curation.scores.calibration import sigmoid
from curation.scores.noise_witnesses import peoples_votes
from curation.stages.context import Context
from curation.stages.label_facts import label_facts
from curation.stages.pair_labels import labelled_scores
from curation.stages.people import pairs_people
from curation.workspace import Workspace
from tests.stages.conftest import sentences

STAGES = (
    "inputs",
    "hygiene",
    "prompts",
    "candidates",
    "embeddings",
    "rewards",
    "pairs",
    "pair_scores",
    "pair_labels",
)


def context_of(folder: Path, rows: list[dict[str, Any]], **source: Any) -> Context:
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = Recipe.model_validate(
        {
            "sources": [{"path": str(folder / "pairs.jsonl"), "name": "source", **source}],
            "label_noise": {}, "refusals": None, "policy": None, "publish": {"datasets": ["preference"]},
        }
    )  # fmt: skip
    return Context(Workspace(folder / "w"), recipe)


def run_to(context: Context, last: str) -> None:
    for name in STAGES[: STAGES.index(last) + 1]:
        run_stage(context, stage_named(name))


def labelled(count: int) -> list[dict[str, Any]]:
    """Ada labels well; every label of Ben's is exchanged, and three others vote against him."""
    rows: list[dict[str, Any]] = [dict(row) for row in sentences(count)]
    for number, row in enumerate(rows):
        ben = number % 4 == 0
        if ben:
            row["chosen"], row["rejected"] = row["rejected"], row["chosen"]
        row["who"] = "ben" if ben else "ada" if number % 4 < 3 else None
        right, wrong = ("rejected", "chosen") if ben else ("chosen", "rejected")
        voters = {"v1": right, "v2": right, "v3": right if number % 8 else "tie", "v4": wrong}
        row["said"] = [{"voter": name, "vote": vote} for name, vote in voters.items()]
    return rows


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Context:
    folder = tmp_path_factory.mktemp("people")
    context = context_of(folder, labelled(32), columns={"annotator": "who", "votes": "said"})
    run_to(context, "pair_labels")
    return context


def test_annotators_and_votes_of_a_source_decide_with(known: Context) -> None:
    space = known.workspace
    labels = space.read("pair_labels").join(space.read("pairs"), on="pair_id", maintain_order="left")
    inputs = space.read("inputs").select("prompt_id", "annotator")
    said = labels.join(inputs, on="prompt_id", maintain_order="left")
    by = said.group_by("annotator").agg(pl.col("label_noise_probability").mean())
    means = dict(by.iter_rows())
    assert means["ben"] < 0.2
    assert means["ada"] > 0.8
    assert said.filter(pl.col("annotator") == "ben")["suggested_action"].unique().to_list() == ["flip"]


def test_a_run_has_the_columns_of_the_command(known: Context) -> None:
    labels = known.workspace.read("pair_labels")
    assert labels["label_margin"].null_count() == 0
    assert labels["vote_probability"].null_count() == 0
    assert labels["annotator_loss_rank"].is_between(0, 1).all()
    published = labelled_scores(known)
    assert {"label_margin", "annotator_loss_rank", "vote_probability"} <= set(published.columns)
    # By the votes themselves: a row that three of four voters contradict is probably wrong.
    assert labels.filter(pl.col("vote_probability") < 0.5)["label_noise_probability"].max() < 0.5


def test_votes_are_joined_by_the_method_that_the_recipe_names(known: Context) -> None:
    found = {}
    for method in ("majority", "glad"):
        noise = LabelNoise.model_validate({"vote_method": method})
        context = Context(known.workspace, known.recipe.model_copy(update={"label_noise": noise}))
        run_stage(context, stage_named("pair_labels"))
        pairs = context.workspace.read("pairs")
        expected = peoples_votes(pairs_people(context, pairs), "votes", method=noise.vote_method, seed=0)
        labels = context.workspace.read("pair_labels").sort("pair_id")
        order = np.argsort(pairs["pair_id"].to_list())
        np.testing.assert_allclose(labels["vote_probability"], sigmoid(expected.log_odds)[order])
        found[method] = labels["vote_probability"].to_list()
    assert found["majority"] != found["glad"]
    run_stage(known, stage_named("pair_labels"))


def test_a_flip_turns_the_evidence_of_label_noise_round(known: Context) -> None:
    flip = LabelNoise(actions=NoiseActions(flip=("flip",)))
    context = Context(known.workspace, known.recipe.model_copy(update={"label_noise": flip}))
    run_stage(context, stage_named("pair_labels"))
    before = context.workspace.read("pair_labels")
    after = labelled_scores(context)
    both = after.join(before.select("pair_id", was="label_margin", votes="vote_probability"), on="pair_id")
    turned = both.filter("flipped")
    assert turned.height > 0
    assert (turned["label_margin"] == -turned["was"]).all()
    assert (turned["vote_probability"] == 1 - turned["votes"]).all()
    assert turned["annotator_loss_rank"].null_count() == turned.height
    kept = both.filter(~pl.col("flipped"))
    assert (kept["label_margin"] == kept["was"]).all()
    run_stage(known, stage_named("pair_labels"))


def test_the_report_and_a_table_name_who_errs(known: Context) -> None:
    voters = known.workspace.read("voters")
    shares = {(kind, name): share for kind, name, share in voters.select("kind", "name", "reliability").iter_rows()}
    assert shares["voter", "v4"] < 0.3
    assert shares["voter", "v1"] > 0.7
    assert shares["annotator", "ben"] < shares["annotator", "ada"]
    assert dict(voters.filter(pl.col("kind") == "voter").select("name", "labels").iter_rows())["v3"] == 28
    facts = label_facts(known)
    assert facts["voters (share of right votes, least reliable first)"].startswith("v4 0.")
    assert "votes of 4 people" in facts["label noise"]
    assert "share of right labels, estimated: 0." in facts["label noise"]
    assert facts["annotators (share of right labels, least reliable first)"].startswith("ben 0.")


def test_other_votes_are_fitted_anew_and_the_same_ones_are_not(known: Context) -> None:
    before = known.workspace.version("pair_labels")
    run_stage(known, stage_named("pair_labels"))
    assert known.workspace.version("pair_labels") == before
    rows = labelled(32)
    rows[1]["said"] = [{"voter": name, "vote": "rejected"} for name in ("v1", "v2", "v3")]
    changed = context_of(Path(known.workspace.url).parent, rows, columns={"annotator": "who", "votes": "said"})
    run_to(changed, "pair_labels")
    assert known.workspace.version("pair_labels") != before


def test_votes_of_a_row_that_prefers_the_other_answer_are_turned_round(tmp_path: Path) -> None:
    one = sentences(1)[0]
    rows = [
        {**one, "annotator": "ada", "votes": [{"voter": "x", "vote": 1}, {"voter": "y", "vote": None}]},
        {**one, "chosen": one["rejected"], "rejected": one["chosen"], "annotator": "ben",
         "votes": [{"voter": "z", "vote": "chosen"}]},
        *sentences(3)[1:],
    ]  # fmt: skip
    context = context_of(tmp_path, rows)
    run_to(context, "inputs")
    pairs = context.workspace.read("inputs").select(
        "prompt_id",
        chosen_id=pl.col("candidate_ids").list.get(0),
        rejected_id=pl.col("candidate_ids").list.get(1),
    )
    found = pairs_people(context, pairs)
    assert found["annotator"].to_list() == ["ada", "ben", None, None]
    votes = [{one["voter"]: one["vote"] for one in said or ()} for said in found["votes"].to_list()]
    assert votes == [
        {"x": "chosen", "y": "tie", "z": "rejected"}, {"x": "rejected", "y": "tie", "z": "chosen"}, {}, {},
    ]  # fmt: skip


def test_votes_that_cannot_be_read_are_rejects_where_the_recipe_names_them(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [dict(row) for row in sentences(4)]
    given = (
        [{"voter": "x", "vote": "perhaps"}],
        [{"voter": "x", "vote": "chosen"}],
        None,
        [{"vote": 1, "voter": ""}],
    )
    for row, votes in zip(rows, given, strict=True):
        row["said"] = votes
    context = context_of(tmp_path, rows, columns={"votes": "said"})
    run_to(context, "inputs")
    rejects = context.workspace.read("rejects")
    assert rejects["row_id"].sort().to_list() == ["source#0", "source#3"]
    assert rejects["rule"].unique().to_list() == ["unreadable_votes"]


def test_a_column_of_upvotes_is_not_taken_for_votes(tmp_path: Path) -> None:
    rows = [{**row, "votes": 17} for row in sentences(3)]
    context = context_of(tmp_path, rows)
    run_to(context, "inputs")
    assert context.workspace.read("inputs")["votes"].null_count() == 3
    assert context.workspace.read("rejects").is_empty()


def test_a_column_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    context = context_of(tmp_path, [dict(row) for row in sentences(3)], columns={"votes": "vots"})
    with pytest.raises(InputError, match=r"no column 'vots', which columns\.votes names"):
        run_to(context, "inputs")

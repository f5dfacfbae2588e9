"""Labels in a run: heads trained out of fold, vectors from the ledger, flips and drops that say so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from curation.errors import InputError
from curation.models.rewards import open_reward
from curation.models.rewards.heads import read_heads
from curation.pipeline import run
from curation.recipe import Recipe
from curation.stages.answered import answered
from curation.stages.context import Context
from curation.stages.evidence import pair_evidence
from curation.stages.rewards import candidate_rewards, reward_steps
from curation.text import content_hash
from curation.workspace import Workspace
from tests.stages.conftest import sentences

FLIPPED_ROWS = (3, 8, 14)


def recipe(folder: Path, **changes: Any) -> Recipe:
    plain = {
        "sources": [{"path": str(folder / "pairs.jsonl"), "name": "source"}],
        "rewards": [{"model": "embedded"}, {"model": "trained"}],
        "reward_training": {"heads": 2, "folds": 4},
        "refusals": None,
        "publish": {"datasets": ["preference"]},
        "gates": {"max_duplicate_rate": 1.0, "max_tie_rate": 1.0},
    }
    return Recipe.model_validate(plain | changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 pairs, three of them with their answers exchanged."""
    place = tmp_path_factory.mktemp("labels")
    rows = sentences(24)
    for number in FLIPPED_ROWS:
        rows[number]["chosen"], rows[number]["rejected"] = rows[number]["rejected"], rows[number]["chosen"]
    (place / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return place


@pytest.fixture(scope="module")
def plain(folder: Path) -> Workspace:
    run(recipe(folder, label_noise={}), workspace=folder / "w")
    return Workspace(folder / "w")


def context_of(folder: Path, **changes: Any) -> Context:
    return Context(Workspace(folder / "w"), recipe(folder, label_noise={}, **changes))


def test_by_default_nothing_is_flipped_dropped_or_softened(plain: Workspace) -> None:
    labels = plain.read("pair_labels")
    assert labels["action"].unique().to_list() == ["keep"]
    assert not labels["flipped"].any()
    assert labels["label_smoothing"].sum() == 0
    preference = plain.read("preference")
    assert preference.height == 24
    assert "flipped" not in preference.columns


def test_rewards_from_the_ledgers_vectors_equal_those_of_a_fresh_encoder(plain: Workspace, folder: Path) -> None:
    context = context_of(folder)
    candidates = answered(context)
    assert all(step.encoder is not None for step in reward_steps(context))
    stored = candidate_rewards(context, candidates["candidate_id"])["rewards"].to_list()
    messages, answers = candidates["messages"].to_list(), candidates["response"].to_list()
    fresh = [open_reward(step.options.model).score(messages, answers) for step in reward_steps(context)]
    np.testing.assert_allclose(np.array(stored), np.hstack(fresh), atol=1e-5)


def test_trained_heads_know_the_prompts_and_a_second_run_trains_nothing(plain: Workspace, folder: Path) -> None:
    place = folder / "w" / "models" / "reward_heads"
    heads = read_heads(place)
    assert heads.folds is not None
    assert len(heads.folds.prompts) == 24
    before = content_hash((place / "heads.safetensors").read_bytes().hex())
    changed = (place / "heads.safetensors").stat().st_mtime_ns
    again = run(recipe(folder, label_noise={}), workspace=folder / "w")
    assert again.computed == 0
    assert (place / "heads.safetensors").stat().st_mtime_ns == changed
    assert content_hash((place / "heads.safetensors").read_bytes().hex()) == before


def test_label_noise_finds_the_exchanged_rows(plain: Workspace) -> None:
    labels = plain.read("pair_labels").sort("label_noise_probability")
    pairs = plain.read("pairs").select("pair_id", "prompt_id")
    inputs = plain.read("inputs").select("row", "prompt_id")
    rows = labels.join(pairs, on="pair_id", maintain_order="left").join(
        inputs, on="prompt_id", maintain_order="left"
    )
    assert set(rows["row"][:3]) == set(FLIPPED_ROWS)


def test_a_language_model_judges_the_labels_anew_and_once(plain: Workspace, folder: Path) -> None:
    before = plain.read("pair_labels")
    asked = recipe(folder, label_noise={"language_model": "embedded"})
    run(asked, workspace=folder / "read")
    labels = Workspace(folder / "read").read("pair_labels")
    assert labels["noise_key"].n_unique() == 1
    assert labels["noise_key"][0] != before["noise_key"][0]
    assert "language model" in labels["noise_from"][0]
    assert labels["label_noise_probability"].is_between(0, 1).all()
    assert run(asked, workspace=folder / "read").computed == 0


def test_a_flipped_pair_says_so_and_its_scores_change_sides(folder: Path) -> None:
    changes = {
        "label_noise": {"flip_below": 0.85, "drop_below": 0.85, "actions": {"flip": ["flip", "soft_label"]}},
        "strength": {"actions": {"very_strong": ["margin", "weight"]}},
    }
    asked = recipe(folder, **changes)
    result = run(asked, workspace=folder / "w")
    space = result.workspace
    preference = space.read("preference")
    labels = space.read("pair_labels")
    flipped = preference.filter("flipped")
    assert flipped.height == labels["flipped"].sum() >= 3
    assert flipped["label_action"].unique().to_list() == ["flip+soft_label"]
    pairs, answers = space.read("pairs"), dict(space.read("candidates").select("candidate_id", "response").rows())
    for row in preference.join(pairs, on="pair_id", maintain_order="left").iter_rows(named=True):
        sides = ("rejected_id", "chosen_id") if row["flipped"] else ("chosen_id", "rejected_id")
        assert row["chosen"][0]["content"] == answers[row[sides[0]]]
        assert row["rejected"][0]["content"] == answers[row[sides[1]]]
    before = space.read("pair_scores").join(flipped.select("pair_id"), on="pair_id", maintain_order="right")
    assert flipped["strength_mean"].to_list() == pytest.approx((-before["strength_mean"]).to_list())
    assert flipped["ref_chosen_logps"].to_list() == before["rejected_logp"].to_list()
    assert flipped["difficulty"].to_list() == pytest.approx((-before["difficulty"]).to_list())
    # CHES is measured anew in the order that is published.
    assert flipped["ln_ches"].null_count() == 0
    assert (flipped["ln_ches"] != before["ln_ches"]).all()
    # The report shows what is published, and not what the source said.
    told = pair_evidence(Context(space, asked)).join(
        preference, on="pair_id", suffix="_published", maintain_order="left"
    )
    assert told.filter("flipped").height == flipped.height
    for side in ("chosen", "rejected"):
        published = told[f"{side}_published"].list.first().struct.field("content")
        assert told[side].to_list() == published.to_list()
    for name in ("strength_mean", "ln_ches", "chosen_rewards", "difficulty"):
        assert told[name].to_list() == told[f"{name}_published"].to_list()
    # A flipped pair that a rule drops has its CHES there, too.
    space.overwrite("preference", preference.filter(~pl.col("flipped")))
    told = pair_evidence(Context(space, asked)).filter("flipped")
    assert told["status"].unique().to_list() == ["dropped"]
    assert told["ln_ches"].to_list() == flipped["ln_ches"].to_list()
    strong = preference.join(labels.filter(pl.col("target_margin") > 0), on="pair_id", how="semi")
    assert strong.height > 0
    assert (preference["margin"] > 0).sum() == strong.height
    assert preference.filter(~pl.col("flipped"))["label_smoothing"].sum() == 0


def test_dropped_bands_are_rejects_with_the_band(folder: Path) -> None:
    changes = {"strength": {"actions": {"ambiguous": ["drop"]}, "match_lengths": True}}
    result = run(recipe(folder, **changes), workspace=folder / "w")
    space = result.workspace
    rejects = space.read("rejects").filter(pl.col("stage") == "pair_labels")
    assert set(rejects["rule"]) == {"band_dropped", "length_not_matched"}
    assert rejects.filter(pl.col("rule") == "band_dropped")["value"].unique().to_list() == ["ambiguous"]
    assert space.read("preference").height == 24 - rejects["row_id"].n_unique()
    waterfall = space.read("waterfall").filter(pl.col("dataset") == "preference")
    assert waterfall.sort("position")["left"][-1] == space.read("preference").height


def test_a_labelled_sample_without_its_columns_is_one_line(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("id,right\n1,true\n")
    changes = {"strength": {"labelled": str(tmp_path / "labels.csv")}}
    with pytest.raises(InputError, match=r"labels\.csv: column 'pair_id' is missing: found id, right"):
        run(recipe(folder, **changes), workspace=folder / "w")


def test_trained_heads_need_pairs(tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "How do tides work?"}\n')
    with pytest.raises(InputError, match="needs sources with pairs"):
        run(recipe(tmp_path, policy=None), workspace=tmp_path / "w")

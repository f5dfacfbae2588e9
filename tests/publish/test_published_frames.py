"""The published frames: which rows, which columns, which order."""

from __future__ import annotations

import polars as pl
import pytest

from curation.errors import InputError
from curation.publish.derived import reward_frame, sft_frame
from curation.publish.formats import (
    preference_frame,
    preference_unpaired_frame,
    retrieval_frame,
    trainer_view,
)
from curation.tables import validated
from tests.publish.conftest import make_tables


def preference(tables) -> pl.DataFrame:
    return preference_frame(
        pairs=tables.pairs,
        prompts=tables.prompts,
        candidates=tables.candidates,
        pair_scores=tables.pair_scores,
    )


def test_preference_keeps_its_schema_and_the_order_of_pairs(tables):
    frame = preference(tables)
    result = validated("preference", frame, stage="publish")
    assert result.rejects.is_empty()
    assert result.kept["pair_id"].to_list() == tables.pairs["pair_id"].to_list()


def test_preference_equals_a_join_by_hand(tables):
    prompts = {r["prompt_id"]: r for r in tables.prompts.iter_rows(named=True)}
    answers = dict(tables.candidates.select("candidate_id", "response").iter_rows())
    scores = {r["pair_id"]: r for r in tables.pair_scores.iter_rows(named=True)}
    rows = preference(tables).to_dicts()
    for row, pair in zip(rows, tables.pairs.to_dicts(), strict=True):
        assert row["prompt"] == prompts[pair["prompt_id"]]["messages"]
        assert row["chosen"] == [{"role": "assistant", "content": answers[pair["chosen_id"]]}]
        assert row["rejected"] == [{"role": "assistant", "content": answers[pair["rejected_id"]]}]
        assert row["margin"] == scores[pair["pair_id"]]["strength_mean"]
        assert row["ref_chosen_logps"] == scores[pair["pair_id"]]["chosen_logp"]


def test_preference_makes_nan_and_infinity_null(tables):
    scores = tables.pair_scores.with_columns(strength_mean=pl.lit(float("nan")), ches=pl.lit(float("inf")))
    frame = preference(tables._replace(pair_scores=scores))
    assert frame["margin"].null_count() == frame["ches"].null_count() == frame.height


def test_preference_names_a_pair_whose_answer_is_gone(tables):
    gone = tables._replace(candidates=tables.candidates.slice(1))
    with pytest.raises(InputError, match=rf"1 rows have no chosen.*{tables.pairs['pair_id'][0]}"):
        preference(gone)


def test_unpaired_has_each_side_once(tables):
    built = preference_unpaired_frame(pairs=tables.pairs, prompts=tables.prompts, candidates=tables.candidates)
    assert validated("preference_unpaired", built.frame, stage="publish").rejects.is_empty()
    for label, side in ((True, "chosen_id"), (False, "rejected_id")):
        assert set(built.frame.filter(label=label)["candidate_id"]) == set(tables.pairs[side])
    assert built.frame.height == 2 * tables.pairs.height
    assert built.rejects.is_empty()


@pytest.mark.parametrize("in_order", [False, True])
def test_unpaired_rows_stand_beside_answers_to_other_prompts(in_order):
    """KTO trainers take a prompt with the answer of the row before for a mismatched pair (TRL, LLaMA-Factory)."""
    tables = make_tables(600)
    built = preference_unpaired_frame(
        pairs=tables.pairs, prompts=tables.prompts, candidates=tables.candidates, in_order=in_order
    )
    prompts, labels = built.frame["prompt_id"], built.frame["label"].cast(pl.Int64)
    assert (prompts == prompts.shift(1)).sum() <= 0.02 * prompts.len()
    runs = labels.rolling_mean(64).drop_nulls()
    assert runs.min() > 0.2
    assert runs.max() < 0.8
    place = {pair: i for i, pair in enumerate(tables.pairs["prompt_id"])}
    moved = (prompts.replace_strict(place) - pl.int_range(prompts.len(), eager=True) / 2).abs().max()
    assert (moved < 260) == in_order


def test_log_probabilities_can_be_named_as_no_trainer_reads_them(tables):
    view = trainer_view("preference", preference(tables), reference_logps=False)
    assert not [name for name in view.frame.columns if name.startswith("ref_")]
    assert view.frame["chosen_logp"].to_list() == tables.pair_scores["chosen_logp"].to_list()
    assert view.left_out == ()


def test_unpaired_and_sft_rows_keep_how_sure_their_label_is(tables):
    pairs = tables.pairs.head(3).with_columns(
        label_smoothing=pl.Series([0.3, 0.0, 0.5]), weight=pl.Series([0.4, 1.0, 0.0])
    )
    other = pairs.head(1).with_columns(
        pair_id=pl.lit("0" * 32), rejected_id=pairs["rejected_id"].gather([1]), label_smoothing=0.1, weight=0.8
    )
    frame = preference_unpaired_frame(
        pairs=pairs.vstack(other.select(pairs.columns)), prompts=tables.prompts, candidates=tables.candidates
    ).frame
    assert validated("preference_unpaired", frame, stage="publish").rejects.is_empty()
    sure = dict(zip(frame["candidate_id"], frame.select("label_smoothing", "weight").rows(), strict=True))
    assert [sure[name] for name in pairs["chosen_id"]] == [(0.1, 0.8), (0.0, 1.0), (0.5, 0.0)]
    assert [sure[name] for name in pairs["rejected_id"]] == [(0.3, 0.4), (0.0, 1.0), (0.5, 0.0)]
    good = sft_frame(frame)
    assert dict(zip(good["candidate_id"], good["weight"], strict=True)) == {
        name: sure[name][1] for name in pairs["chosen_id"]
    }


def test_a_reward_row_says_what_was_decided_of_its_label(tables):
    said = {"flipped": True, "label_action": "flip+weight", "label_smoothing": 0.2, "weight": 0.6}
    decided = preference(tables).head(2).with_columns(pl.lit(value).alias(name) for name, value in said.items())
    assert reward_frame(decided).select(list(said)).unique().to_dicts() == [said]


def test_unpaired_rejects_an_answer_on_both_sides(tables):
    pair = tables.pairs.row(0, named=True)
    swapped = {
        **pair,
        "pair_id": "0" * 32,
        "chosen_id": pair["rejected_id"],
        "rejected_id": pair["chosen_id"],
    }
    pairs = tables.pairs.vstack(pl.DataFrame([swapped], schema=tables.pairs.schema))
    built = preference_unpaired_frame(pairs=pairs, prompts=tables.prompts, candidates=tables.candidates)
    assert set(built.rejects["row_id"]) == {pair["chosen_id"], pair["rejected_id"]}
    assert set(built.rejects["rule"]) == {"chosen_and_rejected"}
    assert built.frame.height == 2 * (tables.pairs.height - 1)


def test_refusal_files_tell_the_prompt_from_the_answer():
    said = [{"role": role, "content": role} for role in ("system", "user", "assistant", "user", "assistant")]
    row = {"candidate_id": "c", "messages": said, "refusal_token": "[refuse]", "kind": "refusal", "split": "train"}
    view = trainer_view("refusal", pl.DataFrame([row, row | {"messages": said[1:3]}]))
    assert view.frame["messages"].to_list() == [said, said[1:3]]
    assert view.frame["prompt"].to_list() == [said[:4], said[1:2]]
    assert view.frame["completion"].to_list() == [said[4:], said[2:3]]


def mined(negatives: list[list[str]]) -> pl.DataFrame:
    n = len(negatives)
    return pl.DataFrame(
        {
            "anchor_id": [f"{i:032x}" for i in range(n)],
            "positive_id": [f"{i + 100:032x}" for i in range(n)],
            "anchor": [f"question {i}" for i in range(n)],
            "positive": [f"answer {i}" for i in range(n)],
            "split": ["train"] * n,
            "negatives": negatives,
            "negative_scores": [[0.5] * len(x) for x in negatives],
        },
        schema_overrides={"negatives": pl.List(pl.String)},
    )


def test_retrieval_spreads_negatives_and_rejects_short_rows():
    built = retrieval_frame(mined([["a", "b", "c"], ["a"], []]), num_negatives=2)
    assert validated("retrieval", built.frame, stage="publish").rejects.is_empty()
    assert built.frame.select("negative_1", "negative_2").rows() == [("a", "b")]
    assert built.rejects["rule"].to_list() == ["too_few_negatives"] * 2
    assert built.rejects["value"].to_list() == ["1", "0"]


def test_retrieval_files_hold_texts_only():
    built = retrieval_frame(mined([["a", "b"]]), num_negatives=2)
    view = trainer_view("retrieval", built.frame)
    assert view.frame.columns == ["anchor", "positive", "negative_1", "negative_2", "split"]
    assert view.evidence is not None
    assert view.evidence.columns == ["anchor_id", "positive_id", "negative_scores"]


def test_columns_with_holes_that_trainers_read_are_left_out(tables):
    frame = preference(tables).with_columns(
        margin=pl.when(pl.int_range(pl.len()) > 0).then(pl.col("margin")),
        ref_rejected_logps=pl.when(pl.int_range(pl.len()) > 0).then(pl.col("ref_rejected_logps")),
        edit_distance=pl.lit(None, pl.Float64),
    )
    view = trainer_view("preference", frame)
    assert view.left_out == ("margin", "ref_rejected_logps")
    assert view.frame["rejected_logp"].null_count() == 1
    assert "edit_distance" not in view.frame.columns
    assert "ref_chosen_logps" in view.frame.columns

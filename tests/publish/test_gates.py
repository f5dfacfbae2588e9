"""Gates: each measures one thing and says by how much it fails."""

from __future__ import annotations

import polars as pl
import pytest

from curation.errors import GateError, RecipeError
from curation.publish.formats import preference_frame
from curation.publish.gates import DEFAULT_THRESHOLDS, GateResult, check_gates, raise_if_blocked


@pytest.fixture
def preference(tables) -> pl.DataFrame:
    return preference_frame(
        pairs=tables.pairs,
        prompts=tables.prompts,
        candidates=tables.candidates,
        pair_scores=tables.pair_scores,
    )


def one(results: list[GateResult], name: str) -> GateResult:
    (found,) = [r for r in results if r.name == name]
    return found


def test_good_data_pass_every_gate(preference):
    results = check_gates({"preference": preference})
    # How an answer ended is told beside the frames.
    assert {r.name for r in results} == set(DEFAULT_THRESHOLDS) - {"max_truncated_chosen_rate"}
    assert [r.message for r in results if not r.passed] == []
    raise_if_blocked(results)


def test_no_rows_fail(preference):
    result = one(check_gates({"preference": preference.head(0)}), "min_rows")
    assert not result.passed
    assert result.message == "preference: min_rows: 0 rows; allowed is at least 1, 1 too few"


def test_ties_are_counted_among_pairs_with_a_margin(preference):
    margins = [0.0] * 3 + [1.0] * 27 + [None] * 30
    tied = preference.with_columns(strength_mean=pl.Series(margins))
    result = one(check_gates({"preference": tied}), "max_tie_rate")
    assert result.value == pytest.approx(0.1)
    assert result.message.endswith(
        "10.00% of the pairs with a margin have margin 0; allowed is at most 5.00%, 5.00% too high"
    )


def test_duplicates(preference):
    twice = pl.concat([preference, preference.head(20).with_columns(pair_id=pl.lit("0" * 32))])
    result = one(check_gates({"preference": twice}), "max_duplicate_rate")
    assert result.value == pytest.approx(20 / 80)
    assert not result.passed


def test_a_prompt_in_two_splits_leaks_across_datasets(preference):
    other = preference.head(1).with_columns(split=pl.lit("test"))
    result = one(check_gates({"preference": preference, "refusal": other}), "max_leaking_prompts")
    assert result.value == 1
    assert not result.passed


def test_a_family_in_two_splits_leaks(preference):
    families = preference.select("prompt_id", family_id=pl.lit("f"))
    result = one(check_gates({"preference": preference}, families=families), "max_leaking_prompts")
    assert result.value == 1
    assert "families of prompts" in result.message


def test_refusal_rate_out_of_range(preference):
    low = check_gates({"preference": preference}, {"min_chosen_refusal_rate": 0.5})
    high = check_gates({"preference": preference}, {"max_chosen_refusal_rate": 0.1})
    assert one(low, "min_chosen_refusal_rate").message.endswith("16.67% too low")
    assert one(high, "max_chosen_refusal_rate").message.endswith("23.33% too high")


def test_chosen_answers_that_were_cut_off(preference):
    ids = preference["pair_id"]
    known = pl.DataFrame({"pair_id": ids[:8], "truncated": [True, True] + [False] * 6})
    result = one(check_gates({"preference": preference}, truncated=known), "max_truncated_chosen_rate")
    assert result.value == 0.25
    assert not result.passed
    assert result.message.endswith("25.00% too high")
    unknown = check_gates({"preference": preference}, truncated=known.clear())
    assert not [r for r in unknown if r.name == "max_truncated_chosen_rate"]


def test_reward_that_follows_length(preference):
    length = pl.col("chosen").list.first().struct.field("content").str.len_chars().cast(float)
    other = pl.col("rejected").list.first().struct.field("content").str.len_chars().cast(float)
    result = one(
        check_gates(
            {"preference": preference.with_columns(margin=other - length)},
            {"max_reward_length_correlation": 0.5},
        ),
        "max_reward_length_correlation",
    )
    assert result.value == pytest.approx(1.0)
    assert not result.passed


def test_an_empty_category_is_named(preference):
    result = one(check_gates({"preference": preference}, categories=["home", "work"]), "max_empty_categories")
    assert not result.passed
    assert "(work)" in result.message


def test_what_cannot_be_measured_passes(preference):
    plain = preference.drop("chosen_refusal_class").with_columns(margin=pl.lit(None, pl.Float64))
    assert all(r.passed for r in check_gates({"preference": plain}))


def test_blocked_publication_names_every_failure(preference):
    results = check_gates({"preference": preference.head(0)}, {"max_tie_rate": 0.0})
    with pytest.raises(GateError, match=r"1 of \d+ gates failed: preference: min_rows"):
        raise_if_blocked(results)


def test_a_warning_does_not_block(preference):
    results = check_gates({"preference": preference.head(0)}, warn_only=["min_rows"])
    assert not one(results, "min_rows").passed
    raise_if_blocked(results)


def test_an_unknown_gate_is_named():
    with pytest.raises(RecipeError, match=r"no gate 'max_tie_rates' .did you mean 'max_tie_rate'"):
        check_gates({}, {"max_tie_rates": 0.1})


def test_ties_are_counted_on_the_margin_where_no_reward_model_spoke(preference):
    margins = pl.Series([0.0] * 3 + [1.0] * 57)
    unscored = preference.with_columns(strength_mean=pl.lit(None, pl.Float64), margin=margins)
    assert one(check_gates({"preference": unscored}), "max_tie_rate").value == pytest.approx(0.05)


def test_anchors_of_a_retrieval_dataset_are_looked_up_in_evaluation_sets(preference):
    retrieval = preference.select(anchor_id="prompt_id", positive_id="pair_id", split="split")
    found = retrieval["anchor_id"].head(1)
    result = one(check_gates({"retrieval": retrieval}, contaminated=found), "max_contaminated_prompts")
    assert result.value == 1.0
    assert not result.passed

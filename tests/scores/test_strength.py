"""Preference strength."""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.errors import InputError
from curation.scores.losses import adaptive_margin_loss, label_smoothing_loss, rdpo_loss
from curation.scores.strength import STRENGTH_COLUMNS, preference_strength, summarise
from curation.scores.strength_bands import BANDS

WORKED = [0.4, -0.2, 0.1, 0.3, -0.6]


def pairs(margins: Any) -> pl.DataFrame:
    """Pairs with the given (rows, models) margins, as rewards of chosen against 0."""
    chosen = [list(map(float, row)) for row in margins]
    schema = {"chosen_rewards": pl.List(pl.Float64), "rejected_rewards": pl.List(pl.Float64)}
    return pl.DataFrame(
        {"chosen_rewards": chosen, "rejected_rewards": [[0.0] * len(r) for r in chosen]}, schema=schema
    )


def drawn(rows: int, models: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    truth = random.normal(0.5, 1.0, size=(rows, 1))
    return truth + random.normal(0, 0.5, size=(rows, models))


def test_worked_example_of_wang_et_al() -> None:
    row = preference_strength(pairs([WORKED])).frame.row(0, named=True)
    assert row["strength_mean"] == pytest.approx(0.0, abs=1e-12)
    assert row["strength_std"] == pytest.approx(0.3633, abs=5e-5)
    assert row["agreement"] == 0.6


def test_losses_of_the_worked_examples() -> None:
    assert label_smoothing_loss(2.0, 0.1) == pytest.approx(0.3269, abs=5e-5)
    assert adaptive_margin_loss(2.0, 1.5) == pytest.approx(0.4741, abs=5e-5)
    np.testing.assert_allclose(rdpo_loss([1.0, 3.0], 0.1), [0.1883, -0.3264], atol=5e-5)


def test_rdpo_refuses_a_flip_rate_of_one_half() -> None:
    with pytest.raises(InputError, match="at least 0 and below"):
        rdpo_loss(1.0, 0.5)


@given(st.lists(st.lists(st.floats(-5, 5), min_size=3, max_size=3), min_size=1, max_size=8))
@settings(max_examples=50, deadline=None)
def test_mean_and_std_equal_the_standard_library(margins: list[list[float]]) -> None:
    summary = summarise(np.asarray(margins))
    for row, values in enumerate(margins):
        assert summary.mean[row] == pytest.approx(statistics.fmean(values), abs=1e-9)
        assert summary.std[row] == pytest.approx(statistics.pstdev(values), abs=1e-7)
        wins = sum(1.0 if v > 0 else 0.5 if v == 0 else 0.0 for v in values)
        assert summary.agreement[row] == pytest.approx(wins / 3)


def test_the_unit_of_a_model_does_not_matter() -> None:
    margins = drawn(200, 4)
    plain = preference_strength(pairs(margins)).frame
    scaled = preference_strength(pairs(margins * [1.0, 1000.0, 0.01, 7.0])).frame
    for column in ("strength_mean", "strength_std", "agreement", "label_probability"):
        np.testing.assert_allclose(plain[column], scaled[column], atol=1e-9)
    assert plain["strength_band"].equals(scaled["strength_band"])


def test_an_outlier_does_not_set_the_scale() -> None:
    margins = drawn(200, 3)
    spoiled = margins.copy()
    spoiled[0, 0] = 1e9
    plain = preference_strength(pairs(margins)).frame["strength_mean"][1:]
    other = preference_strength(pairs(spoiled)).frame["strength_mean"][1:]
    np.testing.assert_allclose(plain, other, rtol=0.02, atol=0.02)


def test_scaling_keeps_the_sign_of_every_margin() -> None:
    margins = np.abs(drawn(50, 1)) + 1.0
    assert (preference_strength(pairs(margins)).frame["strength_mean"] > 0).all()


def test_swapping_the_answers_mirrors_the_scores() -> None:
    frame = pairs(drawn(100, 5))
    swapped = frame.rename({"chosen_rewards": "rejected_rewards", "rejected_rewards": "chosen_rewards"})
    one, two = preference_strength(frame).frame, preference_strength(swapped).frame
    np.testing.assert_allclose(one["strength_mean"], -two["strength_mean"].to_numpy())
    np.testing.assert_allclose(one["strength_std"], two["strength_std"])
    np.testing.assert_allclose(one["agreement"], 1 - two["agreement"].to_numpy())
    np.testing.assert_allclose(one["label_probability"], 1 - two["label_probability"].to_numpy())


def test_one_model_has_std_zero_and_a_note() -> None:
    result = preference_strength(pairs(drawn(20, 1)))
    assert result.frame["strength_std"].to_list() == [0.0] * 20
    assert any("one model" in note for note in result.notes)


def test_plain_numbers_are_one_model() -> None:
    frame = pl.DataFrame({"chosen_rewards": [2.0, 1.0], "rejected_rewards": [1.0, 3.0]})
    assert preference_strength(frame).frame["strength_mean"].to_list() == [1.0, -2.0]


def test_a_missing_reward_leaves_that_model_out_on_that_row() -> None:
    frame = pairs([[1.0, float("nan"), 3.0], [1.0, 2.0, float("inf")]])
    result = preference_strength(frame)
    assert result.frame["strength_mean"].to_list() == [2.0, 1.5]
    assert result.frame["strength_models"].to_list() == [2, 2]
    assert any("2 rewards were missing" in note for note in result.notes)


def test_a_null_reward_is_a_missing_one() -> None:
    frame = pl.DataFrame({"chosen_rewards": [[1.0, None]], "rejected_rewards": [[0.0, 0.0]]})
    assert preference_strength(frame).frame["strength_models"].to_list() == [1]


def test_a_row_without_any_reward_is_rejected() -> None:
    result = preference_strength(pairs([[1.0, 2.0], [float("nan"), float("nan")], [3.0, 1.0]]))
    assert result.frame.height == 2
    assert result.rejects.select("row", "rule").rows() == [(1, "no_reward")]


def test_the_wrong_count_of_rewards_is_rejected_with_the_count() -> None:
    frame = pl.DataFrame(
        {
            "chosen_rewards": [[1.0, 2.0], [1.0], [1.0, 2.0], None],
            "rejected_rewards": [[0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]],
        }
    )
    result = preference_strength(frame)
    assert result.frame.height == 2
    assert result.rejects.select("row", "rule", "value").rows() == [
        (1, "reward_count", "1 and 2"),
        (3, "missing_rewards", ""),
    ]


def test_named_models_set_the_count() -> None:
    result = preference_strength(pairs([[1.0, 2.0], [3.0, 4.0]]), models=["a", "b", "c"])
    assert result.frame.height == 0
    assert result.rejects["rule"].to_list() == ["reward_count"] * 2


def test_a_constant_model_is_left_out_and_said_so() -> None:
    margins = drawn(50, 3)
    with_constant = np.hstack([margins, np.zeros((50, 1))])
    result = preference_strength(pairs(with_constant))
    np.testing.assert_allclose(
        result.frame["strength_mean"], preference_strength(pairs(margins)).frame["strength_mean"]
    )
    assert result.models["constant"].to_list() == [False, False, False, True]
    assert any("without information" in note for note in result.notes)


def test_a_spread_of_one_model_beside_constant_ones_says_nothing() -> None:
    margins = drawn(50, 3)
    alone = preference_strength(pairs(np.hstack([margins[:, :1], np.zeros((50, 1))])))
    assert set(alone.frame["strength_std"]) == {0.0}
    assert "one model with information: strength_std is 0 everywhere and says nothing" in alone.notes
    two = preference_strength(pairs(np.hstack([margins[:, :2], np.zeros((50, 1))])))
    assert not any("one model" in note for note in two.notes)


def test_all_ties_are_ambiguous() -> None:
    result = preference_strength(pairs(np.zeros((30, 3))))
    assert set(result.frame["strength_band"]) == {"ambiguous"}
    assert set(result.frame["label_probability"]) == {0.5}
    assert set(result.frame["agreement"]) == {0.5}


def test_bands_by_quantile_have_the_wanted_shares() -> None:
    margins = np.random.default_rng(1).normal(0, 1, size=(1000, 1))
    counts = dict(preference_strength(pairs(margins)).frame["strength_band"].value_counts().iter_rows())
    assert counts == {"likely_flipped": 200, "ambiguous": 200, "normal": 500, "very_strong": 100}


def test_a_pair_that_the_models_confirm_is_never_called_flipped() -> None:
    margins = np.random.default_rng(1).uniform(1, 2, size=(100, 1))
    assert "likely_flipped" not in set(preference_strength(pairs(margins)).frame["strength_band"])


def test_bands_by_probability_follow_the_thresholds() -> None:
    result = preference_strength(pairs([[-3.0], [0.0], [1.0], [4.0]]), bands="probability")
    assert result.frame["strength_band"].to_list() == list(BANDS)


def test_a_labelled_sample_calibrates() -> None:
    random = np.random.default_rng(3)
    mean = random.normal(0, 1, size=5000)
    right = random.random(5000) < 1 / (1 + np.exp(-(0.7 * mean + 0.4)))
    known = [bool(r) if i % 4 == 0 else None for i, r in enumerate(right)]
    frame = pairs(mean[:, None]).with_columns(known=pl.Series(known))
    result = preference_strength(frame, labelled="known")
    expected = 1 / (1 + np.exp(-(0.7 * mean + 0.4)))
    assert result.frame["label_calibrated"].all()
    assert np.abs(result.frame["label_probability"].to_numpy() - expected).mean() < 0.03


@pytest.mark.parametrize("known", [[True] * 30, [None] * 30])
def test_without_both_kinds_of_label_nothing_is_calibrated(known: list[bool | None]) -> None:
    frame = pairs(drawn(30, 2)).with_columns(known=pl.Series(known, dtype=pl.Boolean))
    result = preference_strength(frame, labelled="known")
    assert not result.frame["label_calibrated"].any()
    assert any("not calibrated" in note for note in result.notes)


def test_other_columns_and_the_order_are_kept() -> None:
    frame = pairs(drawn(30, 2)).with_columns(pl.Series("mine", range(30)))
    result = preference_strength(frame).frame
    assert result["mine"].to_list() == list(range(30))
    assert set(STRENGTH_COLUMNS) <= set(result.columns)


def test_no_rows_give_no_rows() -> None:
    result = preference_strength(pairs([]))
    assert result.frame.height == 0
    assert set(STRENGTH_COLUMNS) <= set(result.frame.columns)


def test_a_missing_column_names_what_was_found() -> None:
    with pytest.raises(InputError, match="'chosen_rewards' is missing: found a"):
        preference_strength(pl.DataFrame({"a": [1]}))


def test_a_text_column_is_refused() -> None:
    with pytest.raises(InputError, match="expected lists of numbers"):
        preference_strength(pl.DataFrame({"chosen_rewards": ["x"], "rejected_rewards": ["y"]}))


def test_thresholds_must_increase() -> None:
    with pytest.raises(InputError, match="do not decrease"):
        preference_strength(pairs([[1.0]]), thresholds=(0.5, 0.2, 0.9))


def test_infinity_minus_infinity_is_a_missing_margin() -> None:
    frame = pairs(drawn(20, 2))
    endless = pl.Series([[float("inf"), 1.0], *frame["chosen_rewards"].to_list()[1:]])
    other = pl.Series([[float("inf"), 0.0], *frame["rejected_rewards"].to_list()[1:]])
    result = preference_strength(frame.with_columns(chosen_rewards=endless, rejected_rewards=other))
    assert result.frame["strength_models"].to_list() == [1] + [2] * 19


def test_a_pair_that_the_models_contradict_is_never_very_strong() -> None:
    margins = -np.random.default_rng(1).uniform(1, 2, size=(100, 1))
    assert "very_strong" not in set(preference_strength(pairs(margins)).frame["strength_band"])


def test_known_labels_may_be_words_and_anything_else_is_refused() -> None:
    frame = pairs(drawn(40, 2))
    words = frame.with_columns(known=pl.Series(["true", "False", "1", "0"] * 10))
    truth = frame.with_columns(known=pl.Series([True, False] * 20))
    found = [preference_strength(f, labelled="known").frame["label_probability"].to_list() for f in (words, truth)]
    assert found[0] == found[1]
    with pytest.raises(InputError, match=r"'known' holds '0\.9', expected true, false"):
        preference_strength(frame.with_columns(known=pl.Series([0.9] * 40)), labelled="known")


def test_labels_that_contradict_the_models_are_told() -> None:
    margins = drawn(60, 3)
    frame = pairs(margins).with_columns(known=pl.Series(margins.mean(axis=1) < 0))
    assert any("contradict the models" in note for note in preference_strength(frame, labelled="known").notes)


@pytest.mark.parametrize("margin", [-1.0, 1.0])
def test_models_that_say_the_same_of_every_pair_turn_no_label(margin: float) -> None:
    result = preference_strength(pairs(np.full((30, 2), margin)))
    assert set(result.frame["strength_mean"]) == {0.0}
    assert set(result.frame["strength_band"]) == {"ambiguous"}
    assert any("so every margin is a tie" in note for note in result.notes)


def test_more_flipped_pairs_than_asked_for_are_a_warning() -> None:
    few_grades = np.array([[-1.0]] * 24 + [[1.0]] * 6)
    result = preference_strength(pairs(few_grades))
    assert any("24 of 30 pairs are likely flipped, more than the 20%" in note for note in result.notes)
    assert not any("WARNING" in note for note in preference_strength(pairs(drawn(101, 2))).notes)


def test_no_band_contradicts_labels_that_people_have_looked_at() -> None:
    margins = np.linspace(-3, 3, 60)
    right = [True] * 40 + [False] * 2 + [True] * 18  # the models are wrong wherever they contradict a label
    frame = pairs(margins[:, None]).with_columns(ok=pl.Series(right))
    found = preference_strength(frame, labelled="ok").frame
    assert found["label_calibrated"].all()
    assert "likely_flipped" in set(preference_strength(frame).frame["strength_band"])
    assert "likely_flipped" not in set(found["strength_band"])
    assert found.filter(pl.col("strength_band") == "very_strong")["label_probability"].min() > 0.5  # type: ignore[operator]

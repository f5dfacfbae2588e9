"""Views over pairs."""

from __future__ import annotations

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from curation.errors import InputError
from curation.pairs.views import apply_bands, flip_pairs, reward_augmented, soft_labels


@pytest.fixture
def pairs() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "chosen": ["a", "b", "c", "d"],
            "rejected": ["A", "B", "C", "D"],
            "chosen_score": [9.0, 5.0, 4.0, 2.0],
            "rejected_score": [6.0, 5.0, 1.0, 1.0],
            "strength_mean": [-2.0, 0.0, 1.0, 4.0],
            "label_probability": [0.1, 0.5, 0.8, 0.99],
            "strength_band": ["likely_flipped", "ambiguous", "normal", "very_strong"],
        }
    )


def test_a_flip_exchanges_everything_that_belongs_to_an_answer(pairs: pl.DataFrame) -> None:
    flipped = flip_pairs(pairs, pl.col("strength_mean") < 0)
    first = flipped.row(0, named=True)
    assert (first["chosen"], first["rejected"]) == ("A", "a")
    assert (first["chosen_score"], first["rejected_score"]) == (6.0, 9.0)
    assert (first["strength_mean"], first["label_probability"]) == (2.0, pytest.approx(0.9))
    assert flipped["flipped"].to_list() == [True, False, False, False]
    assert_frame_equal(flipped[1:].drop("flipped"), pairs[1:])


def test_flipping_twice_gives_the_answers_back(pairs: pl.DataFrame) -> None:
    twice = flip_pairs(flip_pairs(pairs, pl.lit(value=True)), pl.lit(value=True))
    assert_frame_equal(twice.select("chosen", "rejected", "strength_mean", "chosen_score"),
                       pairs.select("chosen", "rejected", "strength_mean", "chosen_score"))  # fmt: skip
    assert not twice["flipped"].any()


def test_soft_labels_never_turn_a_label_round(pairs: pl.DataFrame) -> None:
    assert soft_labels(pairs)["label_smoothing"].to_list() == pytest.approx([0.5, 0.5, 0.2, 0.01])


def test_bands_do_what_the_recipe_says(pairs: pl.DataFrame) -> None:
    view = apply_bands(
        pairs, {"likely_flipped": "flip", "ambiguous": "drop", "very_strong": ["soft_label", "margin"]}
    )
    assert view.frame["chosen"].to_list() == ["A", "c", "d"]
    assert view.frame["margin"].to_list() == [0.0, 0.0, 4.0]
    assert view.frame["label_smoothing"].to_list() == pytest.approx([0.0, 0.0, 0.01])
    assert view.frame["weight"].to_list() == [1.0, 1.0, 1.0]
    assert view.rejects.select("row", "rule", "value").rows() == [(1, "band_dropped", "ambiguous")]


def test_weight_is_the_certainty(pairs: pl.DataFrame) -> None:
    view = apply_bands(pairs, {"normal": "weight", "ambiguous": "weight"})
    assert view.frame["weight"].to_list() == pytest.approx([1.0, 0.0, 0.6, 1.0])


def test_an_unknown_band_or_action_is_an_input_error(pairs: pl.DataFrame) -> None:
    with pytest.raises(InputError, match="band 'strong' is not known"):
        apply_bands(pairs, {"strong": "keep"})
    with pytest.raises(InputError, match="action 'burn'"):
        apply_bands(pairs, {"normal": "burn"})  # type: ignore[dict-item]


def test_reward_augmentation_of_the_worked_example(pairs: pl.DataFrame) -> None:
    both = reward_augmented(pairs[:1], chosen_score="chosen_score", rejected_score="rejected_score")
    assert both.select("goal", "chosen", "rejected", "flipped").rows() == [
        (9.0, "a", "A", False),
        (6.0, "A", "a", True),
    ]
    assert both["chosen_goal_reward"].to_list() == [0.0, 0.0]
    assert both["rejected_goal_reward"].to_list() == [-9.0, -9.0]


def test_equal_scores_are_given_once(pairs: pl.DataFrame) -> None:
    both = reward_augmented(pairs, chosen_score="chosen_score", rejected_score="rejected_score")
    assert both.height == 7

"""Views over pairs."""

from __future__ import annotations

import math
import statistics
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from curation.errors import InputError
from curation.pairs.flipping import flip_pairs
from curation.pairs.labels import decide_labels
from curation.pairs.views import apply_bands, reward_augmented
from curation.scores.strength import preference_strength
from curation.scores.strength_bands import BANDS


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
    soft = apply_bands(pairs, dict.fromkeys(BANDS, "soft_label")).frame
    assert soft["label_smoothing"].to_list() == pytest.approx([0.5, 0.5, 0.2, 0.01])


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


def test_a_flip_turns_every_score_that_names_a_side() -> None:
    """A slow copy of what the columns mean, row by row, against the exchange in frames."""
    frame = pl.DataFrame(
        {
            "chosen": ["a", "b"],
            "rejected": ["A", "B"],
            "difficulty": [2.0, -1.0],
            "label_margin": [0.5, -3.0],
            "vote_probability": [0.25, 0.9],
            "annotator_loss_rank": [0.1, 0.8],
            "judge_verdict": ["chosen", "tie"],
            "votes": [[{"voter": "v", "vote": "chosen"}, {"voter": "w", "vote": "tie"}], None],
            # METHODS.md: ‖g_w‖² 4, ‖g_l‖² 9, ⟨g_w, g_l⟩ 5 give −1 and −4.
            "chosen_change": [4.0 - 5.0, 9.0 - 5.0],
            "rejected_change": [5.0 - 9.0, 5.0 - 4.0],
            "both_fall": [True, False],
        }
    )
    first, second = flip_pairs(frame, pl.lit(value=True)).to_dicts()
    assert (first["difficulty"], first["label_margin"], first["vote_probability"]) == (-2.0, -0.5, 0.75)
    assert (first["judge_verdict"], first["annotator_loss_rank"]) == ("rejected", None)
    assert first["votes"] == [{"voter": "v", "vote": "rejected"}, {"voter": "w", "vote": "tie"}]
    # With the answers exchanged ‖g_w‖² is 9 and ‖g_l‖² is 4: both rise; and the other way round in the second row.
    assert (first["chosen_change"], first["rejected_change"], first["both_fall"]) == (9.0 - 5.0, 5.0 - 4.0, False)
    assert (second["chosen_change"], second["rejected_change"], second["both_fall"]) == (4.0 - 5.0, 5.0 - 9.0, True)
    assert (second["judge_verdict"], second["votes"]) == ("tie", None)


def test_votes_in_numbers_are_turned_and_upvotes_are_left_alone() -> None:
    turned = flip_pairs(
        pl.DataFrame({"votes": [[{"voter": 1, "vote": 1}, {"voter": 2, "vote": None}]]}), pl.lit(value=True)
    )
    assert turned["votes"].to_list() == [[{"voter": 1, "vote": 0}, {"voter": 2, "vote": None}]]
    assert flip_pairs(pl.DataFrame({"votes": [7]}), pl.lit(value=True))["votes"].to_list() == [7]


def test_words_that_name_an_answer_name_the_other_one_whatever_the_column_is_called() -> None:
    words = ["chosen", "rejected", "tie", "CHOSEN", "Rejected", "both are bad", None]
    other = ["rejected", "chosen", "tie", "REJECTED", "Chosen", "both are bad", None]
    frame = pl.DataFrame({"chosen": ["c"] * 7, "rejected": ["r"] * 7, "prompt": ["chosen"] * 7, "winner": words,
                          "crowd": [words] * 7, "note": ["the chosen one"] * 7})  # fmt: skip
    turned = flip_pairs(frame, pl.lit(value=True))
    assert turned["winner"].to_list() == other
    assert turned["crowd"].to_list() == [other] * 7
    assert turned["prompt"].to_list() == ["chosen"] * 7
    assert turned["note"].to_list() == ["the chosen one"] * 7
    assert flip_pairs(frame, pl.lit(value=False)).drop("flipped").equals(frame)


@pytest.mark.parametrize(
    "kind", [pl.Categorical, pl.Enum(["chosen", "tie"]), pl.Enum(["tie", "chosen", "rejected"])]
)
def test_words_that_name_an_answer_are_turned_in_columns_of_categories(kind: Any) -> None:
    frame = pl.DataFrame({"best": pl.Series(["chosen", "tie", None, "chosen"], dtype=kind)})
    turned = flip_pairs(frame, pl.int_range(pl.len()) < 3)
    assert turned["best"].cast(pl.String).to_list() == ["rejected", "tie", None, "chosen"]


@pytest.mark.parametrize(("one", "other"), [("scoreChosen", "scoreRejected"), ("CHOSEN_LLM", "REJECTED_LLM")])
def test_namesakes_change_places_however_they_are_spelt(one: str, other: str) -> None:
    turned = flip_pairs(pl.DataFrame({one: [1], other: [2]}), pl.lit(value=True))
    assert turned.select(one, other).rows() == [(2, 1)]


def test_columns_of_the_user_that_hold_words_or_grades_stay() -> None:
    frame = pl.DataFrame({"difficulty": [3], "margin": ["slightly better"], "agreement": ["high"]})
    assert flip_pairs(frame, pl.lit(value=True)).drop("flipped").rows() == frame.rows()


def test_a_text_and_messages_cannot_change_places() -> None:
    frame = pl.DataFrame({"chosen": [[{"role": "assistant", "content": "a"}]], "rejected": ["b"]})
    with pytest.raises(InputError, match=r"'chosen' .* and 'rejected' .* cannot change places"):
        flip_pairs(frame, pl.lit(value=True))


def test_a_label_that_is_probably_wrong_never_weighs(pairs: pl.DataFrame) -> None:
    kept = apply_bands(pairs, {"likely_flipped": "weight"}).frame
    assert kept["weight"].to_list() == [0.0, 1.0, 1.0, 1.0]
    flipped = apply_bands(pairs, {"likely_flipped": ["flip", "weight"]}).frame
    assert flipped["weight"].to_list() == pytest.approx([0.8, 1.0, 1.0, 1.0])


def test_what_an_earlier_view_has_written_stays_where_nobody_asks_for_another(pairs: pl.DataFrame) -> None:
    once = apply_bands(pairs, {"likely_flipped": "flip", "very_strong": ["margin", "soft_label"]}).frame
    again = apply_bands(once.with_columns(strength_band=pairs["strength_band"]), {"likely_flipped": "flip"}).frame
    assert again["chosen"].to_list() == pairs["chosen"].to_list()
    assert not again["flipped"].any()
    assert again["margin"].to_list() == once["margin"].to_list()
    assert again["label_smoothing"].to_list() == once["label_smoothing"].to_list()


def test_what_rests_on_all_pairs_is_null_once_one_is_turned_round() -> None:
    structure = {"in_cycle": [True, True, False], "cycle": [0, 0, None], "judged_both_ways": [True, True, False]}
    frame = pl.DataFrame(
        {"pair_id": ["x", "y", "z"], "chosen": ["a", "b", "a"], "rejected": ["b", "a", "c"], **structure}
    )
    turned = flip_pairs(frame, pl.col("pair_id") == "x")
    assert turned.select(*structure).unique().rows() == [(None, None, None)]
    assert turned["pair_id"].to_list() == ["x", "y", "z"]
    assert_frame_equal(flip_pairs(frame, pl.lit(value=False)).drop("flipped"), frame)
    own = frame.select("chosen", "rejected", cycle=pl.lit("first"))
    assert flip_pairs(own, pl.lit(value=True))["cycle"].to_list() == ["first"] * 3


def test_margins_of_every_kind_of_number_change_their_sign() -> None:
    for kind in (pl.UInt8, pl.Int32, pl.Decimal(10, 2), pl.Float32):
        turned = flip_pairs(pl.DataFrame({"margin": pl.Series([2, None], dtype=kind)}), pl.lit(value=True))
        assert [None if value is None else float(value) for value in turned["margin"]] == [-2.0, None], kind


@pytest.mark.parametrize("margin", [["1.5", "n/a"], ['"1.5"', "2"], [[1.5], [2.0]]])
def test_numbers_that_are_no_numbers_here_end_a_flip(margin: list[object]) -> None:
    with pytest.raises(InputError, match="column 'margin' cannot change its sign in a flip"):
        flip_pairs(pl.DataFrame({"margin": margin}), pl.lit(value=True))


def test_objects_of_which_one_side_has_more_keys_change_places(pairs: pl.DataFrame) -> None:
    more = pairs.head(2).with_columns(
        chosen_by=pl.struct(model=pl.lit("m"), seed=1),
        rejected_by=pl.struct(tokens=pl.lit([2.5]), model=pl.lit("n")),
    )
    turned = flip_pairs(more, pl.col("strength_mean") < 0)
    both = {"model": None, "seed": None, "tokens": None}
    assert [both | row for row in turned["chosen_by"]] == [
        both | {"model": "n", "tokens": [2.5]}, both | {"model": "m", "seed": 1}
    ]  # fmt: skip
    twice = reward_augmented(more, chosen_score="chosen_score", rejected_score="rejected_score")
    assert [row["model"] for row in twice["rejected_by"]] == ["n", "m", "n"]


def test_a_pair_without_a_band_is_kept(pairs: pl.DataFrame) -> None:
    some = pairs.with_columns(strength_band=pl.Series([None, "ambiguous", None, "normal"], dtype=pl.String))
    view = apply_bands(some, {"ambiguous": "drop", "normal": ["flip", "weight"]})
    assert view.frame["chosen"].to_list() == ["a", "c", "D"]
    assert (view.rejects["row"].to_list(), view.frame["weight"].to_list()[:2]) == ([1], [1.0, 1.0])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([{"a": 1}, None], [{"a": 2.5, "b": ["x"]}, None]),
        ([[{"a": 1}], []], [[{"a": 2.5, "b": None}, {"a": None, "b": "y"}], None]),
        ([{"k": {"a": 1}}, {"k": None}], [{"k": {"b": "x"}}, {"k": {"b": None}}]),
        ([[], None], [[{"a": [1]}], [None]]),
        ([[1], [2, None]], [[0.5], []]),
        ([None, None], [{"a": 1}, None]),
    ],
)
def test_values_of_two_forms_change_places_as_they_are(one: list[Any], other: list[Any]) -> None:
    def plain(value: Any) -> Any:
        if isinstance(value, list):
            return [plain(item) for item in value]
        return {k: plain(v) for k, v in value.items() if v is not None} if isinstance(value, dict) else value

    for first, second in ((one, other), (other, one)):
        frame = pl.DataFrame({"n": [0, 1], "chosen_x": first, "rejected_x": second})
        for turned, (chosen, rejected) in (
            (pl.lit(value=True), (second, first)),
            (pl.lit(value=False), (first, second)),
            (pl.col("n") == 0, ([second[0], first[1]], [first[0], second[1]])),
        ):
            found = flip_pairs(frame, turned)
            assert plain(found["chosen_x"].to_list()) == plain(chosen)
            assert plain(found["rejected_x"].to_list()) == plain(rejected)


def test_the_less_the_models_agree_the_less_a_pair_weighs() -> None:
    margins = [[0.4, -0.2, 0.1, 0.3, -0.6], [1.0, 1.0, 1.0, 1.0, 1.0], [-2.0, -1.0, -2.0, -1.0, -2.0]]
    frame = pl.DataFrame({"chosen_rewards": margins, "rejected_rewards": [[0.0] * 5] * 3})
    scored = preference_strength(frame, scaling="none").frame
    weights = {}
    for asked in ("weight", "uncertainty_weight", "weight uncertainty_weight"):
        actions = {band: asked.split() for band in BANDS}
        weights[asked] = apply_bands(scored, actions).frame["weight"].to_list()
    # Ctrl-U: e to the minus variance, by the standard library.
    expected = [math.exp(-statistics.pvariance(row)) for row in margins]
    assert weights["uncertainty_weight"] == pytest.approx(expected)
    both = [a * b for a, b in zip(weights["weight"], expected, strict=True)]
    assert weights["weight uncertainty_weight"] == pytest.approx(both)
    assert weights["weight uncertainty_weight"][2] == 0.0  # all models are against the label

    decided = scored.with_columns(
        pair_id=pl.int_range(pl.len()).cast(pl.String), in_cycle=False,
        label_noise_probability=pl.lit(None, dtype=pl.Float64), suggested_action=pl.lit(None, dtype=pl.String),
    )  # fmt: skip
    labels = decide_labels(decided, bands=actions, suggestions={}).frame
    assert labels["weight"].to_list() == pytest.approx(both)
    assert set(labels["action"]) == {"weight+uncertainty_weight"}

"""RE-PO, per-annotator losses and confident-learning counts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.errors import InputError
from curation.scores.noise_models import (
    Agreement,
    annotator_losses,
    confident_counts,
    fit_noise,
    label_agreement,
    repo_posterior,
)


def test_posterior_of_the_worked_example() -> None:
    np.testing.assert_allclose(repo_posterior([0.2, 0.05], 0.9), [0.6923, 0.3214], atol=5e-5)


@given(st.floats(0, 1), st.floats(0, 1))
def test_posterior_is_bayes_rule(p: float, eta: float) -> None:
    right, wrong = p * eta, (1 - p) * (1 - eta)
    expected = right / (right + wrong) if right + wrong > 0 else 0.5
    assert repo_posterior(p, eta) == pytest.approx(expected)


def test_an_annotator_is_judged_by_the_own_losses() -> None:
    losses = [1.0] * 9 + [2.0] + [5.0] * 9 + [5.1]
    frame = annotator_losses(losses, ["easy"] * 10 + ["hard"] * 10)
    assert frame["own"].all()
    assert frame["loss_rank"][9] == frame["loss_rank"][19] == 0.95
    assert frame["loss_rank"][10] == pytest.approx(0.45)


def test_missing_and_rare_annotators_are_judged_by_all() -> None:
    frame = annotator_losses([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], ["a"] * 4 + [None, "b"], min_rows=4)
    assert frame["own"].to_list() == [True] * 4 + [False] * 2
    assert frame["loss_rank"][5] == pytest.approx(11 / 12)


def test_equal_losses_have_no_excess() -> None:
    assert annotator_losses([1.0] * 6, ["a"] * 6)["excess"].to_list() == [0.0] * 6


def test_confident_counts_of_a_clear_case() -> None:
    probability = np.array([0.9] * 8 + [0.1] * 2 + [0.1] * 9 + [0.9])
    labels = np.array([True] * 10 + [False] * 10)
    counts = confident_counts(probability, labels)
    assert counts.joint.tolist() == [[9, 1], [2, 8]]
    assert counts.noise_rate == pytest.approx(3 / 20)


def test_confident_counts_need_both_classes() -> None:
    with pytest.raises(InputError, match="one class"):
        confident_counts([0.5, 0.6], [True, True])


def test_shrunk_margins_get_their_scale_and_share_back() -> None:
    random = np.random.default_rng(0)
    odds = random.normal(0, 4, 20_000)
    better = random.random(20_000) < 1 / (1 + np.exp(-odds))
    flipped = random.random(20_000) < 0.2
    margins = np.where(better != flipped, odds, -odds) / 5
    scale, eta = fit_noise(margins)
    assert scale == pytest.approx(5, rel=0.25)
    assert eta == pytest.approx(0.8, abs=0.03)


def test_agreement_has_an_interval_over_prompts() -> None:
    random = np.random.default_rng(0)
    margins = np.where(random.random(900) < 0.6, 1.0, -1.0)
    alone = label_agreement(margins, [str(n) for n in range(900)])
    share = float((margins > 0).mean())
    assert alone.share == pytest.approx(share)
    width = 1.96 * (share * (1 - share) / 900) ** 0.5
    assert (alone.low, alone.high) == pytest.approx((share - width, share + width))
    assert not alone.hardly_better_than_a_coin
    # Nine like rows a prompt are one observation, not nine.
    repeated = label_agreement(np.repeat(margins[:100], 9), [str(n // 9) for n in range(900)])
    hundred = label_agreement(margins[:100], [str(n) for n in range(100)])
    assert tuple(repeated) == pytest.approx(tuple(hundred))


@pytest.mark.parametrize(("right", "wrong"), [(0.8, 0.3), (0.8, 0.1), (0.6, 0.45), (0.6, 0.35)])
def test_contradicted_labels_are_mostly_wrong_from_where_it_says(right: float, wrong: float) -> None:
    agree = (1 - wrong) * right + wrong * (1 - right)
    found = Agreement(agree, agree, agree)
    assert (wrong * right > (1 - wrong) * (1 - right)) is (wrong > found.worth_from)


def test_margins_that_say_nothing_agree_as_a_coin_does() -> None:
    assert label_agreement(np.zeros(50), [str(n) for n in range(50)]).hardly_better_than_a_coin
    assert label_agreement(np.zeros(0), []).hardly_better_than_a_coin
    assert not label_agreement(np.ones(50), [str(n) for n in range(50)]).hardly_better_than_a_coin

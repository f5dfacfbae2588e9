"""Voters on pairs."""

from __future__ import annotations

import warnings

import numpy as np
import polars as pl
import pytest

from curation.errors import InputError
from curation.scores.noisy_bradley_terry import noisy_bradley_terry
from curation.scores.voters import METHODS, Method, aggregate_votes, reward_votes


def crowd(pairs: int = 200, seed: int = 0) -> tuple[pl.DataFrame, np.ndarray]:
    """Three good voters of accuracy 0.9 and four of 0.55, on random truths."""
    random = np.random.default_rng(seed)
    truth = random.random(pairs) < 0.5
    rows = []
    for voter, accuracy in enumerate([0.9] * 3 + [0.55] * 4):
        for pair in range(pairs):
            right = random.random() < accuracy
            rows.append((f"p{pair}", f"v{voter}", int(truth[pair] == right)))
    return pl.DataFrame(rows, schema=["pair", "voter", "vote"], orient="row"), truth


@pytest.mark.parametrize("method", METHODS)
def test_every_method_finds_most_truths(method: Method) -> None:
    votes, truth = crowd()
    result = aggregate_votes(votes, method=method)
    found = result.pairs["probability"].to_numpy() > 0.5
    assert result.pairs["pair"].to_list() == [f"p{n}" for n in range(200)]
    assert (found == truth).mean() > 0.85


@pytest.mark.parametrize("method", ["dawid_skene", "mace"])
def test_weighing_voters_beats_the_majority(method: Method) -> None:
    votes, truth = crowd(400, seed=1)
    share = {}
    for name in ("majority", method):
        found = aggregate_votes(votes, method=name).pairs["probability"].to_numpy() > 0.5  # type: ignore[arg-type]
        share[name] = (found == truth).mean()
    assert share[method] > share["majority"]


def test_glad_says_what_crowd_kits_says() -> None:
    import pandas as pd
    from crowdkit.aggregation import GLAD

    votes, _ = crowd(40, seed=2)
    some = votes.sample(fraction=0.5, seed=0)
    found = aggregate_votes(some, method="glad", rounds=3).pairs
    frame = pd.DataFrame(
        {"task": some["pair"].to_list(), "worker": some["voter"].to_list(), "label": some["vote"].to_list()}
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"The \w+ keyword")  # crowd-kit 1.4 on pandas 3
        theirs = GLAD(n_iter=3).fit_predict_proba(frame)[1]
    assert found["probability"].to_list() == pytest.approx([theirs[name] for name in found["pair"]], abs=1e-6)


def test_noisy_bradley_terry_finds_what_is_likeliest_by_crowd_kits_own_likelihood() -> None:
    # Its gradient is another function's, so that a search without one takes the place of its fit.
    from crowdkit.aggregation import NoisyBradleyTerry
    from scipy.optimize import minimize

    random = np.random.default_rng(4)
    count, people, pull = 3, 3, 0.1
    truth = np.array([0.0, 2.0, 4.0])
    pairs = np.array([(i, j) for i in range(count) for j in range(i)] * 60)
    voters = random.integers(people, size=len(pairs))
    looked = random.random(len(pairs)) < np.array([0.9, 0.7, 0.1])[voters]
    says = np.where(looked, truth[pairs[:, 0]] - truth[pairs[:, 1]], 0.0)
    first_wins = random.random(len(pairs)) < 1 / (1 + np.exp(-says))
    better = np.where(first_wins, pairs[:, 0], pairs[:, 1])
    worse = np.where(first_wins, pairs[:, 1], pairs[:, 0])
    theirs = np.column_stack([pairs + 1, better + 1])

    def loss(x: np.ndarray) -> float:
        # Scores against one of 0, no lean to a side, skills as logits; the pull with the sign of its gradient.
        full = np.concatenate([[0.0], x[:count], np.zeros(people), x[count:]])
        votes = NoisyBradleyTerry._compute_log_likelihood(full, theirs, voters, count, people, 0.0)
        return float(votes + pull * sum(np.log1p(np.exp(s)) + np.log1p(np.exp(-s)) for s in x[:count]))

    starts = random.normal(size=(6, count + people))
    slow = min((minimize(loss, start, method="BFGS") for start in starts), key=lambda result: float(result.fun))
    found = noisy_bradley_terry(better, worse, voters, pull=pull)
    skills = np.log(found.skills) - np.log1p(-found.skills)
    assert loss(np.concatenate([found.scores, skills])) == pytest.approx(slow.fun, abs=1e-5)
    assert found.scores == pytest.approx(slow.x[:count], abs=1e-2)
    assert found.skills[2] < min(found.skills[:2])


def test_an_answer_that_stands_in_several_pairs_has_one_score() -> None:
    rows = [(1, "x", 1, "a", "b"), (1, "y", 1, "a", "b"), (2, "x", 1, "b", "c"), (2, "y", 1, "b", "c")]
    rows += [(3, "x", 1, "a", "c"), (3, "y", 0, "a", "c"), (4, "x", 0, "c", "a")]
    votes = pl.DataFrame(rows, schema=["pair", "voter", "vote", "first", "second"], orient="row")
    found = dict(
        aggregate_votes(votes, method="noisy_bradley_terry").pairs.select("pair", "probability").iter_rows()
    )
    # a over b over c, and each of the votes on a and c for itself says less: two to one.
    assert found[3] > max(found[1], found[2]) > 0.5
    assert found[3] == pytest.approx(1 - found[4])


def test_exchanged_answers_exchange_what_noisy_bradley_terry_says() -> None:
    votes, _ = crowd(30, seed=5)
    found = aggregate_votes(votes, method="noisy_bradley_terry").pairs["probability"].to_numpy()
    turned = aggregate_votes(votes.with_columns(vote=1 - pl.col("vote")), method="noisy_bradley_terry").pairs
    assert turned["probability"].to_numpy() == pytest.approx(1 - found, abs=1e-3)


def test_reliability_tells_good_voters_from_bad_ones() -> None:
    votes, _ = crowd()
    voters = aggregate_votes(votes).voters
    reliability = dict(voters.select("voter", "reliability").iter_rows())
    assert min(reliability[f"v{n}"] for n in range(3)) > max(reliability[f"v{n}"] for n in range(3, 7))


def test_majority_is_the_share_of_votes() -> None:
    votes = pl.DataFrame({"pair": [1, 1, 1], "voter": ["a", "b", "c"], "vote": [1, 1, 0]})
    assert aggregate_votes(votes, method="majority").pairs["probability"].to_list() == pytest.approx([2 / 3])


def test_missing_voters_and_votes_are_left_out() -> None:
    votes = pl.DataFrame({"pair": [1, 1, 2], "voter": ["a", None, "b"], "vote": [1, 0, None]})
    result = aggregate_votes(votes, method="majority")
    assert result.pairs.rows() == [(1, 1.0, 1)]


@pytest.mark.parametrize("method", [name for name in METHODS if name != "noisy_bradley_terry"])
def test_a_single_class_is_certain(method: Method) -> None:
    votes = pl.DataFrame({"pair": [1, 1, 2], "voter": ["a", "b", "a"], "vote": [1, 1, 1]})
    assert aggregate_votes(votes, method=method).pairs["probability"].to_list() == [1.0, 1.0]


def test_no_votes_are_an_input_error() -> None:
    votes = pl.DataFrame({"pair": [1], "voter": ["a"], "vote": [None]})
    with pytest.raises(InputError, match="no vote is left"):
        aggregate_votes(votes)


def test_a_vote_without_its_answers_is_an_input_error_where_they_count() -> None:
    votes = pl.DataFrame(
        {"pair": [1, 2], "voter": ["a", "a"], "vote": [1, 0], "first": ["x", None], "second": ["y", "z"]}
    )
    with pytest.raises(InputError, match="lacks its first or its second answer"):
        aggregate_votes(votes, method="noisy_bradley_terry")
    assert aggregate_votes(votes, method="majority").pairs.rows() == [(1, 1.0, 1), (2, 0.0, 1)]


def test_a_vote_of_two_is_an_input_error() -> None:
    votes = pl.DataFrame({"pair": [1], "voter": ["a"], "vote": [2]})
    with pytest.raises(InputError, match="a vote is 2"):
        aggregate_votes(votes)


def test_reward_models_vote_by_the_sign_of_their_margin() -> None:
    votes = reward_votes(np.array([[1.0, -2.0], [0.0, np.nan]]), ["a", "b"])
    assert votes.rows() == [(0, "a", 1), (0, "b", 0)]

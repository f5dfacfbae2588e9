"""Best of n and statistical rejection sampling, against METHODS.md's numbers and a loop over the rows."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.candidates.draws import uniform_draws
from curation.candidates.selection import acceptance_probabilities, best_of_n, rejection_sample
from curation.errors import InputError


def frame(rows: list[tuple[str, str, float | None]]) -> pl.DataFrame:
    schema = {"prompt_id": pl.String, "candidate_id": pl.String, "score": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row")


def test_acceptance_probabilities_are_those_of_the_paper() -> None:
    found = acceptance_probabilities(np.array([2.0, 1.5, 0.5]), beta=0.5)
    assert found == pytest.approx([1.0, 0.3679, 0.0498], abs=5e-5)


def test_acceptance_at_beta_0_is_the_limit() -> None:
    assert acceptance_probabilities(np.array([2.0, 1.5, 2.0]), beta=0).tolist() == [1.0, 0.0, 1.0]


def test_a_draw_depends_on_no_other_row() -> None:
    hashed, plain = "0" * 31 + "a", "the first"
    alone = [uniform_draws(pl.Series([name]), seed=1)[0] for name in (hashed, plain)]
    assert uniform_draws(pl.Series([hashed, plain]), seed=1).tolist() == alone


def by_loop(rows: list[tuple[str, str, float]], *, n: int, beta: float, seed: int) -> list[int]:
    """RSO as it is told: passes over the rows of one prompt, one row at a time."""
    copies: dict[tuple[str, str, float], int] = {}
    names = []
    for prompt, candidate, score in rows:
        copy = copies.get((prompt, candidate, score), 0)
        copies[prompt, candidate, score] = copy + 1
        names.append(f"{prompt} {candidate} {copy}")
    accepted: list[int] = []
    left = list(range(len(rows)))
    number = 0
    while left and len(accepted) < n:
        highest = max(rows[i][2] for i in left)
        place = {i: uniform_draws(pl.Series([names[i]]), seed=seed, salt=f"order {number}")[0] for i in left}
        for i in sorted(left, key=place.__getitem__):
            if len(accepted) == n:
                break
            chance = float(rows[i][2] == highest) if beta == 0 else math.exp((rows[i][2] - highest) / beta)
            if uniform_draws(pl.Series([names[i]]), seed=seed, salt=f"accept {number}")[0] < chance:
                accepted.append(i)
        left = [i for i in left if i not in accepted]
        number += 1
    return accepted


scores = st.floats(-5, 5).map(lambda x: round(x, 2))


@given(
    st.lists(st.tuples(st.sampled_from("pq"), st.sampled_from("abcdef"), scores), max_size=14),
    st.integers(1, 6), st.sampled_from([0.0, 0.05, 0.5, 5.0]), st.integers(0, 3),
)  # fmt: skip
def test_rejection_sampling_equals_the_loop(
    rows: list[tuple[str, str, float]], n: int, beta: float, seed: int
) -> None:
    found = rejection_sample(frame(rows).with_row_index("at"), n=n, beta=beta, seed=seed)
    wanted: list[int] = []
    for prompt in "pq":
        own = [i for i, row in enumerate(rows) if row[0] == prompt]
        wanted += [own[i] for i in by_loop([rows[i] for i in own], n=n, beta=beta, seed=seed)]
    assert found["at"].to_list() == sorted(wanted)


@given(st.lists(scores, min_size=1, max_size=12), st.integers(1, 5), st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_matter(values: list[float], n: int, shuffle: object) -> None:
    rows = [("p", f"c{i}", v) for i, v in enumerate(values)]
    mixed = list(rows)
    shuffle.shuffle(mixed)  # type: ignore[attr-defined]
    kept = [
        sorted(rejection_sample(frame(r), n=n, beta=0.5, seed=7)["candidate_id"].to_list()) for r in (rows, mixed)
    ]
    assert kept[0] == kept[1]


def test_equal_texts_are_rows_of_their_own() -> None:
    rows = frame([("p", "same", 1.0), ("p", "same", 1.0), ("p", "other", 1.0)])
    assert rejection_sample(rows, n=3, beta=0.5, seed=0)["candidate_id"].to_list() == ["same", "same", "other"]


def test_a_weight_stands_for_copies() -> None:
    rows = frame([("p", "a", 1.0), ("p", "b", -9.0)]).with_columns(occurrences=pl.Series([3, 1]))
    found = rejection_sample(rows, n=3, beta=0.1, seed=0, weight="occurrences")
    assert found.select("candidate_id", "accepted").rows() == [("a", 3)]


def test_more_wanted_than_there_are_keeps_all() -> None:
    rows = frame([("p", "a", 1.0), ("p", "b", -50.0), ("q", "c", 0.0)])
    assert rejection_sample(rows, n=8, beta=0.5, seed=0).height == 3


def test_beta_0_takes_the_best() -> None:
    rows = frame([("p", c, s) for c, s in zip("abcd", (1.0, 4.0, 3.0, 2.0), strict=True)])
    assert rejection_sample(rows, n=2, beta=0, seed=0)["candidate_id"].to_list() == ["b", "c"]


def test_a_row_without_a_finite_score_is_never_accepted() -> None:
    rows = frame([("p", "a", None), ("p", "b", math.nan), ("p", "c", math.inf), ("p", "d", -1.0)])
    assert rejection_sample(rows, n=4, beta=0.5, seed=0)["candidate_id"].to_list() == ["d"]
    assert best_of_n(rows)["candidate_id"].to_list() == ["d"]


def test_acceptance_frequencies_follow_the_rewards() -> None:
    # With n = 1 and one pass: the best is always accepted, so the others win only by coming first.
    rows = frame([(f"p{i}", f"c{j}", r) for i in range(4000) for j, r in enumerate((2.0, 1.5, 0.5))])
    kept = rejection_sample(rows, n=1, beta=0.5, seed=3)
    share = kept["candidate_id"].value_counts().sort("candidate_id")["count"].to_numpy() / 4000
    rest = [0.3679, 0.0498]
    # A row wins when it is accepted and comes first among the accepted ones.
    second = rest[0] * ((1 - rest[1]) / 2 + rest[1] / 3)
    third = rest[1] * ((1 - rest[0]) / 2 + rest[0] / 3)
    assert share == pytest.approx([1 - second - third, second, third], abs=0.02)


@pytest.mark.parametrize(("n", "beta"), [(0, 0.5), (1, -0.1), (1, math.nan), (1, math.inf)])
def test_arguments_out_of_range_are_refused(n: int, beta: float) -> None:
    with pytest.raises(InputError, match="rejection sampling"):
        rejection_sample(frame([("p", "a", 1.0)]), n=n, beta=beta, seed=0)


def test_no_rows_give_none() -> None:
    assert rejection_sample(frame([]), n=2, beta=0.5, seed=0).is_empty()
    assert best_of_n(frame([])).is_empty()


@given(
    st.lists(st.tuples(st.sampled_from("pq"), st.sampled_from("abcdef"), scores), max_size=14), st.integers(1, 4)
)
def test_best_of_n_equals_sorting(rows: list[tuple[str, str, float]], keep: int) -> None:
    found = best_of_n(frame(rows).with_row_index("at"), keep=keep)["at"].to_list()
    wanted = [
        i
        for prompt in "pq"
        for i in sorted(
            (i for i, row in enumerate(rows) if row[0] == prompt), key=lambda i: (-rows[i][2], rows[i][1], i)
        )[:keep]
    ]
    assert found == sorted(wanted)

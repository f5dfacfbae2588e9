"""Budgets by difficulty and samples that must differ, against METHODS.md's number and obvious loops."""

from __future__ import annotations

from collections import Counter

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.candidates.budgets import difficulty_targets, sample_until
from curation.candidates.diversity import near_identical
from curation.errors import InputError

PROMPTS = pl.Series(["easy", "hard", "never"])


class Model:
    """A deterministic answerer that remembers what it was newly asked, as the ledger does."""

    def __init__(self, right: dict[str, list[bool]], lost: set[tuple[str, int]] = frozenset()) -> None:  # type: ignore[assignment]
        self.right, self.lost = right, lost
        self.answers: dict[tuple[str, int], str] = {}
        self.paid: Counter[tuple[str, int]] = Counter()

    def ask(self, wanted: pl.DataFrame) -> pl.DataFrame:
        rows = []
        for prompt, index in wanted.iter_rows():
            if (prompt, index) not in self.answers:
                self.paid[prompt, index] += 1
                self.answers[prompt, index] = f"{prompt} answer number {index}: {self.right[prompt][index]}"
            if (prompt, index) not in self.lost:
                rows.append((prompt, index, self.answers[prompt, index]))
        schema = {"prompt_id": pl.String, "sample_index": pl.Int64, "response": pl.String}
        return pl.DataFrame(rows, schema=schema, orient="row")


def says_true(answers: pl.DataFrame) -> pl.Series:
    return answers["response"].str.ends_with("True")


def model(**options: object) -> Model:
    return Model(
        {"easy": [True] * 20, "hard": [i % 4 == 3 for i in range(20)], "never": [False] * 20}, **options  # type: ignore[arg-type]
    )  # fmt: skip


def test_targets_are_in_proportion_to_the_fail_rate() -> None:
    assert difficulty_targets(np.array([0.75, 1.0, 0.0]), hardest=192).tolist() == [144, 192, 0]


def test_targets_round_up_but_not_for_the_sake_of_binary_fractions() -> None:
    assert difficulty_targets(np.array([0.1, 0.3, 0.2]), hardest=3).tolist() == [1, 3, 2]
    assert difficulty_targets(np.array([0.1, 0.4]), hardest=3).tolist() == [1, 3]


def test_targets_of_prompts_that_never_fail_are_none() -> None:
    assert difficulty_targets(np.array([0.0, 0.0]), hardest=8).tolist() == [0, 0]


def test_uniform_stops_at_k_successes_and_at_the_bound() -> None:
    m = model()
    done = sample_until(PROMPTS, m.ask, says_true, successes=2, max_samples=12)
    asked = done.samples.group_by("prompt_id").len().sort("prompt_id")["len"].to_list()
    right = done.samples.group_by("prompt_id").agg(pl.col("success").sum()).sort("prompt_id")["success"].to_list()
    assert (asked, right) == ([2, 8, 12], [2, 2, 0])
    assert done.short.rows() == [("never", 0, 2, 12)]


def test_a_rerun_over_the_same_answers_asks_for_nothing() -> None:
    m = model()
    first = sample_until(PROMPTS, m.ask, says_true, successes=3, max_samples=15)
    before = dict(m.paid)
    again = sample_until(PROMPTS, m.ask, says_true, successes=3, max_samples=15)
    assert again.samples.equals(first.samples)
    assert dict(m.paid) == before
    assert set(m.paid.values()) == {1}


def test_proportional_budgets_follow_the_pilot() -> None:
    m = model()
    done = sample_until(PROMPTS, m.ask, says_true, pilot=4, hardest=4, max_samples=16)
    asked = done.samples.group_by("prompt_id").len().sort("prompt_id")["len"].to_list()
    # Fail rates 0, .75, 1: targets 0, 3, 4. The second meets its target at its 12th sample.
    assert asked == [4, 12, 16]
    assert done.short["prompt_id"].to_list() == ["never"]


def test_a_failed_request_uses_up_its_index() -> None:
    m = model(lost={("easy", 0)})
    done = sample_until(PROMPTS.head(1), m.ask, says_true, successes=2, max_samples=5)
    assert done.samples.select("sample_index", "success").rows() == [(0, None), (1, True), (2, True)]


def test_rounds_are_bounded() -> None:
    done = sample_until(PROMPTS, model().ask, says_true, successes=1, max_samples=20, max_rounds=1)
    assert done.rounds == 1
    assert done.samples.height == 1 + 2 + 2


@given(st.lists(st.lists(st.booleans(), min_size=12, max_size=12), min_size=1, max_size=5), st.integers(1, 4))
def test_uniform_asks_no_more_than_one_at_a_time_would(right: list[list[bool]], k: int) -> None:
    names = [f"p{i}" for i in range(len(right))]
    m = Model(dict(zip(names, right, strict=True)))
    done = sample_until(pl.Series(names, dtype=pl.String), m.ask, says_true, successes=k, max_samples=12)
    for name, row in zip(names, right, strict=True):
        one_by_one = next((n for n in range(k, 13) if sum(row[:n]) >= k), 12)
        assert done.samples.filter(prompt_id=name).height == one_by_one


@pytest.mark.parametrize(
    "options", [{}, {"successes": 2, "pilot": 2, "hardest": 2}, {"pilot": 2}, {"hardest": 2}, {"successes": 0}]
)
def test_a_budget_that_is_neither_is_refused(options: dict[str, int]) -> None:
    with pytest.raises(InputError, match="budget"):
        sample_until(PROMPTS, model().ask, says_true, max_samples=4, **options)  # type: ignore[arg-type]


def test_no_prompts_ask_nothing() -> None:
    done = sample_until(PROMPTS.clear(), model().ask, says_true, successes=2, max_samples=4)
    assert done.samples.is_empty()


def test_repeats_are_drawn_again_with_new_indices() -> None:
    texts = [
        "The sky is blue today.",
        "the sky is blue today",
        "The sky is blue, today!",
        "Grass is green in spring.",
    ]

    def ask(wanted: pl.DataFrame) -> pl.DataFrame:
        return wanted.with_columns(response=pl.col("sample_index").replace_strict(dict(enumerate(texts))))

    def good(answers: pl.DataFrame) -> pl.Series:
        return pl.Series([True] * answers.height)

    done = sample_until(pl.Series(["p"]), ask, good, successes=2, max_samples=4, near_threshold=0.9)
    assert done.samples.select("sample_index", "repeats").rows() == [(0, None), (1, 0), (2, 0), (3, None)]


def jaccard(a: str, b: str, n: int = 3) -> float:
    def grams(text: str) -> set[tuple[str, ...]]:
        words = text.lower().split()
        return {tuple(words[i : i + n]) for i in range(max(len(words) - n + 1, 1))}

    return len(grams(a) & grams(b)) / len(grams(a) | grams(b))


words = st.lists(st.sampled_from(["red", "green", "blue", "été", "北"]), min_size=1, max_size=7).map(" ".join)


@given(st.lists(st.tuples(st.sampled_from("pq"), words), max_size=12), st.sampled_from([0.3, 0.5, 1.0]))
def test_near_identical_equals_the_loop(rows: list[tuple[str, str]], threshold: float) -> None:
    frame = pl.DataFrame(
        [(p, i, t) for i, (p, t) in enumerate(rows)],
        schema={"prompt_id": pl.String, "sample_index": pl.Int64, "response": pl.String},
        orient="row",
    )
    kept: list[int] = []
    wanted: list[int | None] = []
    for i, (prompt, text) in enumerate(rows):
        same = [j for j in kept if rows[j][0] == prompt and jaccard(rows[j][1], text) >= threshold - 1e-9]
        wanted.append(same[0] if same else None)
        if not same:
            kept.append(i)
    assert near_identical(frame, threshold=threshold).to_list() == wanted
    assert near_identical(frame.reverse(), threshold=threshold).reverse().to_list() == wanted


def test_texts_without_words_repeat_only_their_equals() -> None:
    frame = pl.DataFrame({"prompt_id": ["p"] * 3, "sample_index": [0, 1, 2], "response": ["🙂", "🙃", "🙂"]})
    assert near_identical(frame, threshold=0.9).to_list() == [None, None, 0]


def test_answers_that_differ_in_a_sign_are_not_near_identical() -> None:
    texts = ["So x = -3.", "So x = 3.", "so x = 3", "Hence a < b", "Hence a > b"]
    frame = pl.DataFrame({"prompt_id": ["p"] * 5, "sample_index": list(range(5)), "response": texts})
    assert near_identical(frame, threshold=0.9).to_list() == [None, None, 1, None, None]

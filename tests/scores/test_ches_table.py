"""Policy statistics as table rows, and ordered pairs from them."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from curation.models.policy.stats import PolicyStats
from curation.models.protocols import Fault
from curation.scores.ches import pair_scores_from_stats
from curation.scores.entanglement import entanglement
from curation.scores.policy_table import STATS_COLUMNS, explode_pairs, stats_to_row


def random_stats(k: int, seed: int, *, gradients: bool = True) -> PolicyStats:
    draw = np.random.default_rng(seed)
    sums, slopes = draw.normal(size=(k, 6)), draw.normal(size=(k, 6))
    tokens = draw.integers(1, 20, size=k)
    edit = draw.random((k, k))
    return PolicyStats(
        prompt_tokens=5, tokens=tokens, logps=-draw.random(k), gram=sums @ sums.T,
        last_gram=slopes @ slopes.T, edit=(edit + edit.T) / 2,
        grad_gram=slopes @ slopes.T if gradients else None,
        token_logps=[draw.random(n) for n in tokens], answer_ids=[draw.integers(0, 9, n) for n in tokens],
        faults={},
    )  # fmt: skip


def table(rows: list[tuple[str, PolicyStats, list[str]]]) -> pl.DataFrame:
    made = [{"prompt_id": name, **(stats_to_row(stats, ids) or {})} for name, stats, ids in rows]
    return pl.DataFrame(made, schema={"prompt_id": pl.String, **STATS_COLUMNS})


def test_pairs_equal_those_of_the_stats() -> None:
    rows = [(f"p{n}", random_stats(k, n), [f"{n}{i}" for i in range(k)]) for n, k in enumerate((2, 4, 3, 2))]
    found = explode_pairs(table(rows))
    assert found.height == 2 + 12 + 6 + 2
    at = 0
    for name, stats, ids in rows:
        expected = pair_scores_from_stats(stats)
        part = found[at : at + len(expected.ches)]
        at += len(expected.ches)
        assert part["prompt_id"].unique().to_list() == [name]
        assert part["chosen_id"].to_list() == [ids[i] for i in expected.chosen_index]
        assert part["rejected_id"].to_list() == [ids[i] for i in expected.rejected_index]
        for column, values in expected._asdict().items():
            if column in part.columns:
                assert np.allclose(part[column].to_numpy(), values), column
        assert np.allclose(part["last_hidden"].to_numpy(), expected.last_hidden)


def test_entanglement_is_among_the_columns_where_gradients_are() -> None:
    stats = random_stats(3, 0)
    assert stats.grad_gram is not None
    found = explode_pairs(table([("p", stats, ["a", "b", "c"])])).row(0, named=True)
    moves = entanglement(stats.grad_gram[0, 0], stats.grad_gram[1, 1], stats.grad_gram[0, 1])
    assert found["chosen_change"] == pytest.approx(float(moves.chosen_change))
    assert found["both_fall"] == bool(moves.both_fall)


def test_no_gradients_no_entanglement_columns() -> None:
    found = explode_pairs(table([("p", random_stats(2, 0, gradients=False), ["a", "b"])]))
    assert "both_fall" not in found.columns


def test_candidates_are_sorted_by_identifier() -> None:
    stats = random_stats(3, 0)
    row = stats_to_row(stats, ["c", "a", "b"])
    assert row is not None
    assert row["candidate_ids"] == ["a", "b", "c"]
    assert row["tokens"] == stats.tokens[[1, 2, 0]].tolist()
    assert row["gram"][1] == stats.gram[1, 2]


def test_a_candidate_with_a_fault_is_left_out() -> None:
    stats = random_stats(3, 0)
    broken = stats._replace(tokens=stats.tokens * np.array([1, 0, 1]), faults={1: Fault("empty_response", "", "")})
    row = stats_to_row(broken, ["a", "b", "c"])
    assert row is not None
    assert row["candidate_ids"] == ["a", "c"]
    assert len(row["gram"]) == 4


def test_no_candidate_no_row() -> None:
    stats = random_stats(1, 0)
    assert stats_to_row(stats._replace(tokens=np.zeros(1, dtype=np.int64)), ["a"]) is None


def test_single_candidates_give_no_pairs() -> None:
    found = explode_pairs(table([("p", random_stats(1, 0), ["a"])]))
    assert found.height == 0
    assert "ln_ches" in found.columns


def test_only_the_needed_columns_are_required() -> None:
    frame = table([("p", random_stats(2, 0), ["a", "b"])])
    found = explode_pairs(frame.select("prompt_id", "candidate_ids", "tokens", "logps", "gram"))
    assert found.columns[-1] == "difficulty"

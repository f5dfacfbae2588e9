"""Pairs of two refusals are limited to a share, and those with the lowest CHES stay."""

from __future__ import annotations

import polars as pl
import pytest

from curation.pairs.refusing import limit_refusal_pairs

FULL = "full_refusal"
PAIRS = pl.DataFrame(
    {
        "pair_id": [f"{n:032x}" for n in range(8)],
        "ln_ches": [0.1, 0.9, None, 0.2, 0.0, 0.5, 0.3, 0.7],
        "chosen_refusal_class": [FULL] * 4 + ["compliance", "full_refusal", "compliance", None],
        "rejected_refusal_class": [FULL, "partial_refusal", FULL, FULL, FULL, "compliance", "compliance", FULL],
    }
)


@pytest.mark.parametrize(
    ("share", "kept"),
    [(1.0, [0, 1, 2, 3, 4, 5, 6, 7]), (0.4, [0, 3, 4, 5, 6, 7]), (0.2, [0, 4, 5, 6, 7]), (0.0, [4, 5, 6, 7])],
)
def test_the_lowest_ches_stays_up_to_the_share(share: float, kept: list[int]) -> None:
    found = limit_refusal_pairs(PAIRS, share=share)
    assert found.kept["pair_id"].to_list() == [PAIRS["pair_id"][n] for n in kept]
    assert found.kept.columns == PAIRS.columns
    assert found.rejects.height == 8 - len(kept)


def test_rejects_name_the_rule_the_score_and_the_limit() -> None:
    (reject,) = limit_refusal_pairs(PAIRS[[0, 4, 5]], share=0.1).rejects.to_dicts()
    assert (reject["row_id"], reject["rule"]) == (PAIRS["pair_id"][0], "refusal_pair_surplus")
    assert (reject["value"], reject["threshold"]) == ("0.1", "0.1")

"""The bundled policy on real pairs, against one forward per answer; no number may depend on the batch."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from curation.models.policy import PolicyStats, open_policy
from curation.models.policy.transformers_backend import TransformersPolicy
from curation.prompts.rows import normalise_pairs
from curation.scores.ches import ln_ches_matrix
from tests.tiny_policies import slow_sums

ROWS = 12


@pytest.fixture(scope="module")
def rows(shared_data: Path) -> pl.DataFrame:
    with gzip.open(shared_data / "hh_harmless" / "test.jsonl.gz", "rt") as file:
        read = [json.loads(next(file)) for _ in range(3 * ROWS)]
    return normalise_pairs(pl.DataFrame(read)).rows.head(ROWS)


@pytest.fixture(scope="module")
def answers(rows: pl.DataFrame) -> list[list[str]]:
    """Four answers a prompt: its own two, and those of the next row."""
    own = [list(two) for two in zip(rows["chosen"], rows["rejected"], strict=True)]
    return [two + own[(i + 1) % ROWS] for i, two in enumerate(own)]


def opened(**options: Any) -> TransformersPolicy:
    policy = open_policy("embedded", **options)
    assert isinstance(policy, TransformersPolicy)
    return policy


@pytest.fixture(scope="module")
def found(rows: pl.DataFrame, answers: list[list[str]]) -> list[PolicyStats]:
    stats = list(opened().stats(rows["prompt"].to_list(), answers))
    return [s for s in stats if isinstance(s, PolicyStats)]


def test_scores_equal_the_definition(
    rows: pl.DataFrame, answers: list[list[str]], found: list[PolicyStats]
) -> None:
    policy = opened()
    policy.model.set_attn_implementation("sdpa")
    rendered = policy.renderer.render(rows["prompt"].to_list(), answers)
    off_diagonal = ~np.eye(4, dtype=bool)
    for row, stats in zip(rendered, found, strict=True):
        sums, _, logps = slow_sums(policy.model, row.prompt.tolist(), [a.tolist() for a in row.answers])
        slow = ln_ches_matrix(sums @ sums.T, [len(a) for a in row.answers])[off_diagonal]
        ours = ln_ches_matrix(stats.gram, stats.tokens)[off_diagonal]
        assert np.allclose(ours, slow, rtol=1e-4, atol=0)
        assert np.allclose(stats.logps, logps, rtol=1e-5)


@pytest.mark.parametrize("batch_tokens", [1, 700])
def test_batch_size_and_order_change_nothing(
    rows: pl.DataFrame, answers: list[list[str]], found: list[PolicyStats], batch_tokens: int
) -> None:
    policy = opened(batch_tokens=batch_tokens)
    backward = list(policy.stats(rows["prompt"].to_list()[::-1], answers[::-1]))
    for a, b in zip(found, backward[::-1], strict=True):
        assert isinstance(b, PolicyStats)
        assert np.allclose(a.gram, b.gram, rtol=1e-5)


def test_nothing_is_read_twice(found: list[PolicyStats], rows: pl.DataFrame, answers: list[list[str]]) -> None:
    policy = opened()
    list(policy.stats(rows["prompt"].to_list(), answers))
    once = sum(s.prompt_tokens + int((s.tokens - 1).sum()) for s in found)
    assert policy.forwarded <= once
    assert policy.method == "packed"


def test_bfloat16_is_near_float32(rows: pl.DataFrame, answers: list[list[str]], found: list[PolicyStats]) -> None:
    half = opened(dtype="bfloat16")
    assert half.model.dtype == torch.bfloat16
    for a, b in zip(found[:4], half.stats(rows["prompt"].to_list()[:4], answers[:4]), strict=True):
        assert isinstance(b, PolicyStats)
        assert np.allclose(a.gram, b.gram, rtol=0.05)

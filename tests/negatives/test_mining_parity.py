"""The same negatives as sentence-transformers' mine_hard_negatives, with equal settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from curation.negatives.mining import mine_hard_negatives
from tests.negatives.vectors import Vectors

MakeVectors = Callable[..., Vectors]


class Lookup:
    """A model that sentence-transformers can mine with: texts are row numbers of ready embeddings."""

    device = "cpu"

    def __init__(self, anchors: Vectors, corpus: Vectors) -> None:
        self._vectors = {"a": anchors, "d": corpus}

    def get_embedding_dimension(self) -> int:
        return int(self._vectors["d"].shape[1])

    def encode_query(self, texts: Sequence[str], **_: Any) -> Vectors:
        return np.stack([self._vectors[text[0]][int(text[1:])] for text in texts])

    encode_document = encode_query

    @staticmethod
    def similarity(left: Any, right: Any) -> Any:
        import torch

        return torch.as_tensor(left) @ torch.as_tensor(right).T

    @staticmethod
    def similarity_pairwise(left: Any, right: Any) -> Any:
        import torch

        return (torch.as_tensor(left) * torch.as_tensor(right)).sum(dim=1)


def theirs(
    anchors: Vectors, corpus: Vectors, positives: list[list[int]], **options: Any
) -> dict[tuple[int, int], list[int]]:
    """(anchor, positive) to the negatives, nearest first."""
    from datasets import Dataset
    from sentence_transformers.util import mine_hard_negatives as reference

    pairs = [(f"a{i}", f"d{j}") for i, own in enumerate(positives) for j in own]
    data = Dataset.from_dict({"anchor": [a for a, _ in pairs], "positive": [d for _, d in pairs]})
    mined = reference(
        data,
        Lookup(anchors, corpus),
        corpus=[f"d{row}" for row in range(len(corpus))],
        output_format="triplet",
        verbose=False,
        **options,
    )
    negatives: dict[tuple[int, int], list[int]] = {}
    for row in mined:
        key = int(row["anchor"][1:]), int(row["positive"][1:])
        negatives.setdefault(key, []).append(int(row["negative"][1:]))
    return negatives


SETTINGS: list[dict[str, Any]] = [
    {"num_negatives": 3},
    {"num_negatives": 5, "range_min": 4},
    {"num_negatives": 3, "absolute_margin": 0.05},
    {"num_negatives": 3, "relative_margin": 0.05},
    {"num_negatives": 2, "relative_margin": 0.05, "max_score": 0.5, "min_score": 0.2, "range_min": 1},
    {"num_negatives": 4, "range_min": 3, "range_max": 25, "absolute_margin": -0.1},
    {"num_negatives": 3, "max_score": 0.3},
    {"num_negatives": 8, "range_max": 500},
]


@pytest.mark.parametrize("use_faiss", [True, False])
@pytest.mark.parametrize("options", SETTINGS)
def test_equal_settings_give_equal_negatives(
    make_vectors: MakeVectors, options: dict[str, Any], use_faiss: bool
) -> None:
    anchors, corpus = make_vectors(60, 24), make_vectors(300, 24, seed=1)
    rng = np.random.default_rng(2)
    positives = [rng.choice(300, size=rng.integers(1, 4), replace=False).tolist() for _ in anchors]
    ours = mine_hard_negatives(
        anchor_embeddings=anchors, corpus_embeddings=corpus, positives=positives, index="flat", **options
    )
    expected = theirs(anchors, corpus, positives, use_faiss=use_faiss, **options)
    got = {
        (i, j): [int(row) for row in ours.negatives[i] if row >= 0]
        for i, own in enumerate(positives)
        for j in own
        if (ours.negatives[i] >= 0).any()
    }
    assert got == expected

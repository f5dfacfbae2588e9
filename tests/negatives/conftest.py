"""Embeddings for the tests of mining."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.negatives.vectors import Vectors, unit


@pytest.fixture
def make_vectors() -> Callable[..., Vectors]:
    """Seeded unit vectors: ``make_vectors(rows, dimension, seed)``."""

    def make(rows: int, dimension: int = 16, seed: int = 0) -> Vectors:
        return unit(np.random.default_rng(seed).standard_normal((rows, dimension)))

    return make

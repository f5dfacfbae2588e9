"""Sorting requests into a taxonomy: by nearness to prototypes in embedding space, and what every sorter gives.

Assignment is open: a request that is near to no category belongs to none. The measurement of confusions with labels
is here too. Classifiers and judges that sort are in ``curation.models.categories``; what an answer does is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from curation.errors import InputError
from curation.models.protocols import Encoder
from curation.refusals.taxonomy import MIN_SIMILARITY, Taxonomy, open_taxonomy

__all__ = [
    "Assignment",
    "CategoryAssigner",
    "Sorted",
    "Sorter",
    "assign_categories",
    "confusion",
    "open_assigner",
    "sort_requests",
]

NEIGHBOURS: Final = 3

Vectors = npt.NDArray[np.float32]


class Assignment(NamedTuple):
    """Categories of n requests."""

    category: list[str | None]
    """None: near to no category."""
    similarity: npt.NDArray[np.float32]
    """(n,), of the best category, assigned or not; a classifier's probability of it."""
    unread: npt.NDArray[np.bool_] | None = None
    """(n,), where a judge replied what cannot be read: nothing is known of those; None where that cannot be."""


class Sorter(Protocol):
    """Sorts requests into the categories of a taxonomy."""

    taxonomy: Taxonomy

    def assign(self, requests: Sequence[str]) -> Assignment:
        """The category of each request, or none."""
        ...


class Sorted(NamedTuple):
    """Categories of n requests, some of which may be null."""

    category: pl.Series
    """String; null where a request belongs to none, is null or is blank."""
    unread: pl.Series
    """Boolean, where a judge's reply could not be read."""


class CategoryAssigner:
    """Nearest prototype or nearest examples.

    The score of a category is the larger of its best prototype's cosine similarity and the mean similarity of its
    nearest examples, ``NEIGHBOURS`` of them or as many as it has.
    """

    def __init__(
        self,
        taxonomy: Taxonomy,
        encoder: Encoder,
        *,
        examples: Sequence[tuple[str, str]] = (),
        min_similarity: float = MIN_SIMILARITY,
    ) -> None:
        """``examples`` are (request, category name), beside those of the taxonomy itself.

        Raises:
            InputError: when an example names an unknown category.
        """
        self.taxonomy = taxonomy
        self.min_similarity = min_similarity
        self._encoder = encoder
        known = {c.name: list(c.examples) for c in taxonomy.categories}
        for text, name in examples:
            if name not in known:
                raise InputError(f"taxonomy {taxonomy.name} has no category {name!r}, which an example names")
            known[name].append(text)
        prototypes = {c.name: c.prototypes for c in taxonomy.assignable}
        self._names = [c.name for c in taxonomy.categories if c.name in prototypes or known[c.name]]
        self._prototypes = self._encoded([prototypes.get(name, ()) for name in self._names])
        self._examples = self._encoded([known[name] for name in self._names])

    def _encoded(self, texts: Sequence[Sequence[str]]) -> list[Vectors | None]:
        """The vectors of each category's texts; None where it has none."""
        vectors = iter(self._encoder.encode([text for own in texts for text in own]).vectors)
        return [np.array([next(vectors) for _ in own], dtype=np.float32) if own else None for own in texts]

    def assign(self, requests: Sequence[str]) -> Assignment:
        """The nearest category of each request, or none."""
        unique = list(dict.fromkeys(requests))
        vectors = self._encoder.encode(unique).vectors
        scores = self._scores(vectors)
        best = scores.argmax(axis=1) if unique else np.zeros(0, dtype=np.int64)
        place = {text: row for row, text in enumerate(unique)}
        rows = np.fromiter((place[text] for text in requests), dtype=np.int64, count=len(requests))
        top = scores[np.arange(len(unique)), best][rows].astype(np.float32)
        names = [self._names[c] if s >= self.min_similarity else None for c, s in zip(best[rows], top, strict=True)]
        return Assignment(names, top)

    def _scores(self, vectors: Vectors) -> Vectors:
        scores = np.full((len(vectors), len(self._names)), -1.0, dtype=np.float32)
        for column, (prototypes, examples) in enumerate(zip(self._prototypes, self._examples, strict=True)):
            if prototypes is not None:
                scores[:, column] = (vectors @ prototypes.T).max(axis=1)
            if examples is not None:
                near = np.sort(vectors @ examples.T, axis=1)[:, -NEIGHBOURS:].mean(axis=1)
                np.maximum(scores[:, column], near, out=scores[:, column])
        return scores


def open_assigner(taxonomy: str | Path | Taxonomy, *, min_similarity: float = MIN_SIMILARITY) -> CategoryAssigner:
    """An assigner with the bundled encoder, which reads the first 64 tokens of a request.

    Raises:
        InputError: see ``open_taxonomy``.
        ModelError: when the encoder is missing.
    """
    from curation.models.encoder import open_encoder

    opened = taxonomy if isinstance(taxonomy, Taxonomy) else open_taxonomy(taxonomy)
    return CategoryAssigner(opened, open_encoder(max_length=64), min_similarity=min_similarity)


def assign_categories(requests: Sequence[str | None], taxonomy: str | Path | Taxonomy | Sorter) -> pl.Series:
    """The category of each request as a String series; null where it belongs to none or is null itself."""
    if all(text is None or not text.strip() for text in requests):
        return pl.Series("category", [None] * len(requests), dtype=pl.String)
    sorter = open_assigner(taxonomy) if isinstance(taxonomy, str | Path | Taxonomy) else taxonomy
    return sort_requests(requests, sorter).category


def sort_requests(requests: Sequence[str | None], sorter: Sorter) -> Sorted:
    """The category of each request, and where it is not known because a reply could not be read."""
    known = [row for row, text in enumerate(requests) if text is not None and text.strip()]
    categories: list[str | None] = [None] * len(requests)
    unread = [False] * len(requests)
    if known:
        found = sorter.assign([requests[row] or "" for row in known])
        for place, row in enumerate(known):
            categories[row] = found.category[place]
            unread[row] = found.unread is not None and bool(found.unread[place])
    return Sorted(pl.Series("category", categories, dtype=pl.String), pl.Series("unread", unread, dtype=pl.Boolean))


def confusion(expected: Sequence[str | None], found: Sequence[str | None]) -> pl.DataFrame:
    """How often each expected category was taken for each other one.

    Returns:
        ``expected``, ``found``, ``rows``, ``share`` (of the rows of that expected category), the largest
        first within each expected category. Null stands for no category.
    """
    pairs = pl.DataFrame(
        {"expected": list(expected), "found": list(found)}, schema={"expected": pl.String, "found": pl.String}
    )
    counts = pairs.group_by("expected", "found").agg(rows=pl.len().cast(pl.Int64))
    return counts.with_columns(share=pl.col("rows") / pl.col("rows").sum().over("expected")).sort(
        "expected", "rows", "found", descending=[False, True, False], nulls_last=True
    )

"""Taxonomies of requests, and sorting requests into them by nearness in embedding space.

Assignment is open: a request that is near to no category belongs to none. Classifying with a trained
model and the measurement of confusions with labels are here too; what an answer does is not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from curation.errors import InputError, closest
from curation.files.safe_yaml import read_yaml
from curation.models.protocols import Encoder
from curation.text import content_hash
from schemas.taxonomies import TAXONOMIES, taxonomy_path

__all__ = [
    "Assignment",
    "CategoryAssigner",
    "Taxonomy",
    "TaxonomyCategory",
    "assign_categories",
    "confusion",
    "open_assigner",
    "open_taxonomy",
    "taxonomy_fingerprint",
]

MIN_SIMILARITY: Final = 0.35
"""Below it nothing is assigned: nine in ten everyday requests (self-instruct) lie below it for every
SORRY-Bench prototype, and three quarters of CatQA's harmful questions above 0.39."""
NEIGHBOURS: Final = 5
_NEIGHBOUR_WEIGHT: Final = 0.5
_TOP_FIELDS: Final = {"name", "version", "categories"}
_FIELDS: Final = {
    "name", "title", "parent", "labels", "prototypes", "heading", "number_2024_06", "number_2025_03",
}  # fmt: skip

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class TaxonomyCategory:
    """One category; ``parent`` is the name of the one it belongs to, or None."""

    name: str
    title: str
    parent: str | None = None
    prototypes: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    heading: bool = False
    """No request is sorted into it, only into the categories below it."""
    numbers: Mapping[str, int | None] | None = None
    """The category's number by release, where a taxonomy has numbers."""


@dataclass(frozen=True)
class Taxonomy:
    """Named categories in the file's order."""

    name: str
    version: str
    categories: tuple[TaxonomyCategory, ...]

    @property
    def assignable(self) -> tuple[TaxonomyCategory, ...]:
        """Categories with prototypes, but for headings: those above others that have only their title."""
        parents = {c.parent for c in self.categories if c.prototypes}
        only_above = {c.name for c in self.categories if c.name in parents and c.prototypes == (c.title,)}
        return tuple(c for c in self.categories if c.prototypes and not c.heading and c.name not in only_above)

    def category_of_number(self, number: int, *, release: str) -> str | None:
        """The name of a category by its number in a release such as ``2024-06``; None where it has none."""
        for category in self.categories:
            if category.numbers and category.numbers.get(release) == number:
                return category.name
        return None

    def top(self, name: str) -> str:
        """The topmost category that ``name`` belongs to."""
        parents = {c.name: c.parent for c in self.categories}
        while (parent := parents[name]) is not None:
            name = parent
        return name

    def as_coarse(self, name: str, as_name: str) -> str:
        """``as_name`` where ``name`` lies below it (or is it), else ``name``."""
        parents = {c.name: c.parent for c in self.categories}
        at: str | None = name
        while at is not None and at != as_name:
            at = parents[at]
        return at or name

    def name_of_label(self, label: str) -> str | None:
        """The category that a data set's own label stands for, by name, title or label, whatever the case."""
        wanted = label.strip().lower()
        for c in self.categories:
            if wanted in {c.name.lower(), c.title.lower(), *(known.lower() for known in c.labels)}:
                return c.name
        return None


def open_taxonomy(name_or_path: str | Path) -> Taxonomy:
    """A taxonomy that ships with the package, or the user's own YAML file.

    The file holds ``name``, and ``categories``: each with ``name`` and, as need be, ``title``, ``parent``,
    ``labels``, ``prototypes`` (sentences that describe requests of the category; its title by default) and
    ``heading: true`` where requests are only to be sorted into the categories below it.

    Raises:
        InputError: when there is no such taxonomy, or the file has a missing or repeated name, an unknown field or
            parent, a cycle, or no prototypes.
    """
    given = str(name_or_path)
    path = taxonomy_path(given) if given in TAXONOMIES else Path(given)
    if not path.is_file():
        raise InputError(
            f"taxonomy {given!r} is neither a file nor one of {', '.join(TAXONOMIES)}" + closest(given, TAXONOMIES)
        )
    content = read_yaml(path, what=f"taxonomy {path}")
    if not isinstance(content, dict) or not isinstance(content.get("categories"), list):
        raise InputError(f"taxonomy {path}: expected a mapping with a list under 'categories'")
    for unknown in sorted(map(str, set(content) - _TOP_FIELDS)):
        raise InputError(
            f"taxonomy {path}: unknown field {unknown!r}{closest(unknown, _TOP_FIELDS)}; allowed: "
            f"{', '.join(sorted(_TOP_FIELDS))}"
        )
    if not content["categories"]:
        raise InputError(f"taxonomy {path}: 'categories' is empty, expected at least one category")
    categories = tuple(_category(item, n, path) for n, item in enumerate(content["categories"], start=1))
    _check_tree(categories, path)
    taxonomy = Taxonomy(str(content.get("name", path.stem)), str(content.get("version", "")), categories)
    if not taxonomy.assignable:
        raise InputError(f"taxonomy {path}: no category has prototypes, so nothing could be assigned; add some")
    return taxonomy


def taxonomy_fingerprint(name_or_path: str | Path) -> str:
    """A hash of everything that decides an assignment: categories, prototypes and the least similarity.

    Raises:
        InputError: see ``open_taxonomy``.
    """
    taxonomy = open_taxonomy(name_or_path)
    parents = {c.parent for c in taxonomy.categories if c.prototypes}
    # Before, no category above others was assigned.
    assigned = {c.name: "\x1e" if c.name in parents else "" for c in taxonomy.assignable}
    parts = [
        f"{c.name}{assigned.get(c.name, '')}\x1f{c.parent or ''}\x1f" + "\x1f".join(c.prototypes)
        for c in taxonomy.categories
    ]
    return f"{taxonomy.name}@{content_hash('taxonomy', str(MIN_SIMILARITY), *parts)[:8]}"


def _category(item: Any, number: int, path: Path) -> TaxonomyCategory:
    where = f"taxonomy {path}: category {number}"
    if not isinstance(item, dict):
        raise InputError(f"{where}: found {type(item).__name__}, expected a mapping with a name")
    name = item.get("name")
    if not isinstance(name, str) or not name.strip():
        raise InputError(f"{where}: the name is missing or no text; add `name: ...`")
    unknown = sorted(set(item) - _FIELDS, key=str)
    if unknown:
        hint = closest(str(unknown[0]), _FIELDS)
        raise InputError(
            f"{where} ({name}): unknown field {unknown[0]!r}{hint}; allowed: {', '.join(sorted(_FIELDS))}"
        )
    if not isinstance(item.get("parent"), str | None):
        raise InputError(f"{where} ({name}): parent is {item['parent']!r}, expected the name of one category")
    lists = {}
    for field in ("labels", "prototypes"):
        value = item.get(field, [])
        if not isinstance(value, list) or not all(isinstance(entry, str) and entry.strip() for entry in value):
            raise InputError(f"{where} ({name}): {field} must be a list of texts, none of them empty")
        lists[field] = tuple(value)
    if not isinstance(item.get("heading", False), bool):
        raise InputError(f"{where} ({name}): heading is {item['heading']!r}, expected true or false")
    title = str(item.get("title", name.replace("_", " ")))
    has_tree_only = "number_2024_06" not in item and not lists["prototypes"]
    numbers = {r: item.get(f"number_{r.replace('-', '_')}") for r in ("2024-06", "2025-03")}
    return TaxonomyCategory(
        name=name,
        title=title,
        parent=item.get("parent"),
        prototypes=lists["prototypes"] or ((title,) if has_tree_only and "prototypes" not in item else ()),
        labels=lists["labels"],
        heading=item.get("heading", False),
        numbers=numbers if "number_2024_06" in item else None,
    )


def _check_tree(categories: Sequence[TaxonomyCategory], path: Path) -> None:
    parents: dict[str, str | None] = {}
    for category in categories:
        if category.name in parents:
            raise InputError(f"taxonomy {path}: the name {category.name!r} stands twice; rename one of the two")
        parents[category.name] = category.parent
    for name, parent in parents.items():
        if parent is not None and parent not in parents:
            hint = closest(str(parent), parents)
            raise InputError(f"taxonomy {path}: {name} has the unknown parent {parent!r}{hint}")
    for name in parents:
        seen: list[str] = []
        at: str | None = name
        while at is not None:
            if at in seen:
                raise InputError(
                    f"taxonomy {path}: the parents of {name} go round in a circle "
                    f"({' > '.join([*seen, at])}); remove one `parent`"
                )
            seen.append(at)
            at = parents[at]


class Assignment(NamedTuple):
    """Categories of n requests."""

    category: list[str | None]
    """None: near to no category."""
    similarity: npt.NDArray[np.float32]
    """(n,), of the best category, assigned or not."""


class CategoryAssigner:
    """Nearest prototype, helped by labelled neighbours where there are any.

    The score of a category is the larger of its best prototype's cosine similarity and the mean of its
    members' among the nearest labelled examples, weighted by their share.
    """

    def __init__(
        self,
        taxonomy: Taxonomy,
        encoder: Encoder,
        *,
        examples: Sequence[tuple[str, str]] = (),
        min_similarity: float = MIN_SIMILARITY,
    ) -> None:
        """``examples`` are (request, category name).

        Raises:
            InputError: when an example names an unknown category.
        """
        self.taxonomy = taxonomy
        self.min_similarity = min_similarity
        self._encoder = encoder
        assignable = taxonomy.assignable if not examples else taxonomy.categories
        self._names = [c.name for c in assignable]
        texts = [(row, text) for row, c in enumerate(assignable) for text in c.prototypes]
        self._owner = np.array([row for row, _ in texts], dtype=np.int64)
        self._prototypes = encoder.encode([text for _, text in texts]).vectors
        unknown = sorted({name for _, name in examples} - set(self._names))
        if unknown:
            raise InputError(f"taxonomy {taxonomy.name} has no category {unknown[0]!r}, which an example names")
        self._example_owner = np.array([self._names.index(name) for _, name in examples], dtype=np.int64)
        self._examples = encoder.encode([text for text, _ in examples]).vectors if examples else None

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
        near = vectors @ self._prototypes.T
        for column, owner in enumerate(self._owner):
            np.maximum(scores[:, owner], near[:, column], out=scores[:, owner])
        if self._examples is None or not len(self._examples):
            return scores
        similar = vectors @ self._examples.T
        k = min(NEIGHBOURS, similar.shape[1])
        nearest = np.argpartition(-similar, k - 1, axis=1)[:, :k]
        votes = np.zeros_like(scores)
        for row, columns in enumerate(nearest):
            for column in columns:
                votes[row, self._example_owner[column]] += max(float(similar[row, column]), 0.0) / k
        return _NEIGHBOUR_WEIGHT * scores + votes


def open_assigner(taxonomy: str | Path | Taxonomy, *, min_similarity: float = MIN_SIMILARITY) -> CategoryAssigner:
    """An assigner with the bundled encoder, which reads the first 64 tokens of a request.

    Raises:
        InputError: see ``open_taxonomy``.
        ModelError: when the encoder is missing.
    """
    from curation.models.encoder import open_encoder

    opened = taxonomy if isinstance(taxonomy, Taxonomy) else open_taxonomy(taxonomy)
    return CategoryAssigner(opened, open_encoder(max_length=64), min_similarity=min_similarity)


def assign_categories(
    requests: Sequence[str | None], taxonomy: str | Path | Taxonomy | CategoryAssigner
) -> pl.Series:
    """The category of each request as a String series; null where it belongs to none or is null itself."""
    known = [text for text in requests if text is not None and text.strip()]
    if not known:
        return pl.Series("category", [None] * len(requests), dtype=pl.String)
    assigner = taxonomy if isinstance(taxonomy, CategoryAssigner) else open_assigner(taxonomy)
    found = iter(assigner.assign(known).category)
    values = [next(found) if text is not None and text.strip() else None for text in requests]
    return pl.Series("category", values, dtype=pl.String)


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

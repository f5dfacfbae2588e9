"""Taxonomies of requests: named categories in a tree, from the package or from the user's own file.

Sorting requests into them is in ``sorting``; what an answer does is not here.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import polars as pl

from curation.errors import InputError, closest
from curation.files.safe_yaml import read_yaml
from curation.text import content_hash, normalise
from curation.validation_words import kind_of
from schemas.taxonomies import RELEASES, TAXONOMIES, taxonomy_path

__all__ = [
    "MIN_SIMILARITY",
    "Taxonomy",
    "TaxonomyCategory",
    "open_taxonomy",
    "taxonomy_fingerprint",
]

MIN_SIMILARITY: Final = 0.35
"""Below it nothing is assigned: nine in ten everyday requests (self-instruct) lie below it for every
SORRY-Bench prototype, and three quarters of CatQA's harmful questions above 0.39."""
_TAKEN: Final = {
    "(none)": "rows without a category go by that name",
    "respond": "its token would be [respond], which stands before answers; rename it",
}
_TOP_FIELDS: Final = {"name", "version", "categories"}
_FIELDS: Final = {
    "name", "title", "parent", "labels", "prototypes", "examples", "heading", "number_2024_06", "number_2025_03",
}  # fmt: skip


@dataclass(frozen=True)
class TaxonomyCategory:
    """One category; ``parent`` is the name of the one it belongs to, or None."""

    name: str
    title: str
    parent: str | None = None
    prototypes: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    examples: tuple[str, ...] = ()
    """Requests of this category, to be compared with as they are."""
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
    def sortable(self) -> tuple[TaxonomyCategory, ...]:
        """Categories that requests may be sorted into: no headings, and none above others with only a title."""
        parents = {c.parent for c in self.categories if c.prototypes}
        only_above = {c.name for c in self.categories if c.name in parents and c.prototypes == (c.title,)}
        return tuple(c for c in self.categories if not c.heading and c.name not in only_above)

    @property
    def assignable(self) -> tuple[TaxonomyCategory, ...]:
        """Those of them with prototypes."""
        return tuple(c for c in self.sortable if c.prototypes)

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
        """The category that a data set's own label stands for, by name, title or label, whatever the case.

        None where it stands for none, and where several have it for a title or a label: which is meant is unknown.
        """
        wanted = normalise(label)
        folded = wanted.casefold()
        named = [(c.name, (c.title, *c.labels)) for c in self.categories]
        found = (
            [name for name, _ in named if name == wanted],
            [name for name, others in named if wanted in others],
            [name for name, _ in named if name.casefold() == folded],
            [name for name, others in named if folded in {other.casefold() for other in others}],
        )
        nearest = next((names for names in found if names), [])
        return nearest[0] if len(nearest) == 1 else None

    def as_named(self, categories: pl.Series) -> pl.Series:
        """Categories that a source gives, under the taxonomy's names where they are of it; others as they are."""
        given = categories.cast(pl.String)
        names = {label: self.name_of_label(label) for label in given.unique().drop_nulls()}
        known = {label: name for label, name in names.items() if name is not None}
        return given.replace(known) if known else given

    def of_release(self, name: str, release: str) -> Taxonomy:
        """The categories of one release under another name; data sets of it may name them by number."""
        there = [c for c in self.categories if c.numbers is None or c.numbers.get(release) is not None]
        numbered = [
            replace(c, labels=(*c.labels, str(c.numbers[release]))) if c.numbers is not None else c for c in there
        ]
        return Taxonomy(name, release, tuple(numbered))


def open_taxonomy(name_or_path: str | Path) -> Taxonomy:
    """A taxonomy that ships with the package, or the user's own YAML file.

    The file holds ``name``, and ``categories``: each with ``name`` and, as need be, ``title``, ``parent``,
    ``labels``, ``prototypes`` (sentences that describe requests of the category; its title by default),
    ``examples`` (requests that belong to it) and ``heading: true`` where requests are only to be sorted into the
    categories below it.

    Raises:
        InputError: when there is no such taxonomy, or the file has a missing or repeated name, an unknown field or
            parent, a cycle, or no prototypes.
    """
    given = str(name_or_path)
    return _bundled(given) if given in TAXONOMIES else _opened(given, Path(given))


@functools.cache
def _bundled(name: str) -> Taxonomy:
    """Read once: every step that sorts has its fingerprint in its key, and YAML is slow to read."""
    return _opened(name, taxonomy_path(name))


def _opened(given: str, path: Path) -> Taxonomy:
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
    return taxonomy.of_release(given, RELEASES[given][1]) if given in RELEASES else taxonomy


def taxonomy_fingerprint(name_or_path: str | Path) -> str:
    """A hash of everything that can decide an assignment: all of the categories, and the least similarity.

    Raises:
        InputError: see ``open_taxonomy``.
    """
    taxonomy = open_taxonomy(name_or_path)
    parts = [repr(category) for category in taxonomy.categories]
    return f"{taxonomy.name}@{content_hash('taxonomy', str(MIN_SIMILARITY), *parts)[:8]}"


def _category(item: Any, number: int, path: Path) -> TaxonomyCategory:
    where = f"taxonomy {path}: category {number}"
    if not isinstance(item, dict):
        raise InputError(f"{where}: found {kind_of(item)}, expected a mapping with a name")
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
    name = normalise(name)
    lists = {}
    for field in ("labels", "prototypes", "examples"):
        value = item.get(field, [])
        if not isinstance(value, list) or not all(isinstance(entry, str) and entry.strip() for entry in value):
            raise InputError(f"{where} ({name}): {field} must be a list of texts, none of them empty")
        lists[field] = tuple(map(normalise, value)) if field == "labels" else tuple(value)
    if not isinstance(item.get("heading", False), bool):
        raise InputError(f"{where} ({name}): heading is {item['heading']!r}, expected true or false")
    if item.get("heading") and lists["examples"]:
        raise InputError(
            f"{where} ({name}): a heading takes no requests; put its examples under categories below it"
        )
    title = normalise(str(item.get("title", name.replace("_", " "))))
    has_tree_only = "number_2024_06" not in item and not lists["prototypes"]
    numbers = {r: item.get(f"number_{r.replace('-', '_')}") for r in ("2024-06", "2025-03")}
    return TaxonomyCategory(
        name=name,
        title=title,
        parent=normalise(item["parent"]) if item.get("parent") is not None else None,
        prototypes=lists["prototypes"] or ((title,) if has_tree_only and "prototypes" not in item else ()),
        labels=lists["labels"],
        examples=lists["examples"],
        heading=item.get("heading", False),
        numbers=numbers if "number_2024_06" in item else None,
    )


def _check_tree(categories: Sequence[TaxonomyCategory], path: Path) -> None:
    parents: dict[str, str | None] = {}
    for category in categories:
        if category.name in parents:
            raise InputError(f"taxonomy {path}: the name {category.name!r} stands twice; rename one of the two")
        if taken := _TAKEN.get(category.name.lower()):
            raise InputError(f"taxonomy {path}: a category cannot be called {category.name!r}: {taken}")
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

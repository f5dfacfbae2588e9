"""``curation refusals categories``: what is in a taxonomy, and whether a file of one's own can be read."""

from __future__ import annotations

from pathlib import Path

from curation.refusals.taxonomy import TaxonomyCategory, open_taxonomy

__all__ = ["taxonomy_text"]

_HEAD = ("name", "title", "below")


def taxonomy_text(taxonomy: str | Path) -> str:
    """The categories of a taxonomy as lines of text, with their numbers by release where it has such.

    Raises:
        InputError: see ``open_taxonomy``.
    """
    opened = open_taxonomy(taxonomy)
    releases = sorted({release for c in opened.categories for release in c.numbers or ()})
    rows = [(*_HEAD, *releases)]
    rows += [(c.name, c.title, c.parent or "", *_numbers(c, releases)) for c in opened.categories]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    version = f", {opened.version}" if opened.version else ""
    sortable = f"requests are sorted into {len(opened.sortable):,} of {len(opened.categories):,} categories"
    return "\n".join([*lines, f"{opened.name}{version}: {sortable}"])


def _numbers(category: TaxonomyCategory, releases: list[str]) -> list[str]:
    numbers = category.numbers or {}
    return [str(numbers[release]) if numbers.get(release) is not None else "" for release in releases]

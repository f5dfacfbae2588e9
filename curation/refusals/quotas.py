"""Quotas by the names that rows have. How rows are picked is in ``building``."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from curation.errors import InputError, closest
from curation.refusals.building import NO_CATEGORY
from curation.refusals.taxonomy import Taxonomy

__all__ = ["quotas_by_name"]

_SHOWN = 12


def quotas_by_name(
    quotas: Mapping[str, int], *, taxonomy: Taxonomy | None, categories: Collection[str], whole: bool = True
) -> dict[str, int]:
    """The quotas, each under the name that rows of its category have.

    Args:
        quotas: category to rows wanted; a category of the taxonomy by name, title or label, whatever the case.
        taxonomy: what requests are sorted into; None for nothing.
        categories: those that sources give, under the taxonomy's names.
        whole: whether these are all; without that a name which nobody knows is kept.

    Raises:
        InputError: when no row can have a category of that name, or two names are one category's.
    """
    found: dict[str, int] = {}
    said: dict[str, str] = {}
    own = [c.name for c in taxonomy.categories] if taxonomy is not None else []
    for name, wanted in quotas.items():
        known = taxonomy.name_of_label(name) if taxonomy is not None else None
        if known is None and whole and name not in categories and name != NO_CATEGORY:
            there = [*sorted(set(categories) - set(own)), *own]
            titles = [c.title for c in taxonomy.categories] if taxonomy is not None else []
            shown = ", ".join(there[:_SHOWN]) + (f" and {len(there) - _SHOWN} more" if len(there) > _SHOWN else "")
            raise InputError(
                f"refusal_dataset.quotas: no prompt can have the category {name!r}"
                f"{closest(name, [*there, *titles, NO_CATEGORY])}; there are {shown or 'no categories'}: name "
                f"one of the sources'{f' or of taxonomy {taxonomy.name}' if taxonomy is not None else ''}"
            )
        known = known or name
        if known in found:
            raise InputError(
                f"refusal_dataset.quotas: {said[known]!r} and {name!r} are the same category, {known}: give one"
            )
        found[known], said[known] = wanted, name
    return found

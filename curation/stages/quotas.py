"""The quotas of dataset ``refusal``, checked against the categories that prompts can have. No stage is here."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from curation.recipe import RefusalDetection
from curation.refusals.quotas import quotas_by_name
from curation.refusals.taxonomy import Taxonomy, open_taxonomy
from curation.stages.context import Context

__all__ = ["as_named", "check_quotas", "named_quotas"]


def as_named(context: Context, categories: pl.Series) -> pl.Series:
    """The sources' categories under the names of the recipe's taxonomy, where they are of it."""
    taxonomy = _taxonomy(context.recipe.refusals)
    return categories.cast(pl.String) if taxonomy is None else taxonomy.as_named(categories)


def check_quotas(context: Context, given: pl.Series) -> None:
    """Look at the recipe's quotas before anything is paid for.

    Args:
        given: the categories of all rows of the sources. In a trial those may be missing that stand further down.

    Raises:
        InputError: when no prompt can have the category of a quota.
    """
    known = as_named(context, given.unique()).drop_nulls().to_list()
    _by_name(context, categories=known, whole=context.limit is None)


def named_quotas(context: Context) -> dict[str, int]:
    """The recipe's quotas under the names that rows have.

    They were checked when the sources were read; what was forgotten since may have been all of a category.
    """
    return _by_name(context, categories=(), whole=False)


def _by_name(context: Context, *, categories: Sequence[str], whole: bool) -> dict[str, int]:
    quotas, taxonomy = context.recipe.refusal_dataset.quotas, _taxonomy(context.recipe.refusals)
    return quotas_by_name(quotas, taxonomy=taxonomy, categories=set(categories), whole=whole)


def _taxonomy(options: RefusalDetection | None) -> Taxonomy | None:
    return None if options is None or options.taxonomy is None else open_taxonomy(options.taxonomy)

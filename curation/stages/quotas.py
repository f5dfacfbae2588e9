"""The quotas of dataset ``refusal``, checked against the categories that prompts can have. No stage is here."""

from __future__ import annotations

import polars as pl

from curation.recipe import RefusalDetection
from curation.refusals.quotas import quotas_by_name
from curation.refusals.taxonomy import Taxonomy, open_taxonomy
from curation.stages.context import Context

__all__ = ["as_named", "checked_quotas"]


def as_named(context: Context, categories: pl.Series) -> pl.Series:
    """The sources' categories under the names of the recipe's taxonomy, where they are of it."""
    taxonomy = _taxonomy(context.recipe.refusals)
    return categories.cast(pl.String) if taxonomy is None else taxonomy.as_named(categories)


def checked_quotas(context: Context, given: pl.Series) -> dict[str, int]:
    """The recipe's quotas under the names that rows have.

    Args:
        given: the categories of all rows of the sources. In a trial those may be missing that stand further down.

    Raises:
        InputError: when no prompt can have the category of a quota.
    """
    known = as_named(context, given.unique()).drop_nulls().to_list()
    return quotas_by_name(
        context.recipe.refusal_dataset.quotas,
        taxonomy=_taxonomy(context.recipe.refusals),
        categories=set(known),
        whole=context.limit is None,
    )


def _taxonomy(options: RefusalDetection | None) -> Taxonomy | None:
    return None if options is None or options.taxonomy is None else open_taxonomy(options.taxonomy)

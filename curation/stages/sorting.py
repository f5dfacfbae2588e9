"""Who sorts requests into categories in a run: nearness to prototypes, a classifier, or a judge."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from curation.engine import failures_frame
from curation.models.categories import (
    classifier_sorter_fingerprint,
    judge_sorter_fingerprint,
    open_classifier_sorter,
    open_judge_sorter,
)
from curation.models.chat import Connection, is_address
from curation.models.chat.asking import Asking
from curation.recipe import RefusalDetection
from curation.recipe.refusals import RefusalJudge
from curation.refusals.sorting import open_assigner
from curation.refusals.taxonomy import open_taxonomy, taxonomy_fingerprint

if TYPE_CHECKING:
    from curation.ledger import LedgerKey
    from curation.refusals.sorting import Sorter
    from curation.stages.context import Context

__all__ = ["asking_of", "open_sorter", "sorted_by", "sorts_remotely", "unsorted_facts", "unsorted_failures"]


_UNSORTED: Final = "unreadable_category"
"""The rule of a failure beside which the row is kept, without a category."""


def unsorted_failures(ids: pl.Series) -> pl.DataFrame:
    """Failures of the items whose request a judge sorted into nothing that can be read; the rest is known."""
    return failures_frame(
        [
            {
                "row_id": name,
                "item_id": name,
                "rule": _UNSORTED,
                "value": None,
                "reason": "the judge named no category that can be read; all else is kept, without a category",
            }
            for name in ids
        ]
    )


def unsorted_facts(context: Context, key: LedgerKey, ids: pl.Series) -> dict[str, int | str]:
    """How many of these items have no category because a judge's reply could not be read; nothing for none."""
    failures = context.ledger.failures(key, ids)
    count = failures.filter(pl.col("rule") == _UNSORTED)["row_id"].n_unique()
    return {"category that cannot be read": count} if count else {}


def sorted_by(options: RefusalDetection) -> str:
    """What categories depend on; empty without a taxonomy."""
    if options.taxonomy is None:
        return ""
    into, sorting = taxonomy_fingerprint(options.taxonomy), options.sorting
    if sorting is None:
        return into
    if sorting.judge is not None:
        judge = sorting.judge
        by = judge_sorter_fingerprint(
            open_taxonomy(options.taxonomy), judge.model, asking=asking_of(judge), backend=judge.backend,
            revision=judge.revision,
        )  # fmt: skip
    else:
        by = classifier_sorter_fingerprint(
            sorting.model or "", no_category=sorting.no_category, min_probability=sorting.min_probability
        )
    return f"{into}+{by}"


def sorts_remotely(options: RefusalDetection) -> bool:
    """Whether a server sorts, which is paid for, and not a model in this process."""
    judge = options.sorting.judge if options.sorting is not None else None
    return judge is not None and is_address(judge.model)


def open_sorter(options: RefusalDetection) -> Sorter | None:
    """The sorter that a recipe asks for; None without a taxonomy.

    Raises:
        InputError: when a taxonomy or a model is not what it should be.
        ModelError: when a model cannot be loaded.
    """
    if options.taxonomy is None:
        return None
    sorting = options.sorting
    if sorting is None:
        return open_assigner(options.taxonomy)
    taxonomy = open_taxonomy(options.taxonomy)
    if sorting.judge is None:
        return open_classifier_sorter(
            taxonomy, sorting.model or "", no_category=sorting.no_category,
            min_probability=sorting.min_probability,
        )  # fmt: skip
    judge = sorting.judge
    connection = Connection(concurrency=judge.concurrency, timeout=judge.timeout, key_variable=judge.key_variable)
    return open_judge_sorter(
        taxonomy, judge.model, asking=asking_of(judge), backend=judge.backend, revision=judge.revision,
        connection=connection,
    )  # fmt: skip


def asking_of(judge: RefusalJudge) -> Asking:
    """How a recipe's judge is asked."""
    return Asking(judge.max_new_tokens, judge.temperature, judge.extra_body, judge.key_variable)

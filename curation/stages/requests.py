"""Stage ``requests``: whether each prompt should be refused, why, and whether it only looks as if it should."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from curation.engine import Batch, Worker, failures_frame
from curation.ledger import LedgerKey
from curation.recipe import Recipe, RefusalDetection
from curation.refusals.requests import can_be_read, detect_requests, open_request_model, request_fingerprint
from curation.refusals.sorting import confusion, sort_requests
from curation.refusals.taxonomy import open_taxonomy
from curation.stages.context import Context, Stage, StageResult
from curation.stages.sorting import (
    open_sorter,
    sorted_by,
    sorts_remotely,
    unsorted_facts,
    unsorted_failures,
)
from curation.text import last_user_text
from schemas import TABLES

if TYPE_CHECKING:
    from curation.refusals.requests import RequestModel
    from curation.refusals.sorting import Sorter

__all__ = [
    "STAGE",
    "RequestStep",
    "category_confusion",
    "confusion_in_words",
    "judges_requests",
    "prompt_requests",
    "request_step",
    "with_expectations",
]

_STEP_VERSION = 2
_MOST_CONFUSIONS = 5


def judges_requests(recipe: Recipe) -> bool:
    """Whether the recipe needs to know what is thought of its prompts.

    Quotas do: a verdict names the category of a request only where its answer refuses, and contrast has to count.
    """
    if recipe.refusals is None:
        return False
    options = recipe.refusal_dataset
    by_quota = bool(options.quotas or options.quota is not None) and recipe.refusals.taxonomy is not None
    builds = "refusal" in recipe.publish.datasets
    expects = builds or (recipe.builds_pairs and "refusal_faults" in recipe.pairs.strategies)
    return recipe.refusals.requests or (expects and options.expectation == "predicted") or (builds and by_quota)


@dataclass(frozen=True)
class RequestStep:
    """The bundled request model, one taxonomy, and who sorts requests into it."""

    options: RefusalDetection

    @property
    def name(self) -> str:
        return "requests"

    @property
    def batch_rows(self) -> int:
        return self.options.batch_rows

    @property
    def key(self) -> LedgerKey:
        by = f" by {sorted_by(self.options)}" if self.options.taxonomy else ""
        return LedgerKey("requests", "prompt_id", "model", f"{request_fingerprint()}{by} step{_STEP_VERSION}")

    @property
    def is_remote(self) -> bool:
        return sorts_remotely(self.options)

    def open(self) -> Worker:
        return _Judging(open_request_model(), open_sorter(self.options))


@dataclass
class _Judging:
    model: RequestModel
    sorter: Sorter | None

    def __call__(self, batch: pl.DataFrame) -> Batch:
        texts = [last_user_text(messages) for messages in batch["messages"].to_list()]
        asked = batch.select("prompt_id").with_columns(prompt=pl.Series(texts, dtype=pl.String))
        found = detect_requests(asked, model=self.model).drop("prompt")
        if self.sorter is None:
            return Batch(found.with_columns(refusal_category=pl.lit(None, dtype=pl.String)), failures_frame([]))
        category, unread = sort_requests(texts, self.sorter)
        rows = found.with_columns(refusal_category=category)
        return Batch(rows, unsorted_failures(rows.filter(unread)["prompt_id"]))


def request_step(context: Context) -> RequestStep:
    """The step that a recipe asks for."""
    assert context.recipe.refusals is not None
    return RequestStep(context.recipe.refusals)


def prompt_requests(context: Context, prompts: pl.Series) -> pl.DataFrame:
    """The rows of ``requests`` for these prompts; none where the recipe does not judge them."""
    if not judges_requests(context.recipe):
        return pl.DataFrame(TABLES["requests"].create_empty())
    return context.ledger.fetch(request_step(context).key, prompts)


def with_expectations(context: Context, prompts: pl.DataFrame) -> pl.DataFrame:
    """Prompts with the ``expected_behaviour`` of dataset ``refusal``: given, or what the prompt model is sure of.

    Of a request that it cannot read it knows nothing, however low ``min_expectation`` is.

    Args:
        prompts: ``prompt_id``, ``expected_behaviour`` and whatever else; rows and their order are kept.
    """
    options = context.recipe.refusal_dataset
    given = pl.col("expected_behaviour").cast(pl.String)
    if options.expectation == "given":
        return prompts.with_columns(given)
    judged = prompt_requests(context, prompts["prompt_id"]).select("prompt_id", _p="refuse_probability")
    judged = judged.join(_unread(context), on="prompt_id", how="anti", maintain_order="left")
    guess = (
        pl.when(pl.col("_p") >= options.min_expectation)
        .then(pl.lit("refuse"))
        .when(pl.col("_p") <= 1 - options.min_expectation)
        .then(pl.lit("comply"))
    )
    joined = prompts.join(judged, on="prompt_id", how="left", maintain_order="left")
    return joined.with_columns(expected_behaviour=pl.coalesce(given, guess)).drop("_p")


def _unread(context: Context) -> pl.DataFrame:
    """prompt_id of the prompts whose request is in a language that the model does not know."""
    prompts = context.workspace.scan("prompts").select("prompt_id", "messages").collect()
    readable = [can_be_read(last_user_text(messages)) for messages in prompts["messages"].to_list()]
    return prompts.filter(~pl.Series(readable, dtype=pl.Boolean)).select("prompt_id")


def category_confusion(context: Context) -> pl.DataFrame:
    """``curation.refusals.sorting.confusion`` of the categories that sources give with those that are found.

    Only prompts whose given category is one of the taxonomy (by name, title or label) count. A category below the
    given one is the given one.
    """
    options = context.recipe.refusals
    if options is None or options.taxonomy is None or not judges_requests(context.recipe):
        return confusion([], [])
    taxonomy = open_taxonomy(options.taxonomy)
    prompts = context.workspace.scan("prompts").select("prompt_id", pl.col("category").cast(pl.String)).collect()
    names = {label: taxonomy.name_of_label(label) for label in prompts["category"].drop_nulls().unique()}
    given = prompts.with_columns(
        given=pl.col("category").replace_strict(names, default=None, return_dtype=pl.String)
    )
    judged = prompt_requests(context, prompts["prompt_id"]).select("prompt_id", "refusal_category")
    both = given.drop_nulls("given").join(judged, on="prompt_id").sort("prompt_id")
    pairs = both.select("given", "refusal_category").rows()
    found = [None if name is None else taxonomy.as_coarse(name, wanted) for wanted, name in pairs]
    return confusion([wanted for wanted, _ in pairs], found)


def confusion_in_words(table: pl.DataFrame) -> str:
    """How many given categories were found again, and what was taken for what most often."""
    right = table.filter(pl.col("expected") == pl.col("found"))["rows"].sum()
    text = f"{right:,} of {table['rows'].sum():,} that sources give were found"
    wrong = table.filter(pl.col("expected").ne_missing(pl.col("found"))).sort(
        "rows", "expected", "found", descending=[True, False, False]
    )
    taken = [
        f"{expected} for {found or 'none'} {rows:,}"
        for expected, found, rows, _ in wrong.head(_MOST_CONFUSIONS).iter_rows()
    ]
    return f"{text}; taken most often: {', '.join(taken)}" if taken else text


def run(context: Context) -> StageResult:
    prompts = context.workspace.scan("prompts").select("prompt_id", "messages").collect()
    report = context.compute(request_step(context), prompts)
    found = prompt_requests(context, prompts["prompt_id"])
    facts: dict[str, int | str] = {
        "computed": report.computed,
        "to refuse": int((found["refuse_probability"] >= 0.5).sum()),
        "look-alikes": int((found["look_alike_probability"] >= 0.5).sum()),
    }
    if context.recipe.refusal_dataset.expectation == "predicted" and (unread := _unread(context).height):
        facts["not in English, so nothing is predicted"] = unread
    if (table := category_confusion(context)).height:
        facts["categories"] = confusion_in_words(table)
    facts |= unsorted_facts(context, request_step(context).key, prompts["prompt_id"])
    return StageResult("requests", prompts.height, min(report.failed, prompts.height - found.height), facts)


STAGE = Stage(
    name="requests",
    group="scores",
    description="Whether each prompt should be refused, its reason and category, and whether it is a look-alike.",
    needs=("prompts",),
    run=run,
    table="requests",
    enabled=judges_requests,
    uses_model=True,
)

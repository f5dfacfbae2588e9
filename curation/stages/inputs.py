"""Stage ``inputs``: read the sources into one table, each row once, with the identifiers of what it holds."""

from __future__ import annotations

from typing import Any

import polars as pl

from curation.errors import InputError
from curation.prompts.sources import read_source
from curation.prompts.verdicts import verdicts_of
from curation.recipe import Source
from curation.stages.context import Context, Stage, StageResult
from curation.stages.forgotten import Forgotten, without_forgotten_inputs
from curation.stages.preflight import check_named
from curation.stages.quotas import check_quotas
from curation.tables import concat_rejects, rejects_frame
from curation.text_columns import prompt_ids, response_id_lists
from schemas import TABLES

__all__ = ["STAGE"]


def run(context: Context) -> StageResult:
    check_named(context)
    frames, rejects, how = [], [], []
    answered = _answered_before(context)
    for source in context.recipe.sources:
        try:
            rows, dropped, read_as = _read(source, context.limit)
            _check_answers_are_there(source, rows, read_as, answered)
        except InputError as error:
            if context.workspace.version("inputs") is None:
                raise
            raise InputError(f"{error}; what was published before stays as it is") from error
        frames.append(rows)
        rejects.append(dropped)
        how.append(read_as)
    if "refusal" in context.recipe.publish.datasets:
        # Here nothing is paid for yet.
        check_quotas(context, pl.concat([frame["category"] for frame in frames]))
    inputs, forgotten = without_forgotten_inputs(pl.concat(frames, how="vertical"), Forgotten(context.workspace))
    facts: dict[str, Any] = {
        f"rows of {s.name}": f.height for s, f in zip(context.recipe.sources, frames, strict=True)
    }
    facts |= {
        f"{source.name} is read as": read_as for source, read_as in zip(context.recipe.sources, how, strict=True)
    }
    return context.write("inputs", "inputs", inputs, rejects=concat_rejects(*rejects, forgotten), facts=facts)


def _read(source: Source, limit: int | None) -> tuple[pl.DataFrame, pl.DataFrame, str]:
    """One source as rows of ``inputs``, rows of ``rejects``, and in words how it was read."""
    read = read_source(
        source.path,
        name=source.name,
        format=source.format,
        columns=source.columns,
        better=None if source.better is None else verdicts_of(**source.better.model_dump()),
        lower_is_better=source.lower_is_better,
        limit=limit,
    )
    if read.rows.is_empty():
        raise InputError(_none_is_usable(source, read.rejects, read.rows_read))
    prompts = prompt_ids(read.rows["messages"])
    rows = read.rows.with_columns(
        input_id=_input_id(source.name),
        source=pl.lit(source.name),
        prompt_id=prompts,
        candidate_ids=response_id_lists(prompts, read.rows["responses"]),
        generators=_generators(source.generator),
        category=pl.col("category").fill_null(pl.lit(source.category, dtype=pl.String)),
        expected_behaviour=pl.col("expected_behaviour").fill_null(
            pl.lit(source.expected_behaviour, dtype=pl.String)
        ),
    ).select(TABLES["inputs"].column_names())
    rejects = rejects_frame(
        read.rejects,
        table="inputs",
        stage="inputs",
        row_id=_input_id(source.name),
        rule=pl.col("rule"),
        value=pl.col("value"),
        reason=pl.col("reason"),
    )
    return rows, rejects, read.read_as


def _answered_before(context: Context) -> dict[str, str]:
    """The sources that brought answers at the last run, and as what they were read."""
    if context.workspace.version("inputs") is None:
        return {}
    # Their identifiers are a hundredth of their texts to read.
    before = context.workspace.scan("inputs").filter(pl.col("candidate_ids").list.len() > 0)
    kinds = before.select("source", "kind").unique("source", keep="first", maintain_order=True).collect()
    return dict(zip(kinds["source"].to_list(), kinds["kind"].to_list(), strict=True))


def _generators(said: str | None) -> pl.Expr:
    """Who wrote each answer: as its row says, else as the recipe says of the source."""
    if said is None:
        return pl.col("generators")
    of_all = pl.col("responses").list.eval(pl.lit(said))
    return pl.coalesce(pl.col("generators").list.eval(pl.element().fill_null(pl.lit(said))), of_all)


def _check_answers_are_there(source: Source, rows: pl.DataFrame, read_as: str, answered: dict[str, str]) -> None:
    """A column of answers that was renamed upstream leaves a file of prompts, and a dataset without its pairs.

    Raises:
        InputError: where the recipe does not say that prompts are meant.
    """
    if source.name in answered and source.format == "auto" and not (rows["responses"].list.len() > 0).any():
        raise InputError(
            f"{source.path}: the last run read it as {answered[source.name]}, now there are no answers: {read_as}; "
            f"name the columns of the answers, or give the source format: {rows['kind'][0]} if none are meant"
        )


def _none_is_usable(source: Source, rejects: pl.DataFrame, rows: int) -> str:
    """A source that gives nothing is a mistake, and the dataset would be made of the others without a word."""
    rules = rejects.group_by("rule", maintain_order=True).agg(pl.len(), pl.col("reason").first())
    said = ", ".join(
        f"{count:,} {rule} ({reason})" for rule, count, reason in rules.sort("len", descending=True).rows()
    )
    return f"{source.path}: none of its {rows:,} rows can be used: {said}; see columns and format of the source"


def _input_id(source: str) -> pl.Expr:
    return pl.format("{}#{}", pl.lit(source), pl.col("row"))


STAGE = Stage(
    name="inputs",
    group="sources",
    description="Every row of every source, as it was read. Rows that cannot be used are in rejects.",
    needs=(),
    run=run,
    table="inputs",
    version=4,
)

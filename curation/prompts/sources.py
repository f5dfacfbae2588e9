"""A source of a recipe: any file of pairs, answers or prompts as the canonical inputs of a run.

Inputs have one row for each row of the file that is not rejected:

    source              what the recipe calls it
    row                 the row's number in the file, from 0
    kind                pair, responses, unpaired, prompt or messages
    messages            the prompt: list of {role, content}
    responses           the answers that came along, [] for none
    scores              one for each answer, or null; a single score may be null
    chosen_index        for pairs 0, otherwise null
    rejected_index      for pairs 1, otherwise null
    labels              for unpaired answers one boolean for each, otherwise null
    generators          one name for each answer, or null; a single name may be null
    category, annotator text or null; nobody gave the label of a pair that was flipped since
    votes               for pairs a list of {voter, vote}: chosen, rejected or tie; otherwise null
    expected_behaviour  comply, refuse or null

How columns are recognised is in ``shapes``; how files are read in ``curation.files``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import polars as pl

from curation.errors import InputError
from curation.files import ROW, InputFile, Reject, RowError, open_input, rejects_frame
from curation.pairs.flipping import was_flipped
from curation.prompts.column_kinds import first_rows
from curation.prompts.inputs import INPUTS_SCHEMA, input_row
from curation.prompts.rows import normalise
from curation.prompts.shapes import Binding, ColumnMap, check_path, resolve
from curation.prompts.source_columns import (
    AUTO,
    EXTRAS,
    FORMATS,
    SIDED,
    check_columns_given,
    check_direction,
    check_used,
    extra_columns,
)
from curation.prompts.texts import cells, refuse_json_columns
from curation.prompts.trees import read_tree
from curation.prompts.verdicts import Verdicts, with_verdicts
from curation.text_columns import nested_series

__all__ = ["FORMATS", "INPUTS_SCHEMA", "SourceRows", "read_source"]


class SourceRows(NamedTuple):
    """What a source gave."""

    rows: pl.DataFrame
    """The columns of :data:`INPUTS_SCHEMA`."""
    rejects: pl.DataFrame
    """row, rule, value, reason. A row of several answers may be in both: then one answer was left out."""
    rows_read: int
    """How many rows the file gave, rejected ones included."""
    read_as: str
    """In words: as what the rows were read, from which columns, and which columns were not."""


@dataclass(frozen=True)
class _Reading:
    """How the rows of a file are read."""

    binding: Binding
    extras: dict[str, str]
    name: str
    verdicts: Verdicts | None = None
    lower_is_better: bool = False
    seen: Counter[str] = field(default_factory=Counter)
    others: set[str] = field(default_factory=set)
    """Some of the values that no column is named for."""


def read_source(
    path: str,
    *,
    name: str,
    format: str = "auto",
    columns: ColumnMap | None = None,
    better: Verdicts | None = None,
    lower_is_better: bool | None = None,
    limit: int | None = None,
) -> SourceRows:
    """Reads a source whole.

    Args:
        path: a file or ``hf://`` address.
        name: what the recipe calls the source.
        format: one of :data:`FORMATS`; ``auto`` takes the first that the columns can fill.
        columns: field to column (``{"prompt": "question"}``), ``outer.inner`` inside a struct, several
            columns for ``responses`` (one answer each) and ``prompt`` (joined by blank lines).
        better: pairs whose better answer a column names.
        lower_is_better: that the scores are ranks or losses; a column called rank needs it, one way or the other.
        limit: stop after that many rows of the file.

    Raises:
        InputError: when the file is wrong, or no supported shape fits its columns.
    """
    columns = columns or {}
    check_columns_given(name, format, columns, better)
    check_direction(name, columns, lower_is_better)
    file = open_input(path)
    if format == "tree":
        return _read_dialogues(file, columns, name=name, lower_is_better=lower_is_better, limit=limit)
    binding = _binding(file, format, columns, better)
    refuse_json_columns(file, (column for paths in binding.fields.values() for column in paths))
    extras = extra_columns(file, columns, shape=binding.shape)
    if better is not None:
        extras = {field: column for field, column in extras.items() if field not in SIDED}
    reading = _Reading(binding, extras, name, better, bool(lower_is_better))
    rows, bad_rows = [pl.DataFrame(schema=INPUTS_SCHEMA)], []
    seen = 0
    for chunk in file.chunks():
        frame = chunk if limit is None else chunk.filter(pl.col(ROW) < limit)
        seen += frame.height
        good, bad = _inputs(frame, reading)
        rows.append(good)
        bad_rows.append(bad)
        if frame.height < chunk.height:
            break
    unreadable = _unreadable(file, limit)
    bad_rows.append(unreadable)
    read = pl.concat(rows)
    _check_verdicts(file, reading)
    _check_scores(file, read, lower_is_better)
    faults = pl.concat(bad_rows).sort("row", maintain_order=True)
    return SourceRows(read, faults, seen + unreadable.height, _read_as(file, reading))


def _binding(file: InputFile, format: str, columns: ColumnMap, better: Verdicts | None) -> Binding:
    """What the columns of a file hold: as the recipe says, or as its first rows look."""
    main = {field: column for field, column in columns.items() if field not in EXTRAS}
    shapes = AUTO if format == "auto" else (format,)
    if better is not None:
        for column in (*better.columns, better.first, better.second):
            check_path(column, file.schema, file.mixed, name=file.name, key="better")
        main |= {"chosen": better.first, "rejected": better.second}
        shapes = ("pair",)
    head = first_rows(file)
    binding = resolve(head, name=file.name, shapes=shapes, columns=main, mixed=file.mixed)
    check_used(file.name, columns, binding)
    if format == "auto" and binding.shape == "response" and _is_unfilled(file, binding):
        return resolve(head, name=file.name, shapes=("prompt",), columns=main, mixed=file.mixed)
    return binding


def _is_unfilled(file: InputFile, binding: Binding) -> bool:
    """Whether nobody filled in the column of answers, as in many a set of prompts."""
    return _blank(file.head(), binding) and all(_blank(part, binding) for part in file.chunks())


def _read_dialogues(
    file: InputFile, columns: ColumnMap, *, name: str, lower_is_better: bool | None, limit: int | None
) -> SourceRows:
    tree = read_tree(file, columns, limit=limit)
    good, bad = _inputs(tree.frame, _Reading(tree.binding, {}, name, lower_is_better=bool(lower_is_better)))
    _check_scores(file, good, lower_is_better)
    unreadable = _unreadable(file, limit)
    rejects = pl.concat([bad, tree.rejects, unreadable]).sort("row", maintain_order=True)
    said = f"dialogues, a message a row, from {', '.join(tree.columns)}; {tree.leaves:,} that nobody answered"
    return SourceRows(good, rejects, tree.rows_read + unreadable.height, said + _not_read(file, tree.columns))


def _unreadable(file: InputFile, limit: int | None) -> pl.DataFrame:
    """Rows that the file's reader could not give, as far as the file was to be read."""
    return rejects_frame([reject for reject in file.rejects if limit is None or reject.row < limit])


def _check_scores(file: InputFile, rows: pl.DataFrame, lower_is_better: bool | None) -> None:
    if lower_is_better is not None and rows.height and rows["scores"].is_null().all():
        raise InputError(
            f"{file.name}: lower_is_better is not used: no scores are read; name their column by columns.scores "
            f"(of several answers a row) or columns.score (of one)"
        )


def _check_verdicts(file: InputFile, reading: _Reading) -> None:
    verdicts = reading.verdicts
    if verdicts is not None and reading.seen and set(reading.seen) == {"unknown"}:
        raise InputError(
            f"{file.name}: better.values: no row of column {verdicts.column!r} holds one of "
            f"{', '.join(verdicts.values)}; found {', '.join(sorted(reading.others)[:5])}"
        )


def _read_as(file: InputFile, reading: _Reading) -> str:
    binding, verdicts = reading.binding, reading.verdicts
    read = [column for columns in binding.fields.values() for column in columns]
    said = f"{binding.shape} from {', '.join(read)}"
    beside = list(reading.extras.values())
    if verdicts is not None:
        beside += verdicts.columns
        said += f"; by {verdicts.column}: " + ", ".join(
            f"{count:,} {column}" for column, count in sorted(reading.seen.items())
        )
    if beside:
        said += f"; beside them {', '.join(beside)}"
    return said + _not_read(file, [*read, *beside])


def _not_read(file: InputFile, paths: Iterable[str]) -> str:
    used = {column for path in paths for column in (path, path.split(".")[0])}
    left = [column for column in file.schema if column not in used]
    more = f" and {len(left) - 6} more" if len(left) > 6 else ""
    return f"; not read: {', '.join(left[:6])}{more}" if left else ""


def _blank(head: pl.DataFrame, binding: Binding) -> bool:
    answers = cells(head, binding.fields["response"][0], mixed=binding.mixed)
    return all(answer is None or (isinstance(answer, str) and not answer.strip()) for answer in answers)


def _inputs(frame: pl.DataFrame, reading: _Reading) -> tuple[pl.DataFrame, pl.DataFrame]:
    binding = reading.binding
    canonical, rejects = normalise(frame, binding, whole=False)
    position = {row: index for index, row in enumerate(frame[ROW].to_list())}
    if reading.verdicts is not None:
        told = {column: cells(frame, column, mixed=binding.mixed) for column in reading.verdicts.columns}
        said = {row: {name: cell[index] for name, cell in told.items()} for row, index in position.items()}
        canonical, ties = with_verdicts(canonical, reading.verdicts, said, reading.seen)
        rejects = pl.concat([rejects, ties])
        reading.others.update(
            ties.filter(pl.col("rule") == "unknown_label")["value"].unique(maintain_order=True)[:5]
        )
    values = {field: cells(frame, path, mixed=binding.mixed) for field, path in reading.extras.items()}
    if binding.shape == "pair" and "annotator" in values:
        # Whoever labelled a pair that `curation strength` has flipped since said the opposite.
        turned = frame.select(pl.col(ROW), turned=was_flipped(frame))["turned"].to_list()
        values["annotator"] = [None if t else who for who, t in zip(values["annotator"], turned, strict=True)]
    rows: list[dict[str, Any]] = []
    faults: list[Reject] = []
    for row in canonical.iter_rows(named=True):
        beside = {field: column[position[row["row"]]] for field, column in values.items()}
        try:
            rows.append({"source": reading.name, **input_row(binding.shape, row, beside)})
        except RowError as error:
            faults.append(error.at(row["row"]))
    if reading.lower_is_better:
        for made in rows:
            made["scores"] = made.get("scores") and [None if s is None else 0.0 - s for s in made["scores"]]
    data = [nested_series(column, [row.get(column) for row in rows], t) for column, t in INPUTS_SCHEMA.items()]
    return pl.DataFrame(data), pl.concat([rejects, rejects_frame(faults)])

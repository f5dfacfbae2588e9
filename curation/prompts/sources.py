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
    category, annotator, reference      text or null; nobody gave the label of a pair that was flipped since
    votes               for pairs a list of {voter, vote}: chosen, rejected or tie; otherwise null
    positives           list of text or null: texts relevant to the prompt
    expected_behaviour  comply, refuse or null

How columns are recognised is in ``shapes``; how files are read in ``curation.files``.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import polars as pl

from curation.errors import InputError, closest
from curation.files import ROW, InputFile, Reject, RowError, open_input, rejects_frame
from curation.pairs.views import was_flipped
from curation.prompts.rows import normalise, score_of
from curation.prompts.shapes import MESSAGES_DTYPE, Binding, ColumnMap, first_rows, resolve
from curation.prompts.texts import cells
from curation.prompts.votes import are_votes, votes_of
from curation.text_columns import nested_series

__all__ = ["FORMATS", "INPUTS_SCHEMA", "SourceRows", "read_source"]

INPUTS_SCHEMA: Final[dict[str, Any]] = {
    "source": pl.String,
    "row": pl.Int64,
    "kind": pl.String,
    "messages": MESSAGES_DTYPE,
    "responses": pl.List(pl.String),
    "scores": pl.List(pl.Float64),
    "chosen_index": pl.Int64,
    "rejected_index": pl.Int64,
    "labels": pl.List(pl.Boolean),
    "category": pl.String,
    "annotator": pl.String,
    "reference": pl.String,
    "positives": pl.List(pl.String),
    "expected_behaviour": pl.String,
    "votes": pl.List(pl.Struct({"voter": pl.String, "vote": pl.String})),
}

_AUTO: Final = ("pair", "unpaired", "responses", "response", "messages", "prompt")
FORMATS: Final = ("auto", *_AUTO)

_TEXT_FIELDS: Final = ("category", "annotator", "reference")
_EXTRAS: Final = (
    *_TEXT_FIELDS, "positives", "votes", "expected_behaviour", "score_chosen", "score_rejected", "score",
)  # fmt: skip
_FIELDS: Final = (
    "prompt",
    "chosen",
    "rejected",
    "response",
    "responses",
    "scores",
    "label",
    "messages",
    "system",
    *_EXTRAS,
)
_BEHAVIOURS: Final = {
    "comply": "comply",
    "refuse": "refuse",
    "safe": "comply",
    "unsafe": "refuse",
    "unknown": None,
    "": None,
}
_EXTRA_SYNONYMS: Final = {
    "expected_behaviour": ("expected_behaviour", "expected_behavior"), "score": ("score", "rating"),
}  # fmt: skip


_ONLY_OF: Final = {
    "score": ("response", "unpaired", "messages"), "votes": ("pair",), "score_chosen": ("pair",),
    "score_rejected": ("pair",),
}  # fmt: skip
"""The shapes that read a field; those of the others are all."""


class SourceRows(NamedTuple):
    """What a source gave."""

    rows: pl.DataFrame
    """The columns of :data:`INPUTS_SCHEMA`."""
    rejects: pl.DataFrame
    """row, rule, value, reason. A row of several answers may be in both: then one answer was left out."""
    rows_read: int
    """How many rows the file gave, rejected ones included."""


def read_source(
    path: str,
    *,
    name: str,
    format: str = "auto",
    columns: ColumnMap | None = None,
    limit: int | None = None,
) -> SourceRows:
    """Reads a source whole.

    Args:
        path: a file or ``hf://`` address.
        name: what the recipe calls the source.
        format: one of :data:`FORMATS`; ``auto`` takes the first that the columns can fill.
        columns: field to column (``{"prompt": "question"}``), ``outer.inner`` inside a struct, several
            columns for ``responses`` (one answer each) and ``prompt`` (joined by blank lines).
        limit: stop after that many rows of the file.

    Raises:
        InputError: when the file is wrong, or no supported shape fits its columns.
    """
    columns = columns or {}
    _check(name, format, columns)
    file = open_input(path)
    shapes = _AUTO if format == "auto" else (format,)
    main = {field: column for field, column in columns.items() if field not in _EXTRAS}
    head = first_rows(file)
    binding = resolve(head, name=path, shapes=shapes, columns=main, mixed=file.mixed)
    unfilled: Binding | None = None
    if format == "auto" and binding.shape == "response" and _blank(head, binding):
        # Sets of prompts often carry an answer column that nobody filled in.
        unfilled = binding
        binding = resolve(head, name=path, shapes=("prompt",), columns=main, mixed=file.mixed)
    _check_used(path, columns, binding if unfilled is None else unfilled)
    extras = _extras(file, columns)
    rows: list[pl.DataFrame] = []
    rejects: list[pl.DataFrame] = []
    seen = 0
    for chunk in file.chunks():
        frame = chunk if limit is None else chunk.filter(pl.col(ROW) < limit)
        if unfilled is not None and not _blank(frame, unfilled):
            # Somebody filled it in after all, further down.
            return read_source(path, name=name, format="response", columns=columns, limit=limit)
        seen += frame.height
        good, bad = _inputs(frame, binding, extras, name)
        rows.append(good)
        rejects.append(bad)
        if frame.height < chunk.height:
            break
    unreadable = [reject for reject in file.rejects if limit is None or reject.row < limit]
    rejects.append(rejects_frame(unreadable))
    return SourceRows(
        pl.concat(rows) if rows else pl.DataFrame(schema=INPUTS_SCHEMA),
        pl.concat(rejects).sort("row", maintain_order=True),
        seen + len(unreadable),
    )


def _check(name: str, format: str, columns: ColumnMap) -> None:
    if format not in FORMATS:
        hint = closest(format, FORMATS)
        raise InputError(f"source {name}: format {format!r}{hint}, expected one of {', '.join(FORMATS)}")
    for field in columns:
        if field not in _FIELDS:
            hint = closest(field, _FIELDS)
            raise InputError(f"source {name}: columns.{field}{hint}, expected one of {', '.join(_FIELDS)}")


def _check_used(path: str, columns: ColumnMap, binding: Binding) -> None:
    """A column that the recipe names and nothing reads would be passed over without a word."""
    shape = binding.shape
    used = {*binding.fields, *(field for field in _EXTRAS if shape in _ONLY_OF.get(field, (shape,)))}
    for field in (field for field in columns if field not in used):
        instead = "; for one answer a row give columns.score" if field == "scores" else ""
        raise InputError(
            f"{path}: columns.{field} is not used: the file is read as {shape}, with "
            f"{', '.join(binding.fields)}{instead}; leave it out, or set format"
        )


def _blank(head: pl.DataFrame, binding: Binding) -> bool:
    answers = cells(head, binding.fields["response"][0], mixed=binding.mixed)
    return all(answer is None or (isinstance(answer, str) and not answer.strip()) for answer in answers)


def _extras(file: InputFile, columns: ColumnMap) -> dict[str, str]:
    """The columns that hold more than the texts: by the recipe, or by their names."""
    found = {}
    for field in _EXTRAS:
        if field in columns:
            given = columns[field]
            found[field] = given if isinstance(given, str) else given[0]
            if found[field].split(".")[0] not in file.schema and found[field] not in file.schema:
                raise InputError(
                    f"{file.name}: no column {found[field]!r}, which columns.{field} names"
                    f"{closest(found[field], file.schema)}; found {', '.join(file.schema)}"
                )
            continue
        for synonym in _EXTRA_SYNONYMS.get(field, (field,)):
            if field not in found and synonym in file.schema and _fits(file, field, synonym):
                found[field] = synonym
    return found


def _fits(file: InputFile, field: str, column: str) -> bool:
    """Whether a column holds what its name says.

    One called votes is often a number of upvotes, and people's votes are taken by their form, or named; a score is
    a number, or named.
    """
    if field == "score":
        return column not in file.mixed and file.schema[column].is_numeric()
    return field != "votes" or _are_votes(file, column)


def _are_votes(file: InputFile, column: str) -> bool:
    said = next((cell for cell in cells(file.head(), column, mixed=file.mixed) if cell is not None), None)
    return are_votes(file.schema[column] if column not in file.mixed else said)


def _inputs(
    frame: pl.DataFrame, binding: Binding, extras: dict[str, str], name: str
) -> tuple[pl.DataFrame, pl.DataFrame]:
    canonical, rejects = normalise(frame, binding)
    values = {field: cells(frame, path, mixed=binding.mixed) for field, path in extras.items()}
    if binding.shape == "pair" and "annotator" in values:
        # Whoever labelled a pair that `curation strength` has flipped since said the opposite.
        turned = frame.select(pl.col(ROW), turned=was_flipped(frame))["turned"].to_list()
        values["annotator"] = [None if t else who for who, t in zip(values["annotator"], turned, strict=True)]
    position = {row: index for index, row in enumerate(frame[ROW].to_list())}
    rows: list[dict[str, Any]] = []
    faults: list[Reject] = []
    for row in canonical.iter_rows(named=True):
        beside = {field: column[position[row["row"]]] for field, column in values.items()}
        try:
            rows.append({"source": name, **_input(binding.shape, row, beside)})
        except RowError as error:
            faults.append(error.at(row["row"]))
    data = [nested_series(column, [row.get(column) for row in rows], t) for column, t in INPUTS_SCHEMA.items()]
    return pl.DataFrame(data), pl.concat([rejects, rejects_frame(faults)])


def _input(shape: str, row: dict[str, Any], extras: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {"row": row["row"], "kind": shape, "messages": row["prompt"], "responses": []}
    if shape == "pair":
        made |= {"responses": [row["chosen"], row["rejected"]], "chosen_index": 0, "rejected_index": 1}
        scores = [score_of(extras.get("score_chosen")), score_of(extras.get("score_rejected"))]
        made["scores"] = scores if any(score is not None for score in scores) else None
    elif shape == "responses":
        made |= {"responses": row["responses"], "scores": row["scores"]}
    elif shape != "prompt" and row["response"] is not None:
        made |= {"kind": "responses" if shape == "response" else shape, "responses": [row["response"]]}
        if shape == "unpaired":
            made["labels"] = [row["label"]]
        score = score_of(extras.get("score"))
        made["scores"] = None if score is None else [score]
    for field in _TEXT_FIELDS:
        value = extras.get(field)
        made[field] = None if value is None else value if isinstance(value, str) else str(value)
    made["positives"] = _positives(extras.get("positives"))
    made["votes"] = votes_of(extras.get("votes")) if shape == "pair" else None
    made["expected_behaviour"] = _behaviour(extras.get("expected_behaviour"))
    return made


def _positives(value: Any) -> list[str] | None:
    values = [value] if isinstance(value, str) else value
    if values is None:
        return None
    if not isinstance(values, list) or not all(isinstance(text, str) for text in values):
        raise RowError("not_text", "positives", "positives hold something that is not text")
    return [text for text in values if text.strip()] or None


def _behaviour(value: Any) -> str | None:
    key = value.strip().lower() if isinstance(value, str) else value
    if key is None:
        return None
    if not isinstance(key, str) or key not in _BEHAVIOURS:
        reason = "expected_behaviour is not one of comply, refuse, safe, unsafe, unknown"
        raise RowError("unknown_expected_behaviour", str(value)[:32], reason)
    return _BEHAVIOURS[key]

"""What a recipe says of a source's columns: whether it makes sense, and which columns hold more than the texts.

How columns are recognised without it is in ``shapes``.
"""

from __future__ import annotations

import re
from typing import Final

import polars as pl

from curation.errors import InputError, closest
from curation.files import InputFile
from curation.prompts.inputs import TEXT_FIELDS
from curation.prompts.shapes import Binding, ColumnMap, check_path
from curation.prompts.texts import cells
from curation.prompts.trees import TREE_COLUMNS
from curation.prompts.verdicts import Verdicts
from curation.prompts.votes import are_votes

__all__ = [
    "AUTO",
    "EXTRAS",
    "FORMATS",
    "SIDED",
    "check_columns_given",
    "check_direction",
    "check_used",
    "extra_columns",
]

AUTO: Final = ("pair", "unpaired", "responses", "response", "messages", "prompt")
FORMATS: Final = ("auto", *AUTO, "tree")

EXTRAS: Final = (
    *TEXT_FIELDS, "votes", "expected_behaviour", "score_chosen", "score_rejected", "score", "generator",
    "generator_chosen", "generator_rejected",
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
    *EXTRAS,
    *TREE_COLUMNS,
)
_SEVERAL: Final = ("prompt", "responses", "scores")
SIDED: Final = (
    "chosen", "rejected", "score_chosen", "score_rejected", "generator_chosen", "generator_rejected", "votes",
)  # fmt: skip
_SCORES: Final = ("scores", "score", "score_chosen", "score_rejected")
_EXTRA_SYNONYMS: Final = {
    "expected_behaviour": ("expected_behaviour", "expected_behavior"), "score": ("score", "rating"),
    "generator_chosen": ("generator_chosen", "chosen_model"),
    "generator_rejected": ("generator_rejected", "rejected_model"),
}  # fmt: skip


_ONLY_OF: Final = {
    "score": ("response", "unpaired", "messages"), "votes": ("pair",), "score_chosen": ("pair",),
    "score_rejected": ("pair",), "generator": ("response", "responses", "unpaired", "messages"),
    "generator_chosen": ("pair",), "generator_rejected": ("pair",),
}  # fmt: skip
"""The shapes that read a field; those of the others are all."""
_RANK: Final = re.compile(r"(?:^|[._\s-])(?:rank|ranks|ranking|rankings)$", re.IGNORECASE)


def check_columns_given(name: str, format: str, columns: ColumnMap, better: Verdicts | None) -> None:
    if format not in FORMATS:
        hint = closest(format, FORMATS)
        raise InputError(f"source {name}: format {format!r}{hint}, expected one of {', '.join(FORMATS)}")
    for field in columns:
        if field not in _FIELDS:
            hint = closest(field, _FIELDS)
            raise InputError(f"source {name}: columns.{field}{hint}, expected one of {', '.join(_FIELDS)}")
        if not isinstance(columns[field], str) and field not in _SEVERAL:
            several = ", ".join(_SEVERAL)
            raise InputError(
                f"source {name}: columns.{field} is a list, expected one column (a list for {several})"
            )
        if better is not None and field in SIDED:
            raise InputError(
                f"source {name}: columns.{field} beside better, which says what is chosen: leave one out"
            )
        if (field in TREE_COLUMNS) != (format == "tree") and field != "score":
            said = f"with format tree columns are {', '.join(TREE_COLUMNS)}, score"
            raise InputError(f"source {name}: columns.{field} is not used: {said}")
    if better is not None and format not in ("auto", "pair"):
        raise InputError(f"source {name}: better makes pairs, and format is {format}: leave format out")


def check_direction(name: str, columns: ColumnMap, lower_is_better: bool | None) -> None:
    """A rank read as a score would turn every pair round."""
    for key in (key for key in _SCORES if lower_is_better is None and key in columns):
        given = columns[key]
        for column in [given] if isinstance(given, str) else given:
            if _RANK.search(column):
                raise InputError(
                    f"source {name}: columns.{key} is {column!r}: say lower_is_better: true where the first "
                    f"rank is the best answer, or lower_is_better: false where it is the worst"
                )


def check_used(path: str, columns: ColumnMap, binding: Binding) -> None:
    """A column that the recipe names and nothing reads would be passed over without a word."""
    shape = binding.shape
    used = {*binding.fields, *(field for field in EXTRAS if shape in _ONLY_OF.get(field, (shape,)))}
    for field in (field for field in columns if field not in used):
        instead = "; for one answer a row give columns.score" if field == "scores" else ""
        raise InputError(
            f"{path}: columns.{field} is not used: the file is read as {shape}, with "
            f"{', '.join(binding.fields)}{instead}; leave it out, or set format"
        )


def extra_columns(file: InputFile, columns: ColumnMap, *, shape: str) -> dict[str, str]:
    """The columns that hold more than the texts of a shape: by the recipe, or by their names."""
    found = {}
    for field in (field for field in EXTRAS if shape in _ONLY_OF.get(field, (shape,))):
        if field in columns:
            given = columns[field]
            found[field] = given if isinstance(given, str) else given[0]
            check_path(found[field], file.schema, file.mixed, name=file.name, key=f"columns.{field}")
            continue
        for synonym in _EXTRA_SYNONYMS.get(field, (field,)):
            if field not in found and synonym in file.schema and _fits(file, field, synonym):
                found[field] = synonym
    return found


def _fits(file: InputFile, field: str, column: str) -> bool:
    """Whether a column holds what its name says.

    One called votes is often a number of upvotes, and people's votes are taken by their form, or named; a score is
    a number, or named; who wrote an answer is a text, or a list of them.
    """
    if field.startswith("generator"):
        return file.schema[column] in (pl.String, pl.List(pl.String))
    if field == "score":
        return column not in file.mixed and file.schema[column].is_numeric()
    return field != "votes" or _are_votes(file, column)


def _are_votes(file: InputFile, column: str) -> bool:
    said = next((cell for cell in cells(file.head(), column, mixed=file.mixed) if cell is not None), None)
    return are_votes(file.schema[column] if column not in file.mixed else said)

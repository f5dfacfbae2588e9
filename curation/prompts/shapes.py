"""What the columns of a file mean: pairs, answers, prompts, in every form that people have them.

    binding = resolve(frame, shapes=("pair", "responses"), name="pairs.jsonl")
    rows, rejects = normalise(frame, binding)           # curation.prompts.rows

The canonical rows by shape (``prompt`` is a list of {role, content}, an answer is text):

    pair        row, prompt, chosen, rejected
    unpaired    row, prompt, response, label
    responses   row, prompt, responses, indices (their positions in the file's list), scores (or null)
    response    row, prompt, response
    bare        row, prompt (null), response              an answer without a prompt
    messages    row, prompt, response (null when the assistant does not speak last)
    prompt      row, prompt

A column ``system`` (or ``system_prompt``) of texts becomes the first message of the prompt. Of several names for
one field the first is read, in the order of ``_SYNONYMS``, and :func:`read_from` says so; of the two for system
messages both, and a row in which they differ is a reject.

Only the columns are looked at here; what one holds whose name leaves it open is in ``column_kinds``. Rows are
read in ``rows``, one value in ``dialogues``, plain text columns in ``texts``; scores, categories and labels for the
pipeline in ``sources``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any, Final, NamedTuple

import polars as pl

from curation.errors import InputError, closest
from curation.files import ROW
from curation.prompts import dialogues
from curation.prompts.column_kinds import SYSTEM, are_labels, are_verdicts, is_said, is_text

__all__ = [
    "MESSAGES_DTYPE",
    "SHAPES",
    "Binding",
    "ColumnMap",
    "Shape",
    "check_path",
    "read_from",
    "resolve",
]

MESSAGES_DTYPE: Final = pl.List(pl.Struct({"role": pl.String, "content": pl.String}))

ColumnMap = Mapping[str, str | Sequence[str]]
"""Canonical field to the user's column, ``outer.inner`` inside a struct; several are joined or listed."""


Schema = dict[str, "pl.DataType | type[pl.DataType]"]


class Shape(NamedTuple):
    """What a shape needs and what its canonical rows hold."""

    needs: tuple[str, ...]
    schema: Schema
    may: tuple[str, ...] = ("system",)


_PROMPT: Final[Schema] = {"row": pl.Int64, "prompt": MESSAGES_DTYPE}

SHAPES: Final[dict[str, Shape]] = {
    "pair": Shape(
        ("chosen", "rejected"), {**_PROMPT, "chosen": pl.String, "rejected": pl.String}, ("prompt", "system")
    ),
    "unpaired": Shape(("prompt", "response", "label"), {**_PROMPT, "response": pl.String, "label": pl.Boolean}),
    "responses": Shape(
        ("prompt", "responses"),
        {
            **_PROMPT,
            "responses": pl.List(pl.String),
            "indices": pl.List(pl.Int64),
            "scores": pl.List(pl.Float64),
        },
        ("scores", "system"),
    ),
    "response": Shape(("prompt", "response"), {**_PROMPT, "response": pl.String}),
    "messages": Shape(("messages",), {**_PROMPT, "response": pl.String}),
    "prompt": Shape(("prompt",), dict(_PROMPT)),
    "bare": Shape(("response",), {**_PROMPT, "response": pl.String}, ()),
}

_SYNONYMS: Final[dict[str, tuple[str, ...]]] = {
    "prompt": ("prompt", "instruction", "question", "query"),
    "response": ("response", "completion", "output", "answer"),
    "responses": ("responses", "completions", "generations", "answers", "candidates"),
    "scores": ("scores", "ratings"),
    "messages": ("messages", "conversations", "dialogue"),
    "system": SYSTEM,
}


class Binding(NamedTuple):
    """Which shape a file has and which of its columns hold what."""

    shape: str
    fields: dict[str, tuple[str, ...]]
    mixed: frozenset[str] = frozenset()
    name: str = "the frame"
    """The file, for errors."""


def resolve(
    frame: pl.DataFrame,
    *,
    name: str,
    shapes: Sequence[str] = tuple(SHAPES),
    columns: ColumnMap | None = None,
    mixed: frozenset[str] = frozenset(),
) -> Binding:
    """The first of ``shapes`` that the columns of a frame can fill.

    Args:
        frame: some rows of the file; only pairs without a prompt column are looked at.
        name: the file, for errors.
        shapes: names of :data:`SHAPES`, in order of preference.
        columns: field to column, where the file's names are its own.
        mixed: columns that hold JSON text (``InputFile.mixed``).

    Raises:
        InputError: with the columns found, those expected and the closest match.
    """
    found = [column for column in frame.columns if column != ROW]
    given = _given(frame, columns or {}, mixed, name=name)
    for shape in shapes:
        fields = {f: p for f in (*SHAPES[shape].needs, *SHAPES[shape].may) if (p := _find(f, frame, given, mixed))}
        complete = all(field in fields for field in SHAPES[shape].needs)
        if complete and _plausible(shape, fields, frame, mixed, asked=len(shapes) == 1):
            _refuse_look_alikes(frame, shapes[: shapes.index(shape)], given, name=name, read_as=shape)
            return Binding(shape, fields, mixed, name)
    likely = max(shapes, key=lambda s: sum(bool(_find(f, frame, given, mixed)) for f in SHAPES[s].needs))
    wanted = list(dict.fromkeys([*(["prompt"] if likely == "pair" else []), *SHAPES[likely].needs]))
    missing = [f for f in wanted if not _find(f, frame, given, mixed)] or wanted
    expected = " or ".join(", ".join([*_wanted(s)]) for s in shapes)
    raise InputError(
        f"{name}: no column {missing[0]!r} that fits{closest(missing[0], found)}; found {', '.join(found)}; "
        f"expected {expected}"
    )


def _refuse_look_alikes(
    frame: pl.DataFrame, better: Sequence[str], given: Mapping[str, tuple[str, ...]], *, name: str, read_as: str
) -> None:
    """That no column is passed over for a capital or a space in its name: pairs would be read as prompts alone.

    Raises:
        InputError: when the file would have a better shape without it.
    """
    taken = {path.split(".")[0] for paths in given.values() for path in paths} | set(frame.columns)
    alike = {plain: c for c in frame.columns if (plain := c.strip().lower()) not in taken}
    for shape in better:
        found = [_named(field, (*frame.columns, *alike)) for field in SHAPES[shape].needs if field not in given]
        named = [alike[column] for column in found if column is not None and column in alike]
        if named and all(found):
            right = named[0].strip().lower()
            if right == "label" and not are_verdicts(frame[named[0]]):
                continue
            raise InputError(
                f"{name}: column {named[0]!r} would not be read, for its name is not {right!r}, and the file would "
                f"be taken for one of shape {read_as}: rename it, or say format: {read_as} in a recipe if so it is"
            )


def _named(field: str, columns: Sequence[str]) -> str | None:
    return next((name for name in _SYNONYMS.get(field, (field,)) if name in columns), None)


def _given(frame: pl.DataFrame, columns: ColumnMap, mixed: Set[str], *, name: str) -> dict[str, tuple[str, ...]]:
    given = {field: (paths,) if isinstance(paths, str) else tuple(paths) for field, paths in columns.items()}
    for field, paths in given.items():
        for path in paths:
            check_path(path, frame.schema, mixed, name=name, key=f"columns.{field}")
    return given


def check_path(path: str, schema: Mapping[str, pl.DataType], mixed: Set[str], *, name: str, key: str) -> None:
    """That a column, or a field inside one (``outer.inner``), is there.

    Raises:
        InputError: when it is not; a field that is misspelt would be null in every row.
    """
    found = [column for column in schema if column != ROW]
    column, *inner = [path] if path in schema else path.split(".")
    if column not in schema:
        raise InputError(
            f"{name}: no column {path!r}, which {key} names{closest(path, found)}; found {', '.join(found)}"
        )
    dtype: Any = schema[column]
    for part in inner if column not in mixed else ():
        dtype = dtype.inner if isinstance(dtype, pl.List) else dtype
        fields = {f.name: f.dtype for f in dtype.fields} if isinstance(dtype, pl.Struct) else {}
        if part not in fields:
            said = f"found {', '.join(fields)}" if fields else f"it holds {dtype}"
            raise InputError(f"{name}: no field {part!r} in column {column!r}, which {key} names"
                             f"{closest(part, fields)}; {said}")  # fmt: skip
        dtype = fields[part]


def _find(
    field: str, frame: pl.DataFrame, given: Mapping[str, tuple[str, ...]], mixed: frozenset[str]
) -> tuple[str, ...]:
    if field in given:
        return given[field]
    if field == "system":
        taken = {column for paths in given.values() for column in paths}
        there = [c for c in _SYNONYMS[field] if c in frame.columns and c not in taken]
        return tuple(column for column in there if is_said(frame[column]))
    for column in _SYNONYMS.get(field, (field,)):
        if column in frame.columns:
            dtype = frame.schema[column]
            if field in {"responses", "scores"} and not isinstance(dtype, pl.List) and column not in mixed:
                continue
            if field == "prompt" and column == "instruction" and "input" in frame.columns:
                return ("instruction", "input")
            return (column,)
    return ()


def read_from(binding: Binding, columns: Iterable[str]) -> str:
    """In words: which column a field is read from, where others have a name for it too; "" where none has."""
    there = set(columns) - {column for paths in binding.fields.values() for column in paths}
    said = []
    for field in (*SHAPES[binding.shape].needs, *SHAPES[binding.shape].may):
        if others := [column for column in _SYNONYMS.get(field, ()) if column in there]:
            read = " and ".join(binding.fields.get(field, ())) or "no column"
            said.append(f"{field} is read from {read}, not from {', '.join(others)}")
    return "; ".join(said)


def _plausible(
    shape: str, fields: Mapping[str, tuple[str, ...]], frame: pl.DataFrame, mixed: frozenset[str], *, asked: bool
) -> bool:
    """Whether the columns hold what the shape needs; ``asked``: no other shape is possible."""
    if shape == "unpaired" and not asked and not are_labels(frame, fields["label"][0], mixed):
        return False
    if shape == "pair" and "prompt" not in fields:
        # Plain texts may share their first words by chance: only a dialogue is taken for a shared prompt.
        chosen = fields["chosen"][0]
        texts = chosen in frame.columns and frame.schema[chosen] == pl.String and chosen not in mixed
        return not texts or any(text is not None and dialogues.is_hh(text) for text in frame[chosen])
    for field in ("prompt", "response"):
        for path in fields.get(field, ()):
            dtype = frame.schema.get(path)
            if (
                dtype is None
                or path in mixed
                or is_text(dtype)
                or (field == "prompt" and dtype == pl.List(pl.String))
            ):
                continue
            return False
    return True


def _wanted(shape: str) -> tuple[str, ...]:
    return ("prompt", "chosen", "rejected") if shape == "pair" else SHAPES[shape].needs

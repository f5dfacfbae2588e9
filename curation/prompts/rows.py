"""The rows of a file in the canonical columns of its shape; rows at fault become rejects.

Which column holds what is decided in ``shapes``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import polars as pl

from curation.files import ROW, Reject, RowError, rejects_frame
from curation.prompts import dialogues
from curation.prompts.column_kinds import LABELS
from curation.prompts.shapes import SHAPES, Binding, Schema, resolve
from curation.prompts.texts import cells, refuse_json_text
from curation.text import Message
from curation.text_columns import nested_series

__all__ = ["Normalised", "normalise", "normalise_pairs", "score_of"]

_ANSWER_KEYS: Final = ("response", "completion", "text", "content", "answer", "generation", "generated_text")
# UltraFeedback's own overall score is known to be off; the mean of the aspects is what its users take.
_SCORE_KEYS: Final = ("fine-grained_score", "avg_rating", "rating", "score", "overall_score")


class Normalised(NamedTuple):
    """Canonical rows in input order, and the rows that were turned away."""

    rows: pl.DataFrame
    rejects: pl.DataFrame


def normalise(frame: pl.DataFrame, binding: Binding, *, whole: bool = True) -> Normalised:
    """The canonical rows of a frame; rows at fault become rejects.

    Args:
        frame: the file's columns, with row numbers in ROW, or else counted from 0.
        binding: from :func:`resolve`.
        whole: whether these are all rows of the file. Of a part nothing is said of JSON text: for a file there is
            ``curation.prompts.texts.refuse_json_columns``.

    Raises:
        InputError: when a column of texts holds JSON text in every row.
    """
    for path in (path for paths in binding.fields.values() for path in paths):
        if whole and path in frame.columns and path not in binding.mixed:
            refuse_json_text(frame[path], name=binding.name)
    read = _READERS[binding.shape]
    fields = {field: _field_cells(frame, binding, field) for field in binding.fields if field != "system"}
    systems = [cells(frame, path, mixed=binding.mixed) for path in binding.fields.get("system", ())]
    numbers = frame[ROW].to_list() if ROW in frame.columns else list(range(frame.height))
    rows: list[tuple[Any, ...]] = []
    rejects: list[Reject] = []
    for position, number in enumerate(numbers):
        try:
            row, faults = read({field: values[position] for field, values in fields.items()})
            for said in systems:
                row = (dialogues.with_system(row[0], said[position]), *row[1:])
        except RowError as error:
            rejects.append(error.at(number))
            continue
        rows.append((number, *row))
        rejects.extend(fault.at(number) for fault in faults)
    return Normalised(_canonical(rows, SHAPES[binding.shape].schema), rejects_frame(rejects))


def normalise_pairs(frame: pl.DataFrame, *, name: str = "the frame") -> Normalised:
    """Preference pairs in any form: row, prompt, chosen, rejected."""
    return normalise(frame, resolve(frame, name=name, shapes=("pair",)))


def _field_cells(frame: pl.DataFrame, binding: Binding, field: str) -> list[Any]:
    """A field's cells; several columns are a list of answers, or the paragraphs of one text."""
    columns = [cells(frame, path, mixed=binding.mixed) for path in binding.fields[field]]
    if len(columns) == 1:
        return columns[0]
    if field in {"responses", "scores"}:
        return [list(values) for values in zip(*columns, strict=True)]
    return [_paragraphs(values) for values in zip(*columns, strict=True)]


def _paragraphs(values: Sequence[Any]) -> Any:
    """Texts as one; what is no text stays a list of all, so that the row is turned away and nothing is lost."""
    said = [v for v in values if v is not None and not (isinstance(v, str) and not v.strip())]
    if values[0] is None or not said:
        return values[0]
    if len(said) == 1:
        return said[0]
    return "\n\n".join(said) if all(isinstance(v, str) for v in said) else said


def _canonical(rows: list[tuple[Any, ...]], schema: Schema) -> pl.DataFrame:
    columns: list[tuple[Any, ...]] = list(zip(*rows, strict=True)) if rows else [()] * len(schema)
    return pl.DataFrame(
        [
            nested_series(name, list(values), dtype)
            for (name, dtype), values in zip(schema.items(), columns, strict=True)
        ]
    )


_Row = tuple[tuple[Any, ...], list[RowError]]


def _read_pair(row: dict[str, Any]) -> _Row:
    pair = dialogues.split_pair(row.get("prompt"), row["chosen"], row["rejected"], has_prompt="prompt" in row)
    return tuple(pair), []


def _read_unpaired(row: dict[str, Any]) -> _Row:
    (prompt, response), _ = _read_response(row)
    return (prompt, response, _label(row["label"])), []


def _read_response(row: dict[str, Any]) -> _Row:
    prompt = dialogues.as_prompt(row["prompt"])
    return (prompt, dialogues.as_response(row["response"], "response", prompt=prompt)), []


def _read_bare(row: dict[str, Any]) -> _Row:
    return (None, dialogues.as_response(row["response"], "response")), []


def _read_prompt(row: dict[str, Any]) -> _Row:
    return (dialogues.as_prompt(row["prompt"]),), []


def _read_messages(row: dict[str, Any]) -> _Row:
    messages = dialogues.as_dialogue(row["messages"], "messages")
    if isinstance(messages, str) or messages[-1]["role"] != "assistant":
        return (dialogues.as_prompt(row["messages"], "messages"), None), []
    before, response = dialogues.split_last(messages, "response")
    return (dialogues.as_prompt(before or None), response), []


def _read_responses(row: dict[str, Any]) -> _Row:
    """Answers at fault are left out one by one; the row goes when none is left."""
    prompt = dialogues.as_prompt(row["prompt"])
    values = row["responses"]
    if not isinstance(values, list) or not values:
        rule = "null_response" if values is None else "empty_response"
        raise RowError(rule, "responses", "there is no list of answers, or it is empty")
    scores = row.get("scores")
    if scores is not None and (not isinstance(scores, list) or len(scores) != len(values)):
        raise RowError("scores_length", "scores", f"expected one score for each of {len(values)} answers")
    kept: list[tuple[str, int, float | None]] = []
    faults: list[tuple[int, RowError]] = []
    for index, value in enumerate(values):
        try:
            text, inner_score = _answer(value, prompt)
            kept.append((text, index, score_of(scores[index]) if scores is not None else inner_score))
        except RowError as error:
            faults.append((index, error))
    if not kept:
        raise _one_a_rule(faults, len(values))[0]
    texts, indices, all_scores = (list(column) for column in zip(*kept, strict=True))
    return (prompt, texts, indices, all_scores if any(s is not None for s in all_scores) else None), _one_a_rule(
        faults, len(values)
    )


def _one_a_rule(faults: list[tuple[int, RowError]], count: int) -> list[RowError]:
    """The faults of a row's answers, those under one rule as one: a row has one reject for each rule."""
    rules = dict.fromkeys(error.rule for _, error in faults)
    found = []
    for rule in rules:
        same = [(index, error) for index, error in faults if error.rule == rule]
        reasons = dict.fromkeys(error.reason for _, error in same)
        which = f"answer{'s' if len(same) > 1 else ''} {', '.join(str(index) for index, _ in same)} of {count}"
        value = ", ".join(f"responses[{index}]" for index, _ in same)
        found.append(RowError(rule, value, f"{which}: {'; '.join(reasons)}"))
    return found


def _answer(value: Any, prompt: Sequence[Message]) -> tuple[str, float | None]:
    if isinstance(value, dict) and not {"role", "from"} & value.keys():
        key = next((key for key in _ANSWER_KEYS if key in value), None)
        if key is None:
            raise RowError("not_text", "responses", f"an answer has none of the keys {', '.join(_ANSWER_KEYS)}")
        return dialogues.as_response(value[key], "response", prompt=prompt), _inner_score(value)
    return dialogues.as_response(value, "response", prompt=prompt), None


def _inner_score(answer: Mapping[str, Any]) -> float | None:
    """The score that stands beside an answer: the mean of its aspects before an overall score."""
    keys = iter(_SCORE_KEYS)
    first = next(keys)
    if answer.get(first) is not None:
        return score_of(answer[first])
    ratings = [_rating(aspect) for aspect in _aspects(answer.get("annotations"))]
    # What could not be parsed is left out of the mean, not counted as a number.
    known = [rating for rating in ratings if rating is not None]
    if known:
        return sum(known) / len(known)
    return next((score_of(answer[key]) for key in keys if answer.get(key) is not None), None)


def _aspects(annotations: Any) -> list[Any]:
    if not isinstance(annotations, Mapping):
        return []
    return [item for aspect in annotations.values() for item in (aspect if isinstance(aspect, list) else [aspect])]


def _rating(aspect: Any) -> float | None:
    rating = aspect.get("Rating") if isinstance(aspect, Mapping) else None
    try:
        value = float(rating) if rating is not None else math.nan
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) and value >= 0 else None


def score_of(value: Any) -> float | None:
    """A score, null for none.

    Raises:
        RowError: ``non_finite_score``, ``not_a_number``.
    """
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise RowError(
            "not_a_number", "scores", f"a score is a {type(value).__name__}, expected a number"
        ) from error
    if not math.isfinite(number):
        raise RowError("non_finite_score", str(number), "a score is not a finite number")
    return number


def _label(value: Any) -> bool:
    label = LABELS.get(str(value).strip().lower()) if isinstance(value, str | bool | int | float) else None
    if label is None:
        raise RowError("unknown_label", str(value)[:32], "the label is neither true nor false")
    return label


_READERS: Final[dict[str, Callable[[dict[str, Any]], _Row]]] = {
    "pair": _read_pair,
    "unpaired": _read_unpaired,
    "responses": _read_responses,
    "response": _read_response,
    "bare": _read_bare,
    "messages": _read_messages,
    "prompt": _read_prompt,
}

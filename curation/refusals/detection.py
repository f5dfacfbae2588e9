"""``detect_refusals``: refusal columns for a frame of answers. Detectors are opened in curation/models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from curation.errors import InputError
from curation.models.protocols import RefusalDetector, RefusalScores
from curation.text import as_messages, calls_tool, last_user_text, messages_text

if TYPE_CHECKING:
    from curation.refusals.sorting import CategoryAssigner

__all__ = ["detect_refusals"]

_BATCH: Final = 16_384


def detect_refusals(
    frame: pl.DataFrame,
    *,
    response: str = "response",
    prompt: str | None = "prompt",
    detector: str | RefusalDetector = "embedded",
    taxonomy: str | CategoryAssigner | None = "sorry_bench",
) -> pl.DataFrame:
    """Tell refusals from answers.

    Args:
        frame: one answer a row.
        response: the column of answers: text, or lists of messages, of which the last is the answer.
        prompt: the column of requests, texts or lists of messages, whose last user turn is sorted into a category;
            where the frame has none, no categories are assigned.
        detector: a MODEL (a folder, a Hub id, ``embedded``) or an open detector.
        taxonomy: the name of a taxonomy, the path of a YAML file, or an open assigner, to sort the requests
            into categories; None for none.

    Returns:
        The frame with ``refusal_probability`` (of a partial or full refusal), ``refusal_class``
        (``compliance``, ``partial_refusal``, ``full_refusal``), ``refusal_kind``, ``refusal_truncated``
        (only the beginning and the end of the answer were read) and, where there is a prompt, ``refusal_category``
        (null where the request belongs to no category). Answers that are null get nulls, and so do those on which
        a judge gave no verdict that can be read, and lists whose last message calls a tool or is not the
        assistant's: nothing was said there that refuses, and nothing that answers.

    Raises:
        InputError: when a column is missing or holds something else.
        ModelError: when a detector given by name cannot be loaded.
    """
    if response not in frame.columns:
        raise InputError(
            f"column {response!r} is missing: found {', '.join(frame.columns)}; name the column of answers"
        )
    opened = _open(detector) if isinstance(detector, str) else detector
    answers = _texts(frame[response], last=True)
    prompts = _texts(frame[prompt], last=False) if prompt is not None and prompt in frame.columns else None
    known = [row for row, answer in enumerate(answers) if answer is not None]
    scores = _detect(opened, prompts, answers, known)
    place = pl.Series("row", known, dtype=pl.UInt32)
    found = pl.DataFrame(
        {
            "row": place,
            "refusal_probability": pl.Series([p for s in scores for p in s.probability], dtype=pl.Float64).fill_nan(
                None
            ),
            "refusal_class": pl.Series([c for s in scores for c in s.refusal_class], dtype=pl.String),
            "refusal_kind": pl.Series([k for s in scores for k in s.kind], dtype=pl.String),
            "refusal_truncated": pl.Series([bool(t) for s in scores for t in s.truncated], dtype=pl.Boolean),
        }
    )
    rows = pl.DataFrame({"row": pl.Series(range(frame.height), dtype=pl.UInt32)})
    columns = rows.join(found, on="row", how="left", maintain_order="left").drop("row")
    result = frame.with_columns(columns.get_columns())
    if prompt is None or prompts is None or taxonomy is None:
        return result
    return result.with_columns(_categories(_requests(frame[prompt], prompts), taxonomy))


def _open(model: str) -> RefusalDetector:
    from curation.models.refusals import open_refusal_detector

    return open_refusal_detector(model)


def _detect(
    detector: RefusalDetector,
    prompts: Sequence[str | None] | None,
    answers: Sequence[str | None],
    known: Sequence[int],
) -> list[RefusalScores]:
    scores = []
    for start in range(0, len(known), _BATCH):
        rows = known[start : start + _BATCH]
        asked = [prompts[row] if prompts is not None else None for row in rows]
        scores.append(detector.detect(asked, [answers[row] or "" for row in rows]))
    return scores


def _texts(column: pl.Series, *, last: bool) -> list[str | None]:
    """Strings as they are; of messages the last one's content, if it is an answer, or all of them joined."""
    if column.dtype in (pl.String, pl.Null):
        return column.cast(pl.String).to_list()
    texts: list[str | None] = []
    for row, value in enumerate(column.to_list()):
        texts.append(None if value is None else _message_text(value, column.name, row, last=last))
    return texts


def _requests(column: pl.Series, texts: list[str | None]) -> list[str | None]:
    """What each prompt asks: of messages the last user turn, and not the system's words before it."""
    if column.dtype in (pl.String, pl.Null):
        return texts
    return [
        None if value is None else last_user_text(as_messages(value, role="user")) for value in column.to_list()
    ]


def _message_text(value: Any, column: str, row: int, *, last: bool) -> str | None:
    if last and isinstance(value, list):
        # What was said and called before the answer is none of it.
        value = value[-1:]
        if value and not _is_said(value[0]):
            return None
    try:
        messages = as_messages(value, role="assistant" if last else "user")
    except ValueError as error:
        raise InputError(f"column {column!r}, row {row}: {error}") from None
    if last:
        return messages[-1]["content"] if messages else ""
    return messages_text(messages)


def _is_said(message: Any) -> bool:
    """Whether a message is an answer in words: not one that calls a tool, and not the user's or a tool's."""
    if not isinstance(message, Mapping):
        return True
    return not calls_tool(message) and message.get("role") in (None, "assistant")


def _categories(prompts: Sequence[str | None], taxonomy: str | CategoryAssigner) -> pl.Series:
    from curation.refusals.sorting import assign_categories

    return assign_categories(prompts, taxonomy).rename("refusal_category")

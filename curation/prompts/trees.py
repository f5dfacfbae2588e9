"""Dialogues stored a message a row, each with its parent's identifier (OpenAssistant), as prompts with answers.

Every message that the assistant replies to becomes a prompt: the dialogue down to it. Its answers are the replies.
What texts and roles may be is checked where it is for every other prompt, in ``rows``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import polars as pl

from curation.errors import InputError, closest
from curation.files import ROW, InputFile, Reject, rejects_frame
from curation.prompts.dialogues import role_of
from curation.prompts.shapes import MESSAGES_DTYPE, Binding, ColumnMap
from curation.text import ROLES
from curation.text_columns import nested_series

__all__ = ["TREE_COLUMNS", "Tree", "read_tree"]

TREE_COLUMNS: Final = {
    "message_id": "message_id", "parent_id": "parent_id", "message_text": "text", "message_role": "role",
}  # fmt: skip
"""Field to column, as OpenAssistant calls them; ``score`` has no column of its own accord."""

_ASKING: Final = tuple(role for role in ROLES if role != "assistant")
_NO_PARENT: Final = (
    "no_parent",
    "the message that it replies to is not in the file, or not the only one of its identifier",
)
_NO_USER_TURN: Final = ("no_user_turn", "it replies to another answer, not to the user")


class Tree(NamedTuple):
    """A file of messages, read."""

    frame: pl.DataFrame
    """Of each prompt with answers ROW (of its first answer), prompt, responses and scores (or none of these)."""
    binding: Binding
    rejects: pl.DataFrame
    rows_read: int
    columns: list[str]
    """Those that were read."""
    leaves: int
    """Messages that are no answer, and that nothing replies to: where a dialogue was left off, nothing is wrong."""


class _Message(NamedTuple):
    row: int
    id: str
    parent: str | None
    role: str
    text: str | None
    score: float | None


def read_tree(file: InputFile, columns: ColumnMap, *, limit: int | None) -> Tree:
    """The prompts of a file of messages, and its messages that no prompt is made of.

    Raises:
        InputError: when a column is missing or of another type.
    """
    frame = file.whole()
    frame = frame if limit is None else frame.filter(pl.col(ROW) < limit)
    paths = _paths(file, columns)
    messages, faults = _messages(frame, paths)
    by_id = {message.id: message for message in messages}
    answered: dict[str, list[_Message]] = {}
    for message in messages:
        if message.role == "assistant" and message.parent is not None:
            answered.setdefault(message.parent, []).append(message)
    made: list[tuple[int, Any, list[Any], list[Any]]] = []
    for parent, answers in answered.items():
        path = _path(by_id, parent)
        if path is None or path[-1].role == "assistant":
            rule, reason = _NO_PARENT if path is None else _NO_USER_TURN
            faults += [Reject(answer.row, rule, "parent_id", reason) for answer in answers]
            continue
        prompt = [{"role": message.role, "content": message.text} for message in path]
        made.append((answers[0].row, prompt, [a.text for a in answers], [a.score for a in answers]))
    faults += [fault for message in messages if (fault := _fault(message))]
    numbers, prompts, responses, scores = (list(column) for column in zip(*made, strict=True)) if made else [[]] * 4
    data = [
        pl.Series(ROW, numbers, dtype=pl.Int64),
        nested_series("prompt", prompts, MESSAGES_DTYPE),
        nested_series("responses", responses, pl.List(pl.String)),
        nested_series("scores", scores, pl.List(pl.Float64)),
    ]
    bound = ("prompt", "responses", *(["scores"] if "score" in columns else []))
    binding = Binding("responses", {field: (field,) for field in bound}, frozenset(), file.name)
    parents = {message.parent for message in messages}
    leaves = sum(message.role in _ASKING and message.id not in parents for message in messages)
    return Tree(pl.DataFrame(data), binding, rejects_frame(faults), frame.height, list(paths.values()), leaves)


def _paths(file: InputFile, columns: ColumnMap) -> dict[str, str]:
    paths: dict[str, str] = {}
    for field, usual in {**TREE_COLUMNS, **({"score": ""} if "score" in columns else {})}.items():
        column = columns.get(field, usual)
        if not isinstance(column, str) or column not in file.schema:
            raise InputError(
                f"{file.name}: no column {column!r}, which columns.{field} names"
                f"{closest(str(column), file.schema)}; found {', '.join(file.schema)}"
            )
        paths[field] = column
        dtype = file.schema[column]
        wrong = not dtype.is_numeric() if field == "score" else dtype not in {pl.String, pl.Int64, pl.Null}
        if column in file.mixed or (wrong and dtype != pl.Null):
            wanted = "numbers" if field == "score" else "text"
            raise InputError(f"{file.name}: column {column!r} (columns.{field}) holds {dtype}, expected {wanted}")
    return paths


def _messages(frame: pl.DataFrame, paths: Mapping[str, str]) -> tuple[list[_Message], list[Reject]]:
    """Every message once, as it stands first; those that share an identifier and differ are all rejects."""
    texts = {field: frame[column].cast(pl.String).to_list() for field, column in paths.items() if field != "score"}
    scores = frame[paths["score"]].cast(pl.Float64).to_list() if "score" in paths else [None] * frame.height
    found: dict[str, _Message] = {}
    unclear: set[str] = set()
    faults = []
    for position, row in enumerate(frame[ROW].to_list()):
        identifier = texts["message_id"][position]
        if identifier is None:
            faults.append(Reject(row, "null_message_id", "message_id", "the message has no identifier"))
            continue
        message = _Message(
            row,
            identifier,
            texts["parent_id"][position] or None,
            role_of(texts["message_role"][position] or ""),
            texts["message_text"][position],
            scores[position],
        )
        first = found.setdefault(identifier, message)
        if first is not message:
            faults.append(_repeated(row))
            if first[2:] != message[2:]:
                unclear.add(identifier)
    # Which of two messages an answer replies to cannot be told.
    faults += [_repeated(found.pop(identifier).row) for identifier in sorted(unclear)]
    return list(found.values()), faults


def _repeated(row: int) -> Reject:
    return Reject(row, "repeated_message_id", "message_id", "another message has the identifier")


def _path(by_id: Mapping[str, _Message], end: str) -> list[_Message] | None:
    """The messages from the first one down to ``end``; None where one is not there, or they go in circles."""
    path: list[_Message] = []
    above: str | None = end
    seen = set()
    while above is not None:
        if above in seen or above not in by_id:
            return None
        seen.add(above)
        path.append(by_id[above])
        above = path[-1].parent
    return path[::-1]


def _fault(message: _Message) -> Reject | None:
    """What is wrong with a message by itself. One that asks, and nobody answered, is only a leaf."""
    if message.role not in ROLES:
        return Reject(message.row, "unknown_role", message.role[:32], f"the role is none of {', '.join(ROLES)}")
    if message.role == "assistant" and message.parent is None:
        return Reject(message.row, "null_prompt", "parent_id", "an answer that replies to no message")
    return None

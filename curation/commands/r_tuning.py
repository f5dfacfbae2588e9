"""``curation refusals r-tuning``: sure and unsure questions from a file of answers. No model is called."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

import polars as pl

from curation.candidates.verifiers import EXACT_MATCH
from curation.commands.streams import Stream, open_stream
from curation.errors import InputError, closest
from curation.files import ROW
from curation.refusals.certainty import r_tuning
from curation.text import as_messages

__all__ = ["run_r_tuning"]

_ANSWERS: Final = ("answers", "responses", "response")
_FAMILY: Final = "family_id"
_TEXTS: Final = pl.List(pl.String)
_NOT_TEXT: Final = "not_text"
_ADDED: Final = ("certainty", "stated", "target", "answers_read")


def run_r_tuning(
    input: str | Path,
    output: str | Path,
    *,
    by: Literal["correctness", "entropy"] = "correctness",
    answers: str | None = None,
    gold: str = "gold",
    verifier: str = EXACT_MATCH,
    max_entropy: float | None = None,
    min_answers: int = 3,
) -> str:
    """Add ``certainty``, ``stated``, ``target``, ``answers_read`` and what the certainty was told by.

    The whole file is read at once, for the half of the questions is sought.

    Args:
        input: a file with the model's own answers (a text or a list, the greedy one first) and, for correctness,
            the right ones; ``prompt`` or ``messages`` are shown to a verifier of the user's. Of rows of
            one ``family_id`` the first has the vote where the half is sought.
        output: the file to write.
        answers: the column of answers; by default the first there is of ``answers``, ``responses``, ``response``.
        by, gold, verifier, max_entropy, min_answers: see :func:`curation.refusals.certainty.r_tuning`.

    Returns:
        The summary for the user.

    Raises:
        InputError: when the file, a column or the verifier is wrong.
        ModelError: when a verifier does not return a truth value for each answer.
    """
    measure = "answer_correct" if by == "correctness" else "answer_entropy"
    counts: dict[str, int] = {}
    limit: float | None = None
    with open_stream(input, output, chunk_rows=None) as stream:
        column = answers or next((name for name in _ANSWERS if name in stream.source.schema), _ANSWERS[0])
        for _ in stream.chunks():
            asked = _questions(stream, column, gold, needs_gold=by == "correctness")
            found = r_tuning(
                asked,
                by=by,
                verifier=verifier,
                max_entropy=max_entropy,
                min_answers=min_answers,
                family=_FAMILY if _FAMILY in asked.columns else None,
            )
            stream.write(found.frame.select("row", *_ADDED, measure))
            place = asked["row"].gather(found.rejects["row"])
            stream.reject_frame(found.rejects.with_columns(row=place, value=pl.col("value").fill_null("")))
            counts = dict(found.frame["certainty"].value_counts().sort("certainty").iter_rows())
            if by == "entropy":
                limit = found.frame.filter(certainty="sure")["answer_entropy"].max()  # type: ignore[assignment]
    lines = [stream.summary(), ", ".join(f"{name} {count:,}" for name, count in counts.items()) or "no questions"]
    if limit is not None:
        lines.append(f"sure up to an entropy of {limit:.4f} nats")
    return "\n".join(lines)


def _questions(stream: Stream, answers: str, gold: str, *, needs_gold: bool) -> pl.DataFrame:
    """``row``, ``answers``, ``gold``, ``messages``: what there is of them, in the order of the file.

    Rows whose answers or right answer are no texts are rejected.
    """
    rows = stream.originals
    found = [rows[ROW].alias("row"), _texts(stream, answers).alias("answers")]
    found += [rows[_FAMILY]] if _has_families(rows) else []
    if needs_gold or gold in rows.columns:
        found.append(_texts(stream, gold).alias("gold"))
    shown = next((name for name in ("messages", "prompt") if name in rows.columns), None)
    if shown is not None:
        found.append(pl.Series("messages", [_messages(value) for value in rows[shown].to_list()]))
    wrong = stream.rejects().filter(rule=_NOT_TEXT)["row"].implode()
    return pl.DataFrame(found).filter(~pl.col("row").is_in(wrong))


def _has_families(rows: pl.DataFrame) -> bool:
    return _FAMILY in rows.columns and not rows.schema[_FAMILY].is_nested()


def _texts(stream: Stream, column: str) -> pl.Series:
    """A column of texts or of lists of texts; numbers as they are written."""
    rows, name = stream.originals, stream.source.name
    if column not in rows.columns:
        there = [c for c in rows.columns if c != ROW]
        raise InputError(f"{name}: no column {column!r}{closest(column, there)}; found {', '.join(there)}")
    values = rows[column]
    kind = values.dtype
    if column in stream.source.mixed:
        return pl.Series([*_texts_of_cells(stream, column)], dtype=_TEXTS)
    of = kind.inner if isinstance(kind, pl.List) else kind
    if not (of in (pl.String, pl.Null) or of.is_numeric()):
        raise InputError(f"{name}: column {column!r} holds {kind}, expected texts or lists of texts")
    return values.cast(_TEXTS if isinstance(kind, pl.List) else pl.String)


def _texts_of_cells(stream: Stream, column: str) -> Iterator[list[str | None] | None]:
    """The texts in JSON text: of a column in which some rows hold a text or a number, and others a list."""
    for row, cell in stream.originals.select(ROW, column).iter_rows():
        value = None if cell is None else json.loads(cell)
        parts = value if isinstance(value, list) else [value]
        if all(isinstance(part, str | int | float | None) and not isinstance(part, bool) for part in parts):
            yield None if value is None else [None if part is None else str(part) for part in parts]
        else:
            stream.reject(row, _NOT_TEXT, column, "neither a text, a number nor a list of them")
            yield None


def _messages(value: object) -> list[dict[str, str]]:
    try:
        return [dict(message) for message in as_messages(value)]
    except ValueError:
        return []

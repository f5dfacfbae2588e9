"""What a column holds where its name leaves it open: texts, labels, system messages. Shapes are in ``shapes``."""

from __future__ import annotations

from typing import Final

import polars as pl

from curation.errors import InputError
from curation.files import InputFile

__all__ = ["LABELS", "SYSTEM", "are_labels", "are_verdicts", "first_rows", "is_said", "is_text", "known_labels"]

LABELS: Final = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}
"""What a label may be as text."""

SYSTEM: Final = ("system", "system_prompt")
"""Names of columns of system messages, or of what wrote the answers."""

_VERDICT: Final = pl.col("label").str.strip_chars(' \t\r\n"').str.to_lowercase().is_in(list(LABELS))


def first_rows(source: InputFile) -> pl.DataFrame:
    """The head of a file for :func:`resolve`, with the rows by which columns ``system`` and ``label`` are told."""
    head = source.head()
    for column in SYSTEM:
        if source.schema.get(column) == pl.String and not is_said(head[column]):
            head = _with_first(head, source, pl.col(column).str.strip_chars().str.contains(r"\s"))
    if source.schema.get("label") == pl.String:
        # What most of the file's labels are; the others are no matter of the head's, wherever they stand.
        known = [frame.select(_VERDICT.sum(), all=pl.col("label").count()) for frame in source.chunks()]
        verdicts, labels = pl.concat(known).sum().row(0) if known else (0, 0)
        usual = _VERDICT.eq(2 * verdicts > labels)
        head = _with_first(head, source, usual).with_columns(pl.when(usual).then("label").alias("label"))
    return head


def _with_first(head: pl.DataFrame, source: InputFile, where: pl.Expr) -> pl.DataFrame:
    """The head, and the first row of the file of which something holds, where it holds of none of the head's."""
    if head.filter(where).height:
        return head
    told = (rows for frame in source.chunks() if (rows := frame.filter(where).head(1)).height)
    return pl.concat([head, next(told, head.clear())])


def is_said(column: pl.Series) -> bool:
    """Whether a column named ``system`` can hold system messages: it may as well name what wrote the answers."""
    if column.dtype not in {pl.String, pl.Null}:
        return False
    said = column.drop_nulls().cast(pl.String).str.strip_chars()
    said = said.filter(said != "")
    return said.is_empty() or bool(said.str.contains(r"\s").any())


def are_labels(frame: pl.DataFrame, column: str, mixed: frozenset[str]) -> bool:
    """Whether a column named ``label`` says good or bad: one of texts may as well hold categories."""
    if column not in frame.columns:
        return True
    if column not in mixed and not isinstance(frame.schema[column], pl.String):
        return not isinstance(frame.schema[column], pl.List)
    return are_verdicts(frame[column])


def are_verdicts(labels: pl.Series) -> bool:
    said = {str(label).strip().strip('"').lower() for label in labels.drop_nulls()}
    return bool(said) and said <= LABELS.keys()


def known_labels(labels: pl.Series) -> pl.Series:
    """Whether each label is right, null where nobody knows: Booleans, 0 and 1, or the words true and false.

    Raises:
        InputError: for anything else.
    """
    if labels.dtype in (pl.Boolean, pl.Null):
        return labels.cast(pl.Boolean)
    words = labels.cast(pl.String, strict=False).str.strip_chars(' "').str.to_lowercase()
    words = words.replace({"": None, "null": None, "nan": None})
    known = words.replace_strict(LABELS, default=None, return_dtype=pl.Boolean)
    wrong = words.filter(words.is_not_null() & known.is_null())
    if len(wrong):
        raise InputError(f"column {labels.name!r} holds {wrong[0][:40]!r}, expected true, false or nothing")
    return known.alias(labels.name)


def is_text(dtype: pl.DataType) -> bool:
    inner = dtype.inner if isinstance(dtype, pl.List) else dtype
    return (
        dtype in {pl.String, pl.Null, pl.Categorical} or isinstance(dtype, pl.Enum) or isinstance(inner, pl.Struct)
    )

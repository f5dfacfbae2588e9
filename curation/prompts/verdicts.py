"""Pairs whose better answer is named in a column of its own: ``labels`` of SHP, ``winner`` of an arena.

The recipe says which value names which column, so nothing is guessed from a number. Columns that already are called
chosen and rejected, and votes of several people, are not for this module.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import polars as pl

from curation.files import Reject, RowError, rejects_frame
from curation.prompts.column_kinds import LABELS

__all__ = ["TIE", "Verdicts", "verdict_key", "verdicts_of", "with_verdicts"]

TIE: Final = "tie"


class Verdicts(NamedTuple):
    """The two columns of answers, and which of them a value calls the better one (or :data:`TIE`)."""

    column: str
    first: str
    second: str
    values: dict[str, str]
    only_if: dict[str, str] = {}  # noqa: RUF012
    """A column of answers to the one that must be true where its answer is the better one."""

    @property
    def columns(self) -> list[str]:
        """Those that are read beside the answers."""
        return list(dict.fromkeys([self.column, *self.only_if.values()]))


def verdicts_of(column: str, values: Mapping[str, str], only_if: Mapping[str, str] | None = None) -> Verdicts:
    """
    Raises:
        ValueError: when the values do not name exactly two columns of answers, or ``only_if`` another one.
    """
    answers = list(dict.fromkeys(name for name in values.values() if name != TIE))
    if len(answers) != 2:
        raise ValueError(
            f"expected values that name two columns of answers (and {TIE!r}), such as {{1: human_ref_A, 0: "
            f"human_ref_B}}, found {len(answers)}"
        )
    for name in only_if or ():
        if name not in answers:
            raise ValueError(f"only_if: {name!r} is no column of answers: values name {' and '.join(answers)}")
    verdicts = {verdict_key(key): name for key, name in values.items()}
    return Verdicts(column, answers[0], answers[1], verdicts, dict(only_if or {}))


def verdict_key(value: Any) -> str:
    """A value as the recipe and the file both write it: 1, 1.0 and "1" are one, true is true."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value).strip()
    return text.lower() if text.lower() in {"true", "false"} else text


def with_verdicts(
    pairs: pl.DataFrame, verdicts: Verdicts, said: Mapping[int, Mapping[str, Any]], seen: Counter[str]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Pairs read with the first column as chosen, turned as the file says; what says neither is a reject.

    Args:
        pairs: row, prompt, chosen, rejected.
        said: by row the cells of the verdicts' columns.
        seen: counts what each value gave, for the run's facts.
    """
    better: list[str | None] = []
    faults: list[Reject] = []
    for row in pairs["row"].to_list():
        cells = said[row]
        found = _better(verdicts, cells[verdicts.column])
        seen[found or "unknown"] += 1
        fault = _fault(verdicts, found, cells)
        faults += [] if fault is None else [fault.at(row)]
        better.append(found if fault is None else None)
    known = pairs.with_columns(pl.Series("better", better, dtype=pl.String)).drop_nulls("better")
    turned = pl.col("better") == verdicts.second
    kept = known.with_columns(
        chosen=pl.when(turned).then("rejected").otherwise("chosen"),
        rejected=pl.when(turned).then("chosen").otherwise("rejected"),
    )
    return kept.drop("better"), rejects_frame(faults)


def _better(verdicts: Verdicts, cell: Any) -> str | None:
    """Which column is better; several people's answers in one cell count where all say the same."""
    cells: Sequence[Any] = cell if isinstance(cell, list) and cell else [cell]
    found = {verdicts.values.get(verdict_key(one)) for one in cells}
    if None in found:
        return None
    return found.pop() if len(found) == 1 else TIE


def _fault(verdicts: Verdicts, found: str | None, cells: Mapping[str, Any]) -> RowError | None:
    """Why a row makes no pair."""
    if found is None:
        wanted = ", ".join(verdicts.values)
        value = str(cells[verdicts.column])[:32]
        return RowError("unknown_label", value, f"{verdicts.column} is none of {wanted}")
    if found == TIE:
        reason = "the file calls neither answer better, or those who were asked disagree"
        return RowError("tied_label", verdicts.column, reason)
    column = verdicts.only_if.get(found)
    if column is None:
        return None
    fit = LABELS.get(verdict_key(cells[column]).lower())
    if fit is None:
        return RowError("unknown_label", str(cells[column])[:32], f"{column} is neither true nor false")
    return None if fit else RowError("unfit_chosen", column, f"{found} is better, and {column} is false")

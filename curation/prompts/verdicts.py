"""Pairs whose better answer is named in a column of its own: ``labels`` of SHP, ``winner`` of an arena.

The recipe says which value names which column, so nothing is guessed from a number. Columns that already are called
chosen and rejected, and votes of several people, are not for this module.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import polars as pl

from curation.files import Reject, rejects_frame

__all__ = ["TIE", "Verdicts", "verdict_key", "verdicts_of", "with_verdicts"]

TIE: Final = "tie"


class Verdicts(NamedTuple):
    """The two columns of answers, and which of them a value calls the better one (or :data:`TIE`)."""

    column: str
    first: str
    second: str
    values: dict[str, str]


def verdicts_of(column: str, values: Mapping[str, str]) -> Verdicts:
    """
    Raises:
        ValueError: when the values do not name exactly two columns of answers.
    """
    answers = list(dict.fromkeys(name for name in values.values() if name != TIE))
    if len(answers) != 2:
        raise ValueError(
            f"expected values that name two columns of answers (and {TIE!r}), such as {{1: human_ref_A, 0: "
            f"human_ref_B}}, found {len(answers)}"
        )
    return Verdicts(column, answers[0], answers[1], {verdict_key(key): name for key, name in values.items()})


def verdict_key(value: Any) -> str:
    """A value as the recipe and the file both write it: 1, 1.0 and "1" are one, true is true."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value).strip()
    return text.lower() if text.lower() in {"true", "false"} else text


def with_verdicts(
    pairs: pl.DataFrame, verdicts: Verdicts, said: Mapping[int, Any], seen: Counter[str]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Pairs read with the first column as chosen, turned as the file says; ties and unknown values are rejects.

    Args:
        pairs: row, prompt, chosen, rejected.
        said: the cell of the verdicts' column by row.
        seen: counts what each value gave, for the run's facts.
    """
    better: list[str | None] = []
    faults: list[Reject] = []
    for row in pairs["row"].to_list():
        found, reason = _better(verdicts, said[row])
        seen[found or "unknown"] += 1
        better.append(found)
        if found is None:
            value = str(said[row])[:32]
            wanted = ", ".join(verdicts.values)
            faults.append(Reject(row, "unknown_label", value, f"{verdicts.column} {reason} {wanted}"))
        elif found == TIE:
            faults.append(
                Reject(
                    row,
                    "tied_label",
                    verdicts.column,
                    "the file calls neither answer better, or those who were asked disagree",
                )
            )
    frame = pairs.with_columns(pl.Series("better", better, dtype=pl.String))
    turned = pl.col("better") == verdicts.second
    kept = frame.filter(pl.col("better").is_in([verdicts.first, verdicts.second])).with_columns(
        chosen=pl.when(turned).then("rejected").otherwise("chosen"),
        rejected=pl.when(turned).then("chosen").otherwise("rejected"),
    )
    return kept.drop("better"), rejects_frame(faults)


def _better(verdicts: Verdicts, cell: Any) -> tuple[str | None, str]:
    """Which column is better; several people's answers in one cell count where all say the same."""
    cells: Sequence[Any] = cell if isinstance(cell, list) and cell else [cell]
    found = {verdicts.values.get(verdict_key(one)) for one in cells}
    if None in found:
        return None, "is none of"
    return (found.pop() if len(found) == 1 else TIE), ""

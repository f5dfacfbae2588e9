"""The sheet that people fill in: its columns, and reading it back. Drawing the answers is in ``estimation``."""

from __future__ import annotations

import re
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from curation.errors import InputError
from curation.files import ROW
from curation.files.spreadsheets import cell_text

__all__ = [
    "DRAWN_WITH",
    "LINE",
    "SHEET_COLUMNS",
    "as_filled_in",
    "counts_lines",
    "drawn_for",
    "for_people",
    "line_of",
    "numbered",
    "read_sheet",
]

FloatArray = npt.NDArray[np.float64]
LINE: Final = "sheet_line"
DRAWN_WITH: Final = "sampling_probability"
_NEEDED: Final = ("row", "label", DRAWN_WITH)
SHEET_COLUMNS: Final = (*_NEEDED, LINE)
_OF: Final = re.compile(r"\s*(\d+) of (\d+)\s*")
_NAMED: Final = 8
"""Missing lines that an error names."""
_ANSWERS: Final = ("response", "messages")
_READ: Final = ("prompt", "messages", "response")
_NUMBERS: Final = (DRAWN_WITH, "refusal_probability")


def numbered(sheet: pl.DataFrame) -> pl.DataFrame:
    """The sheet with ``sheet_line``, "7 of 40": what is missing later is seen by it."""
    place = pl.int_range(1, pl.len() + 1)
    return sheet.with_columns(pl.format("{} of {}", place, pl.len()).alias(LINE))


def for_people(sheet: pl.DataFrame) -> pl.DataFrame:
    """The sheet with what people read and fill in before what the detector says, which must not lead them."""
    first = [name for name in (LINE, "label", *_READ) if name in sheet.columns]
    return sheet.select(*first, pl.exclude(first))


def as_filled_in(sheet: pl.DataFrame) -> pl.DataFrame:
    """The sheet as it was meant: spreadsheets leave lines of empty cells behind, and some write 0,5 for 0.5."""
    filled = pl.any_horizontal(
        pl.col(name).cast(pl.String).str.strip_chars().str.len_chars().fill_null(0) > 0
        for name, dtype in sheet.schema.items()
        if name != ROW and not dtype.is_nested()
    )
    texts = [name for name in ("label", *_NUMBERS) if sheet.schema.get(name) == pl.String]
    clean = sheet.filter(filled).with_columns(pl.col(texts).str.strip_chars().replace("", None))
    for name in set(texts) & set(_NUMBERS):
        number = clean[name].str.replace(",", ".", literal=True).cast(pl.Float64, strict=False)
        if number.null_count() == clean[name].null_count():
            clean = clean.with_columns(number.alias(name))
    return clean


def drawn_for(known: pl.DataFrame) -> FloatArray | None:
    """How many answers each labelled one stands for; None where nobody drew them."""
    if DRAWN_WITH not in known.columns:
        return None
    chance = known[DRAWN_WITH].cast(pl.Float64, strict=False).to_numpy()
    bad = np.flatnonzero(~((chance > 0) & (chance <= 1)))  # null is NaN here
    if len(bad):
        raise InputError(
            f"column {DRAWN_WITH!r} holds {known[DRAWN_WITH][int(bad[0])]!r} beside a label: leave it as it was "
            "drawn, or take the column out where every answer was labelled"
        )
    return np.asarray(1 / chance)


def counts_lines(sheet: pl.DataFrame) -> bool:
    """Whether the sheet says how many lines it had when it was drawn."""
    return LINE in sheet.columns


def line_of(cell: object) -> tuple[int, int]:
    """Which line of how many ``sheet_line`` names.

    Raises:
        InputError: when it was changed.
    """
    found = _OF.fullmatch(str(cell))
    if found is None:
        raise InputError(f"the sheet's {LINE} {cell!r} was changed: leave it as it was drawn")
    return int(found[1]), int(found[2])


def read_sheet(frame: pl.DataFrame, sheet: pl.DataFrame) -> tuple[FloatArray, FloatArray]:
    """Labels (NaN where there is none) and sampling probabilities (1 there) of a frame's rows.

    Raises:
        InputError: when a column or a line is missing, a label is neither 0 nor 1, or the sheet is not of this
            frame.
    """
    missing = [name for name in _NEEDED if name not in sheet.columns]
    if missing:
        raise InputError(f"the sheet has no column {missing[0]!r}: it must come from sample-for-labelling")
    labels, pi = np.full(frame.height, np.nan), np.ones(frame.height)
    for row, label, share in sheet.select(_NEEDED).iter_rows():
        if label is None:
            raise InputError(f"the sheet's row {row} has no label: fill in 0 (answers) or 1 (refuses) in every row")
        if label not in (0, 1, "0", "1"):
            raise InputError(f"the sheet's row {row} has label {label!r}: expected 0 (answers) or 1 (refuses)")
        if not isinstance(row, int) or not isinstance(share, int | float) or not 0 < share <= 1:
            raise InputError(
                f"the sheet's row {row!r} has sampling_probability {share!r}: leave both columns as they were drawn"
            )
        if not 0 <= row < frame.height:
            raise InputError(f"the sheet names row {row}, and the file has {frame.height} rows")
        if not np.isnan(labels[row]):
            raise InputError(f"the sheet names row {row} twice: keep one of the two")
        labels[row], pi[row] = float(label), float(share)
    if counts_lines(sheet):
        _check_lines(sheet[LINE].to_list())
    _check_answers(frame, sheet)
    return labels, pi


def _check_lines(lines: list[object]) -> None:
    """Every line that was drawn is there: one that was taken out would pass for an answer that was not drawn."""
    places = [line_of(line) for line in lines]
    totals = sorted({total for _, total in places})
    if len(totals) > 1 or len(set(places)) < len(places):
        raise InputError("the sheet holds lines of several draws: give the sheet of one")
    missing = sorted(set(range(1, totals[0] + 1)) - {place for place, _ in places}) if totals else []
    if missing:
        named = ", ".join(map(str, missing[:_NAMED])) + (" …" if len(missing) > _NAMED else "")
        raise InputError(
            f"the sheet has {len(lines):,} of its {totals[0]:,} lines, without {LINE} {named}: rates would be "
            "biased; put them back with their labels, or draw a new sheet"
        )


def _check_answers(frame: pl.DataFrame, sheet: pl.DataFrame) -> None:
    drawn = sheet["row"].to_list()
    for name in _ANSWERS:
        if name not in frame.columns or name not in sheet.columns:
            continue
        if frame[name].dtype.is_nested() and frame[name].dtype != sheet[name].dtype:
            # A spreadsheet has texts alone.
            continue
        pairs = zip(drawn, sheet[name].to_list(), frame[name].gather(drawn).to_list(), strict=True)
        for row, labelled, here in pairs:
            if _plain(labelled) not in (_plain(here), _plain(cell_text(str(here)))):
                raise InputError(
                    f"row {row} has another answer in the sheet than in the file: the file was sorted or changed "
                    "since, or the sheet's columns were; give the file that the sheet was drawn from"
                )


def _plain(answer: object) -> str:
    """Without the white space that a spreadsheet changes, and the apostrophe before what it would not keep."""
    return "".join(str(answer).split()).lstrip("'") if answer is not None else ""

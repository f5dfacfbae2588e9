"""``curation refusals sample-for-labelling``, ``rate``, ``calibrate``: what people's labels say of a detector.

Detecting is in ``refusals``. Rows that cannot be read are told and, where a file is written, in its rejects.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import polars as pl

from curation.errors import InputError
from curation.files import (
    ROW,
    Reject,
    check_output,
    open_input,
    read_frame,
    rejects_frame,
    rejects_path,
    write_frame,
    write_rejects,
    write_whole,
)
from curation.files.spreadsheets import cut_for_cells, spreadsheet_bytes, text_cells
from curation.models.identity import EMBEDDED
from curation.models.refusals import refusal_fingerprint
from curation.prompts.texts import mixed_as_text
from curation.refusals.calibrated import CALIBRATED, FittedCalibration, fit_stored, need_column
from curation.refusals.detection import detect_refusals
from curation.refusals.estimation import labelled_rates, sample_for_labelling
from curation.refusals.sheets import DRAWN_WITH, as_filled_in, counts_lines, for_people
from curation.text import messages_text

__all__ = [
    "RatesDone",
    "rates_text",
    "run_calibrate",
    "run_refusals_rate",
    "run_sample_for_labelling",
]

_WEIGHTED: Final = [
    f"each answer counts for those that it was drawn for ({DRAWN_WITH}), in the fit and in every figure"
]
_SAID: Final = frozenset({"prompt", "response", "messages"})
"""What people read in a sheet: plain texts, also where the file has texts in some rows and messages in others."""


def run_calibrate(
    input: str | Path,
    output: str | Path,
    *,
    label: str = "label",
    model: str = EMBEDDED,
    taxonomy: str | None = None,
) -> str:
    """Fit a calibration to a labelled file and write it as JSON; returns what to tell the user.

    Rows that cannot be read and answers without a verdict go to the rejects. In a sheet, which has the probability
    of each draw, an answer counts for those that it was drawn for.

    Args:
        input: a file with a column of labels, and ``refusal_probability`` (from ``run_refusals``) or ``response``.
        output: the file to write.
        label: the column of labels.
        model: what detects where there are no probabilities yet; else the detector that they are of, unless the
            column ``refusal_detector`` says it.
        taxonomy: what requests are sorted into where nothing was detected yet: a name or a YAML file, ``none`` for
            no categories; None for sorry_bench.

    Raises:
        InputError: when a column is missing, a label is neither 0 nor 1 nor empty, the probabilities are calibrated
            already, or a taxonomy is given for answers that are detected and sorted already.
    """
    target = Path(output)
    if target.suffix != ".json":
        raise InputError(f"{target}: a calibration is written as .json")
    frame, unread = read_frame(input)
    frame = as_filled_in(frame) if DRAWN_WITH in frame.columns else frame
    need_column(frame, label)
    detector = _detector_of(frame, input) or refusal_fingerprint(model)
    frame = _detected(frame, input, model=model, taxonomy=taxonomy)
    fitted = fit_stored(frame, label=label, detector=detector)
    silent = frame.filter(pl.col(label).is_not_null() & pl.col("refusal_probability").is_null())[ROW]
    reason = "the answer is labelled, and there is no verdict on it"
    rejects = [*unread, *(Reject(row, "no_verdict", "refusal_probability", reason) for row in silent)]
    with write_whole(target) as file:
        file.write(fitted.stored.to_json().encode())
    told = _told_rejects(rejects, target)
    told += _WEIGHTED if DRAWN_WITH in frame.columns else []
    return "\n".join([*_fit_text(fitted, frame[label]), *told, f"written to {target}"])


def _detected(frame: pl.DataFrame, name: str | Path, *, model: str, taxonomy: str | None) -> pl.DataFrame:
    if "refusal_probability" in frame.columns:
        if taxonomy is not None:
            raise InputError(
                f"{name} was detected already, and its categories are in refusal_category: leave out --taxonomy or "
                "detect it anew with `curation refusals --taxonomy`"
            )
        return frame
    mixed = sorted(open_input(name).mixed & {"response", "prompt"})
    if mixed:
        raise InputError(
            f"{name}: column {mixed[0]!r} holds values of several types: detect it with `curation refusals` first"
        )
    sorted_by = None if taxonomy == "none" else taxonomy or "sorry_bench"
    return detect_refusals(frame, detector=model, taxonomy=sorted_by)


def _detector_of(frame: pl.DataFrame, name: str | Path) -> str | None:
    """The detector of a file's probabilities, where it says; they must be one's, and not calibrated already."""
    if "refusal_probability" not in frame.columns or "refusal_detector" not in frame.columns:
        return None
    known = frame["refusal_detector"].cast(pl.String).drop_nulls().unique().sort().to_list()
    if len(known) > 1:
        raise InputError(
            f"{name}: the probabilities are of {len(known)} detectors ({', '.join(known)}): give one's"
        )
    if known and CALIBRATED in known[0]:
        raise InputError(
            f"{name}: its probabilities are calibrated already, and a calibration goes with a detector's own: "
            "detect the answers anew without --calibration"
        )
    return str(known[0]) if known else None


def _fit_text(fitted: FittedCalibration, labels: pl.Series) -> list[str]:
    table = fitted.by_category.filter("own")
    refuse, unlabelled = int(fitted.by_category["refusals"].sum()), labels.null_count()
    rest = f"; {unlabelled:,} rows have no label and were not used" if unlabelled else ""
    lines = [
        f"fitted to {int(fitted.by_category['rows'].sum()):,} labelled answers, {refuse:,} of which refuse{rest}",
        f"calibration error {fitted.error_before:.3f} before, {fitted.error_after:.3f} after (on the rows it was "
        f"fitted to); threshold {fitted.stored.threshold:.2f}",
        "1 category has a threshold of its own"
        if table.height == 1
        else f"{table.height} categories have a threshold of their own, largest minus smallest {fitted.spread:.2f}",
    ]
    lines += [
        f"{name or 'no category'}: {rows:,} rows, threshold {threshold:.2f}, accuracy {own:.1%}, "
        f"{common:.1%} at the common one"
        for name, rows, threshold, own, common in table.select(
            "category", "rows", "threshold", "accuracy", "accuracy_at_common"
        ).iter_rows()
    ]
    return lines


def run_sample_for_labelling(input: str | Path, output: str | Path, *, size: int, seed: int = 0) -> str:
    """Draw about ``size`` answers of a file that ``run_refusals`` wrote, as a sheet to fill in.

    Returns:
        What to tell the user.

    Raises:
        InputError: when the file lacks ``refusal_probability``, the size does not fit, or the output is the input
            or a sheet that somebody has begun to fill in.
    """
    target = check_output(output, also=(".csv",))
    if not str(input).startswith("hf://") and Path(input).resolve() in (
        target.resolve(),
        rejects_path(target).resolve(),
    ):
        raise InputError(f"output {target} or its rejects would take the place of the input: give another name")
    _spare_labels(target)
    source = open_input(input)
    frame, unread = source.whole(), source.rejects
    said = source.mixed & _SAID
    sheet = sample_for_labelling(mixed_as_text(frame, said).drop(ROW), size=size, seed=seed)
    told = _told_rejects(unread, target)
    if target.suffix == ".csv":
        shown = _readable(sheet)
        with write_whole(target) as file:
            file.write(spreadsheet_bytes(for_people(text_cells(shown, _SAID))))
        if cut := cut_for_cells(shown, _SAID):
            told.append(f"{cut:,} are too long for a cell: the sheet has their beginning and end")
    else:
        write_frame(for_people(sheet), target, mixed=source.mixed - said)
    about = "" if sheet.height == size else f" (each by a chance of its own, {size:,} on average)"
    drawn = f"{sheet.height:,} answers{about} drawn into {target}: fill in label with 0 (answers) or 1 (refuses)"
    return "\n".join([drawn, *told])


def _readable(sheet: pl.DataFrame) -> pl.DataFrame:
    """Dialogues as texts with who says what."""
    turns = pl.List(pl.Struct({"role": pl.String, "content": pl.String}))
    dialogues = [n for n in sorted(_SAID & set(sheet.columns)) if sheet.schema[n] == turns]
    return sheet.with_columns(
        pl.Series(n, [None if m is None else messages_text(m) for m in sheet[n].to_list()], dtype=pl.String)
        for n in dialogues
    )


def _spare_labels(target: Path) -> None:
    """What people have labelled is never written over."""
    if not target.is_file() or not target.stat().st_size:
        return
    try:
        before, _ = read_frame(target)
    except InputError as error:
        raise InputError(
            f"output {target} is there, and whether it holds labels cannot be told ({error}): give another name"
        ) from None
    labelled = before["label"].count() if "label" in before.columns else 0
    if labelled:
        raise InputError(f"output {target} is a sheet with {labelled:,} labels: give another name, or remove it")


class RatesDone(NamedTuple):
    """What the command found."""

    rates: pl.DataFrame
    """See ``labelled_rates``."""
    summary: str
    """For the user."""


def run_refusals_rate(input: str | Path, sheet: str | Path, *, by: str | None = None) -> RatesDone:
    """Refusal rates with 95 % intervals from a detected file and its filled-in sheet.

    Raises:
        InputError: when a column is missing, a label is neither 0 nor 1, or the sheet is not whole.
    """
    source = open_input(input)
    frame, unread = mixed_as_text(source.whole(), source.mixed).drop(ROW), source.rejects
    labels, torn = read_frame(sheet)
    labels = as_filled_in(labels)
    if torn:
        row, rule, value, reason = torn[0]
        raise InputError(f"{sheet}: row {row} cannot be read ({rule}, {value}): {reason}; every line is needed")
    rates = labelled_rates(frame, labels, by=by)
    lines = [rates_text(rates)]
    if unread:
        lines.append(f"{len(unread):,} rows of {input} cannot be read ({_counts(unread)}) and count in no rate")
    if not counts_lines(labels):
        lines.append(f"{sheet} has no column sheet_line: whether lines of it are missing cannot be told")
    return RatesDone(rates, "\n".join(lines))


def rates_text(rates: pl.DataFrame) -> str:
    """Rates as lines of text."""
    columns = ("group", "rows", "labelled", "detector_rate", "rate", "low", "high")
    lines = []
    for name, rows, labelled, raw, rate, low, high in rates.select(columns).iter_rows():
        estimate = "too few labels" if rate is None else _estimate(rate, low, high)
        title = name if name is not None else "all"
        lines.append(f"{title}: {estimate}; {rows:,} answers, {labelled:,} labelled, the detector alone {raw:.1%}")
    return "\n".join(lines)


def _estimate(rate: float, low: float, high: float) -> str:
    """A rate and its interval as far as there are rates; what was cut away is told."""
    shown, bottom, top = (min(max(value, 0.0), 1.0) for value in (rate, low, high))
    text = f"{shown:.1%} (95 % interval {bottom:.1%} to {top:.1%}"
    if (bottom, top) == (low, high):
        return f"{text})"
    return f"{text}, cut to 0 to 100 %: {rate:.1%}, {low:.1%} to {high:.1%} as estimated)"


def _told_rejects(rejects: Sequence[Reject], output: Path) -> list[str]:
    """Writes the rejects beside the output; how many there are, in words."""
    beside = rejects_path(output)
    write_rejects(rejects_frame(rejects), beside)
    return [f"{len(rejects):,} rejected ({_counts(rejects)}): {beside}"] if rejects else []


def _counts(rejects: Sequence[Reject]) -> str:
    found = rejects_frame(rejects)["rule"].value_counts(sort=True).sort("count", "rule", descending=[True, False])
    return ", ".join(f"{rule} {count:,}" for rule, count in found.iter_rows())

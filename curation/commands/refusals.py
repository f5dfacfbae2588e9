"""``curation refusals``: refusal columns for a file of answers; sampling for labelling; rates from labels."""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

import polars as pl

from curation.commands.streams import open_stream
from curation.errors import InputError
from curation.files import ROW, check_output, read_frame, write_frame, write_whole
from curation.models.identity import EMBEDDED
from curation.models.protocols import RefusalDetector
from curation.models.refusals import refusal_fingerprint
from curation.progress import StepProgress
from curation.refusals.calibrated import apply_calibration, fit_stored, load_calibration
from curation.refusals.detection import detect_refusals
from curation.refusals.estimation import labelled_rates, sample_for_labelling
from curation.refusals.requests import RequestModel, detect_requests, open_request_model
from curation.refusals.taxonomy import CategoryAssigner, open_assigner
from curation.text import messages_text
from schemas.refusals import REFUSAL_CLASSES

__all__ = [
    "RefusalsDone",
    "rates_text",
    "run_calibrate",
    "run_refusals",
    "run_refusals_rate",
    "run_sample_for_labelling",
]

_SHAPES: Final = ("response", "messages", "bare")
_CHUNK_ROWS: Final = 8_192
_TRUNCATED: Final = "refusal_truncated"


class RefusalsDone(NamedTuple):
    """What the command did."""

    rows: int
    rejected: dict[str, int]
    classes: dict[str, int]
    """Rows by class."""
    truncated: int
    """Answers of which only the beginning and the end were read."""
    summary: str
    """For the user."""


def run_refusals(
    input: str | Path,
    output: str | Path,
    *,
    model: str | RefusalDetector = EMBEDDED,
    taxonomy: str | None = "sorry_bench",
    calibration: str | Path | None = None,
    requests: bool = False,
    progress: StepProgress | None = None,
) -> RefusalsDone:
    """Add ``refusal_probability``, ``refusal_class``, ``refusal_kind`` to a file of answers.

    Where there are prompts, ``refusal_category`` too. Null and empty answers go to the rejects, and so do those
    on which a judge gave no verdict that can be read.

    Args:
        input: a file with ``response``, and ``prompt`` if there is one; or with ``messages``.
        output: the file to write.
        model: a MODEL, or an open detector.
        taxonomy: the name of a taxonomy, the path of a YAML file, or None for no categories.
        calibration: a file that ``run_calibrate`` wrote.
        requests: also add ``refuse_probability``, ``look_alike_probability`` and ``refuse_reason`` of the prompts.
        progress: is told of rows as they are written.

    Raises:
        InputError: when the file, its columns, the taxonomy or the model's name is wrong.
        ModelError: when a model cannot be loaded.
    """
    classes = dict.fromkeys(REFUSAL_CLASSES, 0)
    truncated = 0
    calibrated = load_calibration(calibration) if calibration is not None else None
    with open_stream(input, output, shapes=_SHAPES, chunk_rows=_CHUNK_ROWS) as stream:
        detector = _open(model)
        assigner: CategoryAssigner | None = None
        asked: RequestModel | None = None
        if requests and stream.shape == "bare":
            raise InputError(f"{input}: --requests needs prompts, and the file has none")
        for chunk in stream.chunks():
            rows = chunk.filter(pl.col("response").is_not_null())
            if stream.shape != "bare" and taxonomy is not None and assigner is None:
                assigner = open_assigner(taxonomy)
            found = detect_refusals(_flat(rows, bare=stream.shape == "bare"), detector=detector, taxonomy=assigner)
            for row in found.filter(pl.col("refusal_class").is_null())["row"]:
                stream.reject(row, "unreadable_verdict", "", "the judge gave no verdict that can be read")
            found = found.filter(pl.col("refusal_class").is_not_null())
            if calibrated is not None:
                found = apply_calibration(found, calibrated)
            if requests:
                asked = asked or open_request_model()
                found = detect_requests(found, model=asked)
            for name, count in found["refusal_class"].value_counts().iter_rows():
                classes[name] += count
            truncated += int(found[_TRUNCATED].sum())
            stream.write(found.drop("prompt", "response", _TRUNCATED, strict=False))
            missing = chunk.filter(pl.col("response").is_null())
            for row in missing["row"]:
                stream.reject(row, "no_response", "messages", "the assistant does not speak last")
            if progress is not None:
                progress.advance(stream.originals.height)
    counts = ", ".join(f"{name} {count:,}" for name, count in classes.items())
    lines = [stream.summary(), counts]
    if calibrated is not None:
        sorted_into = [c.name for c in assigner.taxonomy.categories] if assigner else []
        lines.append(calibrated.in_words(detector.fingerprint, sorted_into))
    if truncated:
        lines.append(f"{truncated:,} long answers: the beginning and the end were read, not the middle")
    return RefusalsDone(stream.rows_written, stream.rejected, classes, truncated, "\n".join(lines))


def _open(model: str | RefusalDetector) -> RefusalDetector:
    from curation.models.refusals import open_refusal_detector

    return open_refusal_detector(model) if isinstance(model, str) else model


def _flat(rows: pl.DataFrame, *, bare: bool) -> pl.DataFrame:
    """Prompts as text; no prompt column where the file has none."""
    plain = rows.select("row", "response")
    if bare:
        return plain
    texts = [None if p is None else messages_text(p) for p in rows["prompt"].to_list()]
    return plain.with_columns(prompt=pl.Series(texts, dtype=pl.String))


def run_calibrate(input: str | Path, output: str | Path, *, label: str = "label", model: str = EMBEDDED) -> str:
    """Fit a calibration to a labelled file and write it as JSON; returns what to tell the user.

    Args:
        input: a file with a column of labels, and ``refusal_probability`` (from ``run_refusals``) or ``response``.
        output: the file to write.
        label: the column of labels.
        model: the detector, where there are no probabilities yet.

    Raises:
        InputError: when a column is missing or a label is neither 0 nor 1 nor empty.
    """
    target = Path(output)
    if target.suffix != ".json":
        raise InputError(f"{target}: a calibration is written as .json")
    frame, _ = read_frame(input)
    if "refusal_probability" not in frame.columns:
        frame = detect_refusals(frame, detector=model)
    fitted = fit_stored(frame, label=label, detector=refusal_fingerprint(model))
    with write_whole(target) as file:
        file.write(fitted.stored.to_json().encode())
    table = fitted.by_category.filter("own")
    lines = [
        f"calibration error {fitted.error_before:.3f} before, {fitted.error_after:.3f} after (on the rows it was "
        f"fitted to); threshold {fitted.stored.threshold:.2f}",
        f"{table.height} categories have a threshold of their own, largest minus smallest {fitted.spread:.2f}",
    ]
    lines += [
        f"{name or 'no category'}: {rows:,} rows, threshold {threshold:.2f}, accuracy {own:.1%}, "
        f"{common:.1%} at the common one"
        for name, rows, threshold, own, common in table.select(
            "category", "rows", "threshold", "accuracy", "accuracy_at_common"
        ).iter_rows()
    ]
    return "\n".join([*lines, f"written to {target}"])


def rates_text(rates: pl.DataFrame) -> str:
    """Rates as lines of text."""
    lines = []
    for name, rows, labelled, raw, rate, low, high in rates.iter_rows():
        estimate = "too few labels" if rate is None else f"{rate:.1%} (95 % interval {low:.1%} to {high:.1%})"
        title = name if name is not None else "all"
        lines.append(f"{title}: {estimate}; {rows:,} answers, {labelled:,} labelled, the detector alone {raw:.1%}")
    return "\n".join(lines)


def run_sample_for_labelling(input: str | Path, output: str | Path, *, size: int, seed: int = 0) -> int:
    """Draw about ``size`` answers of a file that ``run_refusals`` wrote, as a sheet to fill in.

    Returns:
        How many were drawn.

    Raises:
        InputError: when the file lacks ``refusal_probability`` or the size does not fit.
    """
    target = check_output(output)
    frame, _ = read_frame(input)
    sheet = sample_for_labelling(frame.drop(ROW), size=size, seed=seed)
    write_frame(sheet, target)
    return sheet.height


def run_refusals_rate(input: str | Path, sheet: str | Path, *, by: str | None = None) -> pl.DataFrame:
    """Refusal rates with 95 % intervals from a detected file and its filled-in sheet.

    Raises:
        InputError: when a column is missing or a label is neither 0 nor 1.
    """
    frame, _ = read_frame(input)
    labels, _ = read_frame(sheet)
    return labelled_rates(frame, labels, by=by)

"""``curation refusals``: refusal columns for a file of answers. Labels are used in ``refusal_labels``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import polars as pl

from curation.commands.streams import Stream, open_stream
from curation.errors import InputError
from curation.models.identity import EMBEDDED
from curation.models.protocols import RefusalDetector
from curation.progress import StepProgress
from curation.refusals.calibrated import CALIBRATED, StoredCalibration, apply_calibration, load_calibration
from curation.refusals.detection import detect_refusals
from curation.refusals.requests import RequestModel, detect_requests, open_request_model
from curation.refusals.sorting import Sorter, open_assigner, sort_requests
from curation.refusals.taxonomy import Taxonomy, open_taxonomy
from curation.text import last_user_text
from schemas.refusals import REFUSAL_CLASSES

__all__ = ["RefusalsDone", "run_refusals"]

_SHAPES: Final = ("response", "messages", "bare")
_CHUNK_ROWS: Final = 8_192
_TRUNCATED: Final = "refusal_truncated"
_REQUEST: Final = "__request__"
_UNSORTED: Final = "unreadable_category"


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
    sorter: Callable[[Taxonomy], Sorter] | None = None,
    calibration: str | Path | None = None,
    requests: bool = False,
    progress: StepProgress | None = None,
) -> RefusalsDone:
    """Add ``refusal_probability``, ``refusal_class``, ``refusal_kind``, ``refusal_detector`` to a file of answers.

    Where there are prompts, ``refusal_category`` too. Null and empty answers go to the rejects, and so do those
    on which a judge gave no verdict that can be read. Where it gave no category that can be read, the answer keeps
    its verdict, without a category, and the rejects say so.

    Args:
        input: a file with ``response``, and ``prompt`` if there is one; or with ``messages``.
        output: the file to write.
        model: a MODEL, or an open detector.
        taxonomy: the name of a taxonomy, the path of a YAML file, or None for no categories.
        sorter: opens who sorts the prompts into that taxonomy; by default nearness to its prototypes does.
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
        by: Sorter | None = None
        asked: RequestModel | None = None
        if sorter is not None and (taxonomy is None or stream.shape == "bare"):
            lacks = "prompts, and the file has none" if taxonomy is not None else "a taxonomy to sort into"
            raise InputError(f"{input}: who sorts the prompts is named, which needs {lacks}")
        if requests and stream.shape == "bare":
            raise InputError(f"{input}: --requests needs prompts, and the file has none")
        for chunk in stream.chunks():
            rows = chunk.filter(pl.col("response").is_not_null())
            if stream.shape != "bare" and taxonomy is not None and by is None:
                by = open_assigner(taxonomy) if sorter is None else sorter(open_taxonomy(taxonomy))
            found = detect_refusals(_flat(rows, bare=stream.shape == "bare"), detector=detector, taxonomy=None)
            for row in found.filter(pl.col("refusal_class").is_null())["row"]:
                stream.reject(row, "unreadable_verdict", "", "the judge gave no verdict that can be read")
            found = found.filter(pl.col("refusal_class").is_not_null())
            found = found if by is None else _sorted(found, by, stream)
            if calibrated is not None:
                found = apply_calibration(found, calibrated)
            if requests:
                asked = asked or open_request_model()
                found = detect_requests(found, prompt=_REQUEST, model=asked)
            found = found.with_columns(refusal_detector=pl.lit(_producer(detector, calibrated)))
            for name, count in found["refusal_class"].value_counts().iter_rows():
                classes[name] += count
            truncated += int(found[_TRUNCATED].sum())
            stream.write(found.drop("prompt", "response", _REQUEST, _TRUNCATED, strict=False))
            missing = chunk.filter(pl.col("response").is_null())
            for row in missing["row"]:
                stream.reject(row, "no_response", "messages", "the assistant does not speak last")
            if progress is not None:
                progress.advance(stream.originals.height)
    lines = [stream.summary(), ", ".join(f"{name} {count:,}" for name, count in classes.items())]
    if calibrated is not None:
        sorted_into = [c.name for c in by.taxonomy.categories] if by else []
        lines.append(calibrated.in_words(detector.fingerprint, sorted_into))
    lines += _notes(unsorted=stream.rejected.get(_UNSORTED, 0), truncated=truncated)
    return RefusalsDone(stream.rows_written, stream.rejected, classes, truncated, "\n".join(lines))


def _notes(*, unsorted: int, truncated: int) -> list[str]:
    notes = []
    if unsorted:
        notes.append(
            f"{unsorted:,} of them lack only a category that can be read: their verdicts are in the output"
        )
    if truncated:
        notes.append(f"{truncated:,} long answers: the beginning and the end were read, not the middle")
    return notes


def _sorted(found: pl.DataFrame, by: Sorter, stream: Stream) -> pl.DataFrame:
    """The rows with the category of their request; null, and told, where a judge's reply could not be read."""
    category, unread = sort_requests(found[_REQUEST].to_list(), by)
    for row in found.filter(unread)["row"]:
        stream.reject(
            row, _UNSORTED, "", "the judge named no category that can be read; the verdict is in the output"
        )
    return found.with_columns(refusal_category=category)


def _open(model: str | RefusalDetector) -> RefusalDetector:
    from curation.models.refusals import open_refusal_detector

    return open_refusal_detector(model) if isinstance(model, str) else model


def _producer(detector: RefusalDetector, calibrated: StoredCalibration | None) -> str:
    """What the probabilities depend on."""
    return detector.fingerprint + (f"{CALIBRATED}{calibrated.fingerprint}" if calibrated else "")


def _flat(rows: pl.DataFrame, *, bare: bool) -> pl.DataFrame:
    """Prompts and what each asks; no such columns where the file has none."""
    if bare:
        return rows.select("row", "response")
    asked = [None if p is None else last_user_text(p) for p in rows["prompt"].to_list()]
    return rows.select("row", "response", "prompt", pl.Series(_REQUEST, asked, dtype=pl.String))

"""``curation refusals``: refusal columns for a file of answers. Labels are used in ``refusal_labels``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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

_SHAPES: Final = ("response", "pair", "messages", "bare")
_ANSWERS: Final = {"pair": {"chosen_": "chosen", "rejected_": "rejected"}}
"""What the names of an answer's columns begin with, and the column that holds the answer."""
_VERDICT: Final = ("refusal_probability", "refusal_class", "refusal_kind")
_CHUNK_ROWS: Final = 8_192
_TRUNCATED: Final = "refusal_truncated"
_REQUEST: Final = "__request__"
_UNSORTED: Final = "unreadable_category"
_UNREAD: Final = "unreadable_verdict"


class RefusalsDone(NamedTuple):
    """What the command did."""

    rows: int
    rejected: dict[str, int]
    classes: dict[str, int]
    """Answers by class."""
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

    Of pairs, the first three of both answers: ``chosen_refusal_probability``, ``rejected_refusal_probability``, …

    Where there are prompts, ``refusal_category`` too. Null and empty answers go to the rejects, and so do those
    on which a judge gave no verdict that can be read. Where it gave no category that can be read, or read one
    answer of a pair, the row keeps what is known, and the rejects say what is not.

    Args:
        input: a file with ``response`` (``prompt`` if there is one), with ``chosen`` and ``rejected``, or with
            ``messages``.
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
    calibrated = load_calibration(calibration) if calibration is not None else None
    with open_stream(input, output, shapes=_SHAPES, chunk_rows=_CHUNK_ROWS) as stream:
        detector = _open(model)
        bare = stream.shape == "bare"
        by: Sorter | None = None
        asked: RequestModel | None = None
        if sorter is not None and (taxonomy is None or bare):
            lacks = "prompts, and the file has none" if taxonomy is not None else "a taxonomy to sort into"
            raise InputError(f"{input}: who sorts the prompts is named, which needs {lacks}")
        if requests and bare:
            raise InputError(f"{input}: --requests needs prompts, and the file has none")
        answers = _ANSWERS.get(stream.shape or "", {"": "response"})
        counts = {side: dict.fromkeys(REFUSAL_CLASSES, 0) for side in answers}
        truncated = 0
        for chunk in stream.chunks():
            if not bare and taxonomy is not None and by is None:
                by = open_assigner(taxonomy) if sorter is None else sorter(open_taxonomy(taxonomy))
            rows, verdicts = _detected(chunk, answers, detector, stream)
            found = _of_prompts(rows, bare=bare)
            found = found if by is None else _sorted(found, by, stream)
            for side, raw in verdicts.items():
                verdict = _calibrated(raw, found, calibrated)
                for name, count in verdict["refusal_class"].drop_nulls().value_counts().iter_rows():
                    counts[side][name] += count
                truncated += int(verdict[_TRUNCATED].sum())
                found = found.with_columns(verdict[column].alias(side + column) for column in _VERDICT)
            if requests:
                asked = asked or open_request_model()
                found = detect_requests(found, prompt=_REQUEST, model=asked)
            found = found.with_columns(refusal_detector=pl.lit(_producer(detector, calibrated)))
            stream.write(_in_order(found.drop(_REQUEST, strict=False), answers))
            if progress is not None:
                progress.advance(stream.originals.height)
    classes = {name: sum(of_side[name] for of_side in counts.values()) for name in REFUSAL_CLASSES}
    lines = [stream.summary()]
    for side, of_side in counts.items():
        said = ", ".join(f"{name} {count:,}" for name, count in of_side.items())
        lines.append(f"{answers[side]}: {said}" if side else said)
    if calibrated is not None:
        sorted_into = [c.name for c in by.taxonomy.categories] if by else []
        lines.append(calibrated.in_words(detector.fingerprint, sorted_into))
    lines += _notes(stream, truncated=truncated)
    return RefusalsDone(stream.rows_written, stream.rejected, classes, truncated, "\n".join(lines))


def _detected(
    chunk: pl.DataFrame, answers: Mapping[str, str], detector: RefusalDetector, stream: Stream
) -> tuple[pl.DataFrame, dict[str, pl.DataFrame]]:
    """The rows of which an answer has a verdict, and these by side; the others are rejected."""
    if "response" in chunk.columns:
        for row in chunk.filter(pl.col("response").is_null())["row"]:
            stream.reject(row, "no_response", "messages", "the assistant does not speak last")
        chunk = chunk.filter(pl.col("response").is_not_null())
    found = {}
    for side, column in answers.items():
        said = chunk.select("row", "prompt", pl.col(column).alias("response"))
        found[side] = detect_refusals(said, detector=detector, taxonomy=None)
    read = chunk.select(
        found[side]["refusal_class"].is_not_null().alias(column) for side, column in answers.items()
    )
    some = read.select(pl.any_horizontal(pl.all())).to_series()
    for row in chunk.filter(~some)["row"]:
        stream.reject(row, _UNREAD, "", "the judge gave no verdict that can be read")
    for column in answers.values():
        for row in chunk.filter(some & ~read[column])["row"]:
            stream.reject(
                row, _UNREAD, column, f"no verdict on {column} that can be read; the other is in the output"
            )
    return chunk.filter(some), {side: verdict.filter(some) for side, verdict in found.items()}


def _calibrated(verdict: pl.DataFrame, rows: pl.DataFrame, calibration: StoredCalibration | None) -> pl.DataFrame:
    if calibration is None:
        return verdict
    category = [rows["refusal_category"]] if "refusal_category" in rows.columns else []
    return apply_calibration(verdict.with_columns(category), calibration)


def _in_order(found: pl.DataFrame, answers: Mapping[str, str]) -> pl.DataFrame:
    """The verdicts first, then what is of both."""
    verdicts = [side + column for side in answers for column in _VERDICT]
    return found.select("row", *verdicts, pl.exclude("row", *verdicts))


def _notes(stream: Stream, *, truncated: int) -> list[str]:
    notes = []
    rejects = stream.rejects()
    if unsorted := rejects.filter(rule=_UNSORTED).height:
        notes.append(
            f"{unsorted:,} of them lack only a category that can be read: their verdicts are in the output"
        )
    if half := rejects.filter(rule=_UNREAD).filter(pl.col("value") != "").height:
        notes.append(f"{half:,} of them lack only the verdict on one answer: the other is in the output")
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


def _of_prompts(rows: pl.DataFrame, *, bare: bool) -> pl.DataFrame:
    """The rows, and what each prompt asks; no such column where the file has no prompts."""
    if bare:
        return rows.select("row")
    asked = [None if p is None else last_user_text(p) for p in rows["prompt"].to_list()]
    return rows.select("row", pl.Series(_REQUEST, asked, dtype=pl.String))

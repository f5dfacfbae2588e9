"""Answers of people back into the workspace, and from there to whoever wants to know which labels are right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final, NamedTuple

import polars as pl

from curation.errors import InputError
from curation.refusals.sheets import LINE, line_of
from curation.review.sheets import ANSWERS
from curation.tables import validated
from curation.workspace import Workspace

__all__ = ["Imported", "import_review", "reviewed_pairs"]

_KEY: Final = ("pair_id", "annotator")


class Imported(NamedTuple):
    """What an import did."""

    labels: int
    """Labels in the files, new or replaced."""
    unanswered: int
    """Rows that nobody has answered yet."""
    total: int
    """Labels in the workspace now."""
    missing: tuple[str, ...] = ()
    """Lines that the sheet had when it was drawn and has no more, ``7 of 40``."""


def import_review(workspace: Workspace, path: Path, *, annotator: str | None = None) -> Imported:
    """Take the answers of a sheet, or of a folder or ``records.json`` that Argilla wrote, into ``review_labels``.

    A second answer of the same annotator to the same pair replaces the first.

    Args:
        path: ``review.csv`` with the column ``better`` filled in; a folder that Argilla's ``to_disk`` wrote.
        annotator: who answered the rows of a sheet whose column ``annotator`` is empty.

    Raises:
        InputError: naming file, row and field: an unknown pair, answer or answer's identifier, no annotator.
    """
    source = path / "records.json" if path.is_dir() else path
    if not source.exists():
        raise InputError(f"{source}: there is no such file; expected review.csv, or what Argilla's to_disk wrote")
    argilla = source.suffix == ".json"
    rows, unanswered, missing = _argilla_rows(source) if argilla else _sheet_rows(source, annotator)
    _checked(workspace, rows, source)
    verdict = pl.col("better").replace({"a": "better", "b": "better"})
    decided = verdict == "better"
    labels = rows.select(
        *_KEY,
        verdict=verdict,
        better_id=pl.when(decided).then(
            pl.when(pl.col("better") == "a").then("answer_a_id").otherwise("answer_b_id")
        ),
        worse_id=pl.when(decided).then(
            pl.when(pl.col("better") == "a").then("answer_b_id").otherwise("answer_a_id")
        ),
        sampling_probability="sampling_probability",
        comment=pl.when(pl.col("comment") != "").then("comment"),
    ).unique(_KEY, keep="last", maintain_order=True)
    kept = validated("review_labels", labels, stage="review").kept
    before = workspace.read("review_labels").join(kept, on=_KEY, how="anti", maintain_order="left")
    merged = pl.concat([before.select(kept.columns), kept])
    workspace.overwrite("review_labels", merged)
    return Imported(kept.height, unanswered, merged.height, missing)


def reviewed_pairs(workspace: Workspace, pairs: pl.DataFrame) -> pl.DataFrame:
    """Pairs of which people have said whether their label is right.

    Annotators count one vote each; who found a tie or could not tell has none, and a pair with as many votes
    for as against is left out.

    Args:
        pairs: ``pair_id``, ``prompt_id``, ``chosen_id``, ``rejected_id``; a label holds for both directions.

    Returns:
        ``pair_id`` and ``label_right``, in the order of ``pairs``.
    """
    labels = workspace.read("review_labels").filter(pl.col("verdict") == "better")
    sides = pl.concat(
        labels.select(chosen_id=f"{one}_id", rejected_id=f"{other}_id", right=pl.lit(one == "better"))
        for one, other in (("better", "worse"), ("worse", "better"))
    )
    votes = sides.group_by("chosen_id", "rejected_id").agg(
        _for=pl.col("right").sum().cast(pl.Int64), _against=(~pl.col("right")).sum().cast(pl.Int64)
    )
    return (
        pairs.select("pair_id", "chosen_id", "rejected_id")
        .join(votes, on=["chosen_id", "rejected_id"], maintain_order="left")
        .filter(pl.col("_for") != pl.col("_against"))
        .select("pair_id", label_right=pl.col("_for") > pl.col("_against"))
    )


_COLUMNS: Final = ("pair_id", "answer_a_id", "answer_b_id", "better", "comment", "annotator")
_SCHEMA: Final = {**dict.fromkeys(_COLUMNS, pl.String), "sampling_probability": pl.Float64, "place": pl.String}


def _sheet_rows(path: Path, annotator: str | None) -> tuple[pl.DataFrame, int, tuple[str, ...]]:
    try:
        separator = _separator(path)
        sheet = pl.read_csv(path, infer_schema=False, encoding="utf8-lossy", separator=separator).fill_null("")
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(
            f"{path}: cannot be read as a sheet: expected the review.csv that `curation review` wrote, with "
            f"answers in column better, saved as CSV"
        ) from error
    missing = [c for c in (*_COLUMNS, "sampling_probability") if c not in sheet.columns]
    if missing:
        raise InputError(f"{path}: column {missing[0]!r} is missing; found {', '.join(sheet.columns)}")
    shares = pl.col("sampling_probability").str.replace(",", ".", literal=True)
    blank = pl.all_horizontal(pl.col(sheet.columns).str.strip_chars() == "")  # as spreadsheets leave them behind
    lines = sheet.with_row_index("_row").filter(~blank)
    clean = lines.with_columns(pl.col(_COLUMNS).str.strip_chars(), shares)
    who = pl.when(pl.col("annotator") == "").then(pl.lit(annotator)).otherwise("annotator")
    rows = clean.with_columns(
        pl.col("better").str.to_lowercase(),
        annotator=who,
        sampling_probability=pl.col("sampling_probability").cast(pl.Float64, strict=False),
        place=pl.format("row {}", pl.col("_row") + 2),
    )
    answered = rows.filter(pl.col("better") != "").select(list(_SCHEMA))
    return answered, rows.height - answered.height, _missing(lines, path)


def _missing(sheet: pl.DataFrame, path: Path) -> tuple[str, ...]:
    """The lines that were taken out; none where the sheet is of an older version and does not count them."""
    try:
        places = {line_of(cell) for cell in sheet[LINE]} if LINE in sheet.columns else set()
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    drawn = {(line, total) for total in {total for _, total in places} for line in range(1, total + 1)}
    return tuple(f"{line} of {total}" for line, total in sorted(drawn - places))


def _separator(path: Path) -> str:
    """A spreadsheet of a country that writes 0,5 saves CSV with semicolons."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        header = file.readline()
    return max(",;\t", key=header.count)


def _argilla_rows(path: Path) -> tuple[pl.DataFrame, int, tuple[str, ...]]:
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
        found, unanswered = [], 0
        for number, record in enumerate(records):
            responses = record.get("responses") or {}
            submitted = [r for r in responses.get("better", []) if r.get("status", "submitted") == "submitted"]
            comments = {r.get("user_id"): r.get("value") for r in responses.get("comment", [])}
            unanswered += not submitted
            found += [_argilla_row(record, answer, comments, number) for answer in submitted]
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: expected the records that Argilla's Dataset.to_disk writes ({type(error).__name__})"
        ) from error
    return pl.DataFrame(found, schema=_SCHEMA), unanswered, ()


def _argilla_row(
    record: dict[str, Any], answer: dict[str, Any], comments: dict[Any, Any], number: int
) -> dict[str, Any]:
    metadata, user = record["metadata"], answer.get("user_id")
    return {
        "pair_id": record["id"],
        "answer_a_id": metadata["answer_a_id"],
        "answer_b_id": metadata["answer_b_id"],
        "better": answer["value"],
        "comment": comments.get(user) or "",
        "annotator": None if user is None else str(user),
        "sampling_probability": metadata.get("sampling_probability"),
        "place": f"record {number}",
    }


def _checked(workspace: Workspace, rows: pl.DataFrame, source: Path) -> None:
    """Every answer is known, has an annotator, and is about a pair and two answers of this workspace."""
    pairs = workspace.scan("pairs").select("pair_id", "chosen_id", "rejected_id").collect()
    joined = rows.join(pairs, on="pair_id", how="left", maintain_order="left")
    same = (
        pl.concat_list("answer_a_id", "answer_b_id").list.sort()
        == pl.concat_list("chosen_id", "rejected_id").list.sort()
    )
    faults = (
        (~pl.col("better").is_in(list(ANSWERS)), "better", f"expected one of {', '.join(ANSWERS)}"),
        (pl.col("annotator").is_null() | (pl.col("annotator") == ""), "annotator",
         "expected who answered: fill in the column, or give --annotator"),
        (pl.col("chosen_id").is_null(), "pair_id", "expected a pair of this workspace"),
        (~same, "answer_a_id", "expected the two answers of the pair: the sheet's columns were changed"),
    )  # fmt: skip
    for fault, field, expected in faults:
        bad = joined.filter(fault.fill_null(value=True))
        if bad.height:
            value = str(bad[field][0] or "")[:40]
            more = f" (and {bad.height - 1:,} more)" if bad.height > 1 else ""
            raise InputError(f"{source}, {bad['place'][0]}: {field} is {value!r}, {expected}{more}")

"""A review sample as files: a plain sheet, and a folder that Argilla's ``Dataset.from_disk`` reads.

<folder>/review.csv
<folder>/argilla/records.json, .argilla/settings.json, .argilla/dataset.json
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import polars as pl

from curation.errors import InputError
from curation.files.spreadsheets import spreadsheet_bytes
from curation.refusals.sheets import LINE, numbered
from curation.text import messages_text

__all__ = ["ANSWERS", "SHEET_COLUMNS", "write_review"]

ANSWERS: Final = {
    "a": "A is better",
    "b": "B is better",
    "tie": "They are equally good",
    "unsure": "I cannot tell",
}
SHEET_COLUMNS: Final = (
    "pair_id", "prompt", "answer_a", "answer_b", "better", "comment", "annotator", "answer_a_id", "answer_b_id",
    "sampling_probability",
)  # fmt: skip
GUIDELINES: Final = (
    "Read the prompt and both answers, and say which answer is better. The order of the two is drawn. "
    "Where both are equally good or equally bad, say so; where you cannot tell, say that."
)


def write_review(sample: pl.DataFrame, folder: Path, *, name: str) -> list[Path]:
    """Write a sample (see ``curation.review.sample``) as a sheet and for Argilla; returns the files.

    Raises:
        InputError: when the folder holds a review already: answers may be in it.
    """
    sheet = folder / "review.csv"
    if sheet.exists():
        raise InputError(f"{sheet} is there already, and may hold answers: give another folder with -o")
    try:
        (folder / "argilla" / ".argilla").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: {error.strerror}; give a new folder with -o") from error
    texts = pl.Series("prompt", [messages_text(m) for m in sample["prompt"].to_list()], dtype=pl.String)
    empty = (pl.lit("").alias(c) for c in ("better", "comment", "annotator"))
    rows = numbered(sample).with_columns(texts, *empty).select(*SHEET_COLUMNS, LINE)
    files = {
        sheet: spreadsheet_bytes(rows),
        folder / "argilla" / "records.json": _json([_record(row) for row in sample.iter_rows(named=True)]),
        folder / "argilla" / ".argilla" / "settings.json": _json(_settings(sample)),
        folder / "argilla" / ".argilla" / "dataset.json": _json({"name": name, "guidelines": GUIDELINES}),
    }
    for path, data in files.items():
        path.write_bytes(data)
    return list(files)


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=1).encode()


def _record(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": row["pair_id"],
        "fields": {name: row[name] for name in ("prompt", "answer_a", "answer_b")},
        "metadata": {name: row[name] for name in ("stratum", "sampling_probability", "answer_a_id", "answer_b_id")},
        "suggestions": {},
        "responses": {},
        "vectors": {},
        "status": "pending",
    }


def _settings(sample: pl.DataFrame) -> dict[str, Any]:
    """Argilla 2's settings, as its own ``Settings.to_json`` writes them."""
    fields = [
        {"name": "prompt", "title": "Prompt", "required": True, "type": "chat",
         "settings": {"type": "chat", "use_markdown": False}},
        *({"name": f"answer_{side}", "title": f"Answer {side.upper()}", "required": True, "type": "text",
           "settings": {"type": "text", "use_markdown": False}} for side in "ab"),
    ]  # fmt: skip
    options = [{"value": value, "text": text} for value, text in ANSWERS.items()]
    questions = [
        {"name": "better", "title": "Which answer is better?", "description": None, "required": True,
         "type": "label_selection",
         "settings": {"type": "label_selection", "options": options, "visible_options": None}},
        {"name": "comment", "title": "Comment", "description": None, "required": False, "type": "text",
         "settings": {"type": "text", "use_markdown": False}},
    ]  # fmt: skip
    kinds: dict[str, dict[str, Any]] = {
        "stratum": {"type": "terms", "values": None},
        "sampling_probability": {"type": "float", "min": None, "max": None},
        "answer_a_id": {"type": "terms", "values": None},
        "answer_b_id": {"type": "terms", "values": None},
    }
    # Hidden: what the models think must not lead the people who check them.
    metadata = [
        {"name": name, "title": name, "visible_for_annotators": False,
         "settings": {**kind, "visible_for_annotators": False}}
        for name, kind in kinds.items()
    ]  # fmt: skip
    return {
        "guidelines": GUIDELINES,
        "questions": questions,
        "fields": fields,
        "vectors": [],
        "metadata": metadata,
        "allow_extra_metadata": False,
        "distribution": {"strategy": "overlap", "min_submitted": 1},
        "mapping": None,
    }

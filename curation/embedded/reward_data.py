"""Readers of the preference data that the bundled reward heads learn from. No models, no splits.

Each reader gives one row a decided pair: ``source``, ``prompt`` (messages), ``chosen``, ``rejected`` and
``level``, how strong the people's preference was (1 weak, 2 clear). Undecided pairs are left out.
"""

from __future__ import annotations

import gzip
import json
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree

import polars as pl

from curation.text import Message

__all__ = ["PAIR_SCHEMA", "SOURCES", "read_pairs", "read_tulu_judgements"]

_MESSAGES: Final = pl.List(pl.Struct({"role": pl.String, "content": pl.String}))
PAIR_SCHEMA: Final = {
    "source": pl.String(),
    "prompt": _MESSAGES,
    "chosen": pl.String(),
    "rejected": pl.String(),
    "level": pl.Int64(),
}

_TURN: Final = re.compile(r"\n\n(Human|Assistant):")
_SHEET: Final = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
_TULU_LEVELS: Final = {
    "a-is-better": -2,
    "a-is-slightly-better": -1,
    "tie": 0,
    "b-is-slightly-better": 1,
    "b-is-better": 2,
}


def read_pairs(data: Path, sources: Iterable[str] | None = None) -> pl.DataFrame:
    """The decided pairs of the named sources (all of ``SOURCES`` by default), in a fixed order."""
    names = list(SOURCES if sources is None else sources)
    rows = [{"source": name, **row} for name in names for row in SOURCES[name](data)]
    return pl.DataFrame(rows, schema=PAIR_SCHEMA)


def _pair(prompt: list[Message], chosen: str, rejected: str, level: int) -> dict[str, Any]:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, "level": level}


def _hh_harmless(data: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(data / "hh_harmless" / "test.jsonl.gz", "rt", encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            chosen, rejected = _dialogue(row["chosen"]), _dialogue(row["rejected"])
            if chosen[:-1] == rejected[:-1] and chosen != rejected:
                yield _pair(chosen[:-1], chosen[-1]["content"], rejected[-1]["content"], 2)


def _dialogue(text: str) -> list[Message]:
    """The turns of hh-rlhf's one-string dialogues."""
    parts = _TURN.split(text)[1:]
    roles = {"Human": "user", "Assistant": "assistant"}
    return [
        {"role": roles[who], "content": said.strip()} for who, said in zip(parts[::2], parts[1::2], strict=True)
    ]


def _pandalm(data: Path) -> Iterator[dict[str, Any]]:
    rows = json.loads((data / "pandalm" / "testset-v1.json").read_text(encoding="utf-8"))
    for row in rows:
        votes = [row[f"annotator{n}"] for n in (1, 2, 3)]
        best = 1 if votes.count(1) > votes.count(2) else 2
        if votes.count(best) < 2:
            continue
        text = row["instruction"] + (f"\n\n{row['input']}" if row["input"] else "")
        yield _pair(
            [{"role": "user", "content": text}],
            str(row[f"response{best}"]),  # one answer is the JSON value true
            str(row[f"response{3 - best}"]),
            2 if votes.count(best) == 3 else 1,
        )


def _tulu1_human_eval(data: Path) -> Iterator[dict[str, Any]]:
    for row in read_tulu_judgements(data).iter_rows(named=True):
        if row["level"] == 0:
            continue
        first, second = row["completion_a"], row["completion_b"]
        chosen, rejected = (second, first) if row["level"] > 0 else (first, second)
        yield _pair([{"role": "user", "content": row["prompt"]}], chosen, rejected, abs(row["level"]))


def read_tulu_judgements(data: Path) -> pl.DataFrame:
    """All human judgements of ``tulu1_human_eval``, one row each, ties too.

    Returns:
        ``instance_id``, ``prompt``, ``completion_a``, ``completion_b``, ``evaluator`` and ``level``,
        −2 (a is better) to 2 (b is better), ±1 slightly.
    """
    path = data / "tulu1_human_eval" / "eval_annotations_tulu_1.xlsx"
    names = ("instance_id", "prompt", "completion_a", "completion_b", "evaluator")
    rows = [
        {**{name: row.get(name, "") for name in names}, "level": _TULU_LEVELS[row["preference"]]}
        for row in _first_sheet(path)
        if row.get("preference") in _TULU_LEVELS
    ]
    return pl.DataFrame(rows)


def _first_sheet(path: Path) -> list[dict[str, str]]:
    """The rows of a workbook's first sheet, by the names in its first row (shared strings only)."""
    with zipfile.ZipFile(path) as book:
        strings = [
            "".join(part.text or "" for part in item.iter(f"{_SHEET}t"))
            for item in ElementTree.fromstring(book.read("xl/sharedStrings.xml"))
        ]
        sheet = ElementTree.fromstring(book.read("xl/worksheets/sheet1.xml"))
    rows: list[dict[str, str]] = []
    names: Mapping[str, str] = {}
    for row in sheet.iter(f"{_SHEET}row"):
        cells: dict[str, str] = {}
        for cell in row:
            value = cell.find(f"{_SHEET}v")
            if value is not None and value.text is not None:
                text = strings[int(value.text)] if cell.get("t") == "s" else value.text
                cells[re.sub(r"\d", "", cell.get("r", ""))] = text
        if not names:
            names = cells
        else:
            rows.append({names[column]: text for column, text in cells.items() if column in names})
    return rows


def _coconot_pref(data: Path) -> Iterator[dict[str, Any]]:
    with (data / "coconot" / "coconot_pref.jsonl").open(encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            if row["chosen"] != row["rejected"]:
                yield _pair([{"role": "user", "content": row["prompt"]}], row["chosen"], row["rejected"], 2)


SOURCES: Final[Mapping[str, Callable[[Path], Iterator[dict[str, Any]]]]] = {
    "hh_harmless": _hh_harmless,
    "pandalm": _pandalm,
    "tulu1_human_eval": _tulu1_human_eval,
    "coconot_pref": _coconot_pref,
}

"""``curation dedup`` against another file, in whatever form its texts are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl

from curation.commands.dedup import run_dedup
from curation.files import rejects_path


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_texts_among_messages_of_another_file_are_compared_as_texts(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [{"prompt": text} for text in ("Name a river.", "Name\na lake.", "Why?")])
    message = {"role": "user", "content": "Name a river."}
    other = write(tmp_path / "other.jsonl", [{"prompt": ""}, {"prompt": "Name\na lake."}, {"prompt": [message]}])

    run_dedup(source, tmp_path / "out.parquet", column="prompt", against=other)

    assert pl.read_parquet(tmp_path / "out.parquet")["prompt"].to_list() == ["Why?"]
    rejects = pl.read_parquet(rejects_path(tmp_path / "out.parquet"))
    assert rejects.select("row", "value").rows() == [(0, "against 2"), (1, "against 1")]

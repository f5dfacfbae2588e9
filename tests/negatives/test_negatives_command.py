"""The command on files, as the contract describes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from curation.commands.negatives import run_negatives
from curation.errors import InputError
from curation.files import rejects_path
from curation.models.encoder import SentenceEncoder, open_encoder


@pytest.fixture(scope="module")
def encoder() -> SentenceEncoder:
    return open_encoder("embedded")


PAIRS = [
    {"id": 7, "anchor": "How do I wash a cat?", "positive": "Use lukewarm water and a mild shampoo."},
    {"id": 8, "anchor": "same text", "positive": "same text "},
    {"id": 9, "anchor": "How long do cats sleep?", "positive": "Between twelve and sixteen hours a day."},
    {"id": 10, "anchor": "Where is the station?", "positive": None},
]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_columns_are_added_and_faulty_rows_rejected(tmp_path: Path, encoder: SentenceEncoder) -> None:
    corpus = write(tmp_path / "corpus.jsonl", [{"text": "Cats should be bathed rarely."}, {"text": ""}])
    out = tmp_path / "out.parquet"
    notes: list[str] = []
    done = run_negatives(
        write(tmp_path / "in.jsonl", PAIRS),
        out,
        corpus=corpus,
        encoder=encoder,
        note=notes.append,
        num_negatives=2,
    )
    frame = pl.read_parquet(out)
    assert frame["id"].to_list() == [7, 9]
    assert frame.columns[-3:] == ["negatives", "negative_scores", "positive_score"]
    assert frame["negatives"].to_list()[0][0] == "Cats should be bathed rarely."
    assert pl.read_parquet(rejects_path(out)).select("row", "rule").rows() == [
        (1, "anchor_is_positive"),
        (3, "null_positive"),
    ]
    assert done.rejected == {"anchor_is_positive": 1, "null_positive": 1}
    assert "1 rows left out of the corpus (empty_text 1)" in notes[0]
    assert "retrieved" in done.summary


def test_thresholds_that_remove_everything_are_named(tmp_path: Path, encoder: SentenceEncoder) -> None:
    out = tmp_path / "out.jsonl"
    done = run_negatives(write(tmp_path / "in.jsonl", PAIRS), out, encoder=encoder, max_score=-0.9)
    assert done.rows == 0
    assert done.rejected["no_negatives"] == 2
    assert "No negative is left: max_score (threshold -0.9)" in done.summary


def test_only_faulty_rows_write_an_empty_file(tmp_path: Path, encoder: SentenceEncoder) -> None:
    out = tmp_path / "out.parquet"
    done = run_negatives(write(tmp_path / "in.jsonl", PAIRS[1:2]), out, encoder=encoder)
    assert done.rows == 0
    assert pl.read_parquet(out).height == 0


def test_a_corpus_without_text_is_an_error(tmp_path: Path, encoder: SentenceEncoder) -> None:
    corpus = write(tmp_path / "corpus.jsonl", [{"text": " "}])
    with pytest.raises(InputError, match="no usable text in column 'text'"):
        run_negatives(write(tmp_path / "in.jsonl", PAIRS), tmp_path / "o.jsonl", corpus=corpus, encoder=encoder)

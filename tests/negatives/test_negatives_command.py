"""The command on files, as the contract describes it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from curation.commands.negatives import run_negatives
from curation.errors import InputError
from curation.files import rejects_path
from curation.models.encoder import SentenceEncoder, open_encoder
from curation.models.protocols import Encoded


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
    reasons = pl.read_parquet(rejects_path(out)).filter(pl.col("rule") == "no_negatives")["reason"]
    assert all("max_score (threshold -0.9) removed the last" in reason for reason in reasons)


def test_only_faulty_rows_write_an_empty_file(tmp_path: Path, encoder: SentenceEncoder) -> None:
    out = tmp_path / "out.parquet"
    done = run_negatives(write(tmp_path / "in.jsonl", PAIRS[1:2]), out, encoder=encoder)
    assert done.rows == 0
    assert pl.read_parquet(out).height == 0


def test_a_corpus_without_text_is_an_error(tmp_path: Path, encoder: SentenceEncoder) -> None:
    corpus = write(tmp_path / "corpus.jsonl", [{"text": " "}])
    with pytest.raises(InputError, match="no usable text in column 'text'"):
        run_negatives(write(tmp_path / "in.jsonl", PAIRS), tmp_path / "o.jsonl", corpus=corpus, encoder=encoder)


class LetterCounts:
    """An encoder without a model: how often each letter stands in a text. A text without letters is zero."""

    def encode(self, texts: Sequence[str]) -> Encoded:
        counts = np.array([[text.lower().count(chr(97 + at)) for at in range(26)] for text in texts], np.float32)
        lengths = np.linalg.norm(counts, axis=1, keepdims=True)
        return Encoded(counts / np.where(lengths > 0, lengths, 1), np.zeros(len(texts), np.bool_))


def pairs(*rows: tuple[str, str]) -> list[dict[str, Any]]:
    return [{"anchor": anchor, "positive": positive} for anchor, positive in rows]


EQUAL = pairs(("a cat", "act"), ("a tac", "tca"), ("ta ca", "ACT"))


def test_equal_embeddings_give_ties_in_the_order_of_the_corpus(tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    run_negatives(write(tmp_path / "in.jsonl", EQUAL), out, encoder=LetterCounts(), num_negatives=2)
    assert pl.read_parquet(out)["negatives"].to_list() == [["tca", "ACT"], ["act", "ACT"], ["act", "tca"]]


def test_equal_embeddings_with_a_margin_name_the_rule(tmp_path: Path) -> None:
    done = run_negatives(
        write(tmp_path / "in.jsonl", EQUAL), tmp_path / "out.jsonl", encoder=LetterCounts(), relative_margin=0.05
    )
    assert done.rejected == {"no_negatives": 3}
    assert "relative_margin (threshold 0.05) removed the last" in done.summary


def test_texts_without_direction_are_no_negatives_and_get_none(tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    rows = pairs(("cats", "tomcats"), ("123?", "digits"), ("dogs", "456!"), ("fish", "cod"))
    done = run_negatives(write(tmp_path / "in.jsonl", rows), out, encoder=LetterCounts(), num_negatives=9)
    frame = pl.read_parquet(out)
    assert frame["anchor"].to_list() == ["cats", "dogs", "fish"]
    assert "456!" not in frame["negatives"].explode().to_list()
    assert pl.read_parquet(rejects_path(out)).select("row", "rule").rows() == [(1, "no_negatives")]
    assert "zero_vector" in done.waterfall["rule"].to_list()


def test_fewer_documents_than_negatives_give_what_there_is(tmp_path: Path, encoder: SentenceEncoder) -> None:
    out = tmp_path / "out.parquet"
    done = run_negatives(write(tmp_path / "in.jsonl", PAIRS), out, encoder=encoder, num_negatives=50)
    assert pl.read_parquet(out)["negatives"].list.len().to_list() == [1, 1]
    assert done.waterfall["anchors_short"].to_list()[-1] == 2


def test_a_positive_that_the_corpus_lacks_is_added_and_counted(tmp_path: Path, encoder: SentenceEncoder) -> None:
    corpus = write(tmp_path / "corpus.jsonl", [{"text": PAIRS[0]["positive"]}, {"text": "Rain."}])
    out = tmp_path / "out.parquet"
    notes: list[str] = []
    run_negatives(write(tmp_path / "in.jsonl", PAIRS), out, corpus=corpus, encoder=encoder, note=notes.append)
    assert "1 positives were not in it and were added" in notes[-1]
    assert not pl.read_parquet(out)["positive_score"].is_nan().any()


def test_an_empty_corpus_file_is_one_line(tmp_path: Path, encoder: SentenceEncoder) -> None:
    (tmp_path / "corpus.jsonl").write_text("")
    with pytest.raises(InputError, match=r"corpus\.jsonl is empty"):
        run_negatives(
            write(tmp_path / "in.jsonl", PAIRS),
            tmp_path / "o.jsonl",
            corpus=tmp_path / "corpus.jsonl",
            encoder=encoder,
        )


def test_a_graph_finds_what_the_exact_search_does_and_says_its_recall(
    tmp_path: Path, encoder: SentenceEncoder
) -> None:
    rows = pairs(*((f"Who knows about {what}?", f"I know about {what}.") for what in ("tea", "ice", "oak", "tin")))
    source = write(tmp_path / "in.jsonl", rows)
    exact = run_negatives(source, tmp_path / "flat.parquet", encoder=encoder, index="flat")
    done = run_negatives(source, tmp_path / "hnsw.parquet", encoder=encoder, index="hnsw", storage="int8")
    walked, flat = (pl.read_parquet(tmp_path / f"{kind}.parquet") for kind in ("hnsw", "flat"))
    assert walked["negatives"].to_list() == flat["negatives"].to_list()
    assert "approximate (hnsw, int8: 4 of 4 rows in view): 100.0% of the true nearest" in done.summary
    assert "approximate" not in exact.summary


def test_a_storage_that_the_index_has_not_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="use index 'hnsw'"):
        run_negatives(tmp_path / "absent.jsonl", tmp_path / "out.parquet", index="flat", storage="int8")


def test_prompts_are_put_before_anchors_and_documents(tmp_path: Path, encoder: SentenceEncoder) -> None:
    out = tmp_path / "out.parquet"
    given = write(tmp_path / "in.jsonl", [PAIRS[0], PAIRS[2]])
    run_negatives(
        given, out, query_prompt="query: ", document_prompt="passage: ", num_negatives=1, relative_margin=None
    )
    asked = encoder.encode([f"query: {row['anchor']}" for row in (PAIRS[0], PAIRS[2])]).vectors
    held = encoder.encode([f"passage: {row['positive']}" for row in (PAIRS[0], PAIRS[2])]).vectors
    np.testing.assert_allclose(pl.read_parquet(out)["positive_score"], (asked * held).sum(axis=1), atol=1e-5)
    with pytest.raises(InputError, match="no prompt 'query'"):
        run_negatives(given, out, query_prompt="query")

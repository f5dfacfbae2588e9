"""``curation negatives``: hard negatives for a file of anchors and positives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple, Unpack

import polars as pl

from curation.commands.streams import Stream, open_stream
from curation.errors import InputError
from curation.files import open_input
from curation.models.encoder_files import RetrievalPrompts, retrieval_prompts
from curation.models.identity import EMBEDDED
from curation.negatives.index import check_index
from curation.negatives.mining import MiningOptions
from curation.negatives.texts import Doubts, MinedTexts, TextEncoder, mine_text_negatives
from curation.negatives.waterfall import WATERFALL_SCHEMA, describe_waterfall, emptying_rule
from curation.prompts.texts import refuse_json_columns, text_columns
from curation.text import normalise

__all__ = ["NegativesDone", "run_negatives"]

CORPUS_COLUMN: Final = "text"


class NegativesDone(NamedTuple):
    """What the command did."""

    rows: int
    rejected: dict[str, int]
    waterfall: pl.DataFrame
    recall: float
    summary: str
    """For the user: the waterfall, and what was written."""


def run_negatives(
    input: str | Path,
    output: str | Path,
    *,
    corpus: str | Path | None = None,
    encoder: TextEncoder | None = None,
    model: str = EMBEDDED,
    query_prompt: str | None = None,
    document_prompt: str | None = None,
    doubts: Doubts | None = None,
    note: Callable[[str], None] = lambda message: None,
    **options: Unpack[MiningOptions],
) -> NegativesDone:
    """Adds ``negatives``, ``negative_scores`` and ``positive_score`` to rows of anchor and positive.

    A row whose positive is its anchor is rejected (``anchor_is_positive``), and so is a row for which no
    negative was found (``no_negatives``).

    Args:
        input: a file with the columns ``anchor`` and ``positive``.
        output: the file to write.
        corpus: a file with the column ``text``; without it the positives of all rows are the corpus.
        encoder: a loaded encoder; None loads ``model``.
        model: a MODEL that is an encoder.
        query_prompt, document_prompt: put before anchors and documents; the model's own where it has some. See
            ``curation.models.encoder_files.retrieval_prompts``.
        doubts: the false-negative filters to run.
        note: is told what the corpus held.
        **options: of ``mine_hard_negatives``.

    Raises:
        InputError: when a file, a column or a setting is wrong.
    """
    index = options.get("index", "auto")
    if isinstance(index, str):
        check_index(index, options.get("storage"))  # before anything is embedded
    documents = None if corpus is None else _read_corpus(corpus, note)
    with open_stream(input, output, text=("anchor", "positive"), chunk_rows=None, others=(corpus,)) as stream:
        waterfall, recall, method = pl.DataFrame(schema=WATERFALL_SCHEMA), 1.0, "flat"
        prompts = retrieval_prompts(model, query=query_prompt, document=document_prompt)
        for rows in stream.chunks():
            kept = _without_self_pairs(rows, stream)
            if kept.is_empty():
                continue
            opened, queries = (encoder, None) if encoder is not None else _open(model, prompts)
            mined = mine_text_negatives(
                anchors=kept["anchor"].to_list(),
                positives=[[text] for text in kept["positive"]],
                encoder=opened,
                queries=queries,
                corpus=documents,
                doubts=doubts,
                **options,
            )
            _write(mined, kept, stream)
            waterfall, recall, method = mined.mined.waterfall, mined.mined.recall, mined.mined.method
            note(_corpus_note(mined))
        summary = f"{describe_waterfall(waterfall)}\n{stream.summary()}"
        if method != "flat":
            summary += f"\nthe search was approximate ({method}): {recall:.1%} of the true nearest documents were"
            summary += " looked at, measured on a sample that was searched exactly"
        return NegativesDone(stream.rows_written, stream.rejected, waterfall, recall, summary)


def _open(model: str, prompts: RetrievalPrompts) -> tuple[TextEncoder, TextEncoder]:
    """The encoder for documents, and the same one for anchors."""
    from curation.models.encoder import open_encoder

    documents = open_encoder(model, prompt=prompts.document)
    return documents, documents.with_prompt(prompts.query)


def _read_corpus(path: str | Path, note: Callable[[str], None]) -> list[str]:
    source = open_input(path)
    texts: list[str] = []
    left_out: Counter[str] = Counter()
    refuse_json_columns(source, (CORPUS_COLUMN,))
    for frame in source.chunks():
        read = text_columns(frame, (CORPUS_COLUMN,), name=source.name, mixed=source.mixed, whole=False)
        texts.extend(read.rows[CORPUS_COLUMN])
        left_out.update(read.rejects["rule"])
    left_out.update(reject.rule for reject in source.rejects)
    if left_out:
        rules = ", ".join(f"{rule} {count:,}" for rule, count in left_out.most_common())
        note(f"{source.name}: {left_out.total():,} rows left out of the corpus ({rules})")
    if not texts:
        raise InputError(f"{source.name}: no usable text in column {CORPUS_COLUMN!r}, expected a corpus")
    return texts


def _without_self_pairs(rows: pl.DataFrame, stream: Stream) -> pl.DataFrame:
    """The rows whose positive is not their anchor; the others are rejected."""
    same = pl.Series(
        [normalise(a) == normalise(p) for a, p in zip(rows["anchor"], rows["positive"], strict=True)],
        dtype=pl.Boolean,
    )
    for row in rows.filter(same)["row"]:
        stream.reject(row, "anchor_is_positive", "anchor", "the positive is the anchor itself: nothing to learn")
    return rows.filter(~same)


def _write(mined: MinedTexts, rows: pl.DataFrame, stream: Stream) -> None:
    negatives = [mined.negatives(row) for row in range(rows.height)]
    frame = pl.DataFrame(
        {
            "row": rows["row"],
            "negatives": pl.Series(negatives, dtype=pl.List(pl.String)),
            "negative_scores": pl.Series(
                [mined.scores(row) for row in range(rows.height)], dtype=pl.List(pl.Float64)
            ),
            "positive_score": pl.Series(
                [mined.positive_score(row) for row in range(rows.height)], dtype=pl.Float64
            ),
        }
    )
    empty = pl.col("negatives").list.len() == 0
    rule = emptying_rule(mined.mined.waterfall)
    reason = "no document passed the rules; " + ("see the waterfall" if rule is None else rule)
    for row in frame.filter(empty)["row"]:
        stream.reject(row, "no_negatives", "0", reason)
    stream.write(frame.filter(~empty))


def _corpus_note(mined: MinedTexts) -> str:
    parts = [f"corpus: {len(mined.corpus):,} distinct documents"]
    if mined.duplicates:
        parts.append(f"{mined.duplicates:,} repeats merged")
    if mined.added:
        parts.append(f"{mined.added:,} positives were not in it and were added")
    if mined.truncated:
        parts.append(f"{mined.truncated:,} texts longer than the encoder reads were cut")
    return "; ".join(parts)

"""Stage ``embeddings``: one vector for each distinct text of prompts and answers."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from curation.engine import Batch, Worker, failures_frame
from curation.errors import InputError
from curation.files import ROW, open_input
from curation.files import rejects_frame as unread_rows
from curation.ledger import FORGOTTEN, LedgerKey
from curation.models.encoder import encoder_fingerprint, open_encoder
from curation.models.encoder_files import RetrievalPrompts, has_half_width, retrieval_prompts
from curation.models.protocols import Encoder
from curation.prompts.texts import TextRows, text_columns
from curation.recipe import Encoder as EncoderOptions
from curation.stages.context import Context, Stage, StageResult
from curation.stages.forgotten import FORGOTTEN_REASON, Forgotten
from curation.tables import empty_rejects, rejects_frame
from curation.text import content_hash, normalise
from curation.text_columns import message_texts, text_ids

__all__ = [
    "STAGE",
    "EmbeddingStep",
    "anchor_step",
    "corpus_rejects",
    "corpus_texts",
    "document_step",
    "documents_of",
    "embedding_step",
    "prompts_of",
    "text_id",
    "text_ids",
]

_STEP_VERSION = 1
_HALF_WIDTH_VERSION = 2
"""Of encoders with weights in half the width, whose vectors of before were off by some thousandths."""


@dataclass(frozen=True)
class EmbeddingStep:
    """Encoding texts.

    Attributes:
        prompt: put before each text; None for what the model puts there by itself.
    """

    options: EncoderOptions
    prompt: str | None = None

    @property
    def name(self) -> str:
        return "embeddings"

    @property
    def batch_rows(self) -> int:
        return self.options.batch_rows

    @property
    def key(self) -> LedgerKey:
        o = self.options
        producer = encoder_fingerprint(o.model, max_length=o.max_length, prompt=self.prompt)
        version = _HALF_WIDTH_VERSION if has_half_width(o.model) else _STEP_VERSION
        return LedgerKey("embeddings", "text_id", "model", f"{producer} step{version}")

    def open(self) -> Worker:
        o = self.options
        return _Encoding(open_encoder(o.model, max_length=o.max_length, prompt=self.prompt))


@dataclass
class _Encoding:
    encoder: Encoder

    def __call__(self, batch: pl.DataFrame) -> Batch:
        encoded = self.encoder.encode(batch["text"].to_list())
        rows = pl.DataFrame(
            {
                "text_id": batch["text_id"],
                "vector": pl.Series(encoded.vectors, dtype=pl.Array(pl.Float32, encoded.vectors.shape[1])),
                "truncated": encoded.truncated,
            }
        )
        return Batch(rows.with_columns(pl.col("vector").arr.to_list()), failures_frame([]))


def embedding_step(context: Context) -> EmbeddingStep:
    """The step that a recipe asks for; its encoder must be set."""
    assert context.recipe.encoder is not None
    return EmbeddingStep(context.recipe.encoder)


def prompts_of(options: EncoderOptions) -> RetrievalPrompts:
    """What an encoder reads before anchors and before documents when hard negatives are mined."""
    return retrieval_prompts(options.model, query=options.query_prompt, document=options.document_prompt)


def anchor_step(context: Context) -> EmbeddingStep:
    """The recipe's encoder with what it reads before a query; where that is nothing, ``embeddings`` has run it."""
    options = embedding_step(context).options
    return EmbeddingStep(options, prompts_of(options).query)


def document_step(context: Context) -> EmbeddingStep:
    """The same for the documents that are searched."""
    options = embedding_step(context).options
    return EmbeddingStep(options, prompts_of(options).document)


def text_id(text: str) -> str:
    """The identifier of a text to encode."""
    return content_hash("text", normalise(text))


def corpus_texts(context: Context) -> pl.Series:
    """The documents of the recipe's corpus file, in its order, but for forgotten ones; none where there is no file.

    Raises:
        InputError: when the file cannot be read or has no column ``text``.
    """
    options = context.recipe.negatives
    if options is None or options.corpus is None:
        return pl.Series("text", [], dtype=pl.String)
    texts = documents_of(options.corpus)
    forgotten = Forgotten(context.workspace)
    return texts.filter(~forgotten.has("text", text_ids(texts))) if forgotten else texts


def corpus_rejects(context: Context) -> pl.DataFrame:
    """The rows of the corpus file that are no documents, or forgotten ones, as rejects of ``retrieval`` without any
    text."""
    options, forgotten = context.recipe.negatives, Forgotten(context.workspace)
    if options is None or options.corpus is None:
        return empty_rejects()
    read = _corpus(options.corpus)
    gone = read.rows.filter(forgotten.has("text", text_ids(read.rows["text"])) if forgotten else pl.lit(False))
    forgotten_rows = gone.select("row", rule=pl.lit(FORGOTTEN), value=None, reason=pl.lit(FORGOTTEN_REASON))
    return rejects_frame(
        pl.concat([read.rejects, forgotten_rows], how="vertical_relaxed"), table="retrieval", stage="retrieval",
        row_id=pl.format("corpus#{}", "row"), rule=pl.col("rule"), value=pl.col("value"), reason=pl.col("reason"),
    )  # fmt: skip


def documents_of(path: str) -> pl.Series:
    """The documents of a corpus file, in its order.

    Raises:
        InputError: when the file cannot be read or has no column ``text``.
    """
    return _corpus(path).rows["text"]


def _corpus(path: str) -> TextRows:
    """The documents of a corpus file by their row, and the rows that are none."""
    source = open_input(path)
    frames = list(source.chunks(None))
    frame = frames[0] if frames else source.head()
    if "text" not in frame.columns:
        raise InputError(
            f"{path}: expected a column 'text', found {', '.join(c for c in frame.columns if c != ROW)}"
        )
    read = text_columns(frame, ("text",), name=path, mixed=source.mixed)
    return TextRows(read.rows, pl.concat([read.rejects, unread_rows(source.rejects)]))


def _texts(context: Context) -> pl.DataFrame:
    """Every prompt, every answer and every document of the corpus: text_id, text."""
    prompts = context.workspace.scan("prompts").select("messages").collect()["messages"]
    answers = context.workspace.scan("candidates").select("response").collect()["response"]
    asked = message_texts(prompts).alias("text")
    texts = pl.concat([asked, answers.alias("text"), corpus_texts(context)])
    return pl.DataFrame({"text_id": text_ids(texts), "text": texts}).unique("text_id", maintain_order=True)


def run(context: Context) -> StageResult:
    step = embedding_step(context)
    texts = _texts(context)
    report = context.compute(step, texts)
    truncated = (
        context.workspace.scan("embeddings")
        .filter((pl.col("model") == step.key.producer) & pl.col("truncated"))
        .select("text_id")
        .join(texts.lazy().select("text_id"), on="text_id", how="semi")
        .select(pl.len())
        .collect()
        .item()
    )
    facts = {
        "computed": report.computed,
        "read only in part (too long)": truncated,
        "encoder": step.key.producer,
    }
    return StageResult("embeddings", texts.height, report.failed, facts)


STAGE = Stage(
    name="embeddings",
    group="scores",
    description="The vector of each distinct prompt and answer under the recipe's encoder.",
    needs=("prompts", "candidates"),
    run=run,
    table="embeddings",
    enabled=lambda recipe: recipe.encoder is not None,
    uses_model=True,
)

"""Stage ``retrieval``: a prompt, an answer that is right for it, and near ones that are not. No model is called."""

from __future__ import annotations

import numpy as np
import polars as pl

from curation.negatives.mining import MinedNegatives, mine_hard_negatives
from curation.publish.formats import retrieval_frame
from curation.recipe import Negatives
from curation.scores.similarity import vector_matrix
from curation.stages.context import Context, Stage, StageResult
from curation.stages.embeddings import corpus_texts, embedding_step, text_ids
from curation.stages.preference import kept_pairs
from curation.stages.waterfall import write_waterfall
from curation.tables import concat_rejects, rejects_frame
from curation.text import messages_text
from schemas import TABLES

__all__ = ["STAGE"]


def run(context: Context) -> StageResult:
    options = context.recipe.negatives
    assert options is not None
    anchors = _anchors(context)
    documents = _documents(context)
    vectors = context.ledger.fetch(
        embedding_step(context).key, pl.concat([anchors["text_id"], documents["text_id"]])
    ).select("text_id", "vector")
    lost = anchors.join(vectors, on="text_id", how="anti", maintain_order="left")
    anchors = anchors.join(vectors, on="text_id", maintain_order="left")
    documents = documents.join(vectors, on="text_id", maintain_order="left").with_row_index("place")
    own = _own_answers(context, documents, anchors)
    alone = anchors.join(own, on="prompt_id", how="anti", maintain_order="left")
    left_out = concat_rejects(_left_out(lost, "no_embedding"), _left_out(alone, "no_positive"))
    anchors = anchors.join(own, on="prompt_id", maintain_order="left")
    if anchors.is_empty() or documents.is_empty():
        return context.write("retrieval", "retrieval", TABLES["retrieval"].create_empty(), rejects=left_out)
    mined = _mined(anchors, documents, options, context.recipe.seed)
    built = retrieval_frame(_tuples(anchors, documents, mined), num_negatives=options.num_negatives)
    rules = mined.waterfall.select("rule", "removed", "left")
    write_waterfall(context, "retrieval", rules.with_columns(stage=pl.lit("retrieval")))
    facts = {"documents": documents.height, "recall of the search": float(mined.recall)}
    rejects = concat_rejects(built.rejects, left_out)
    return context.write("retrieval", "retrieval", built.frame, rejects=rejects, facts=facts)


def _anchors(context: Context) -> pl.DataFrame:
    """The prompts as texts: prompt_id, split, anchor, text_id."""
    prompts = context.workspace.scan("prompts").select("prompt_id", "messages", "split").collect()
    texts = pl.Series("anchor", [messages_text(m) for m in prompts["messages"].to_list()], dtype=pl.String)
    return prompts.drop("messages").with_columns(texts, text_ids(texts).alias("text_id"))


def _documents(context: Context) -> pl.DataFrame:
    """The corpus, and every answer that is not in it: text, text_id, each once."""
    answers = context.workspace.scan("candidates").select(text="response").collect()["text"]
    texts = pl.concat([corpus_texts(context), answers]).alias("text")
    return pl.DataFrame([texts, text_ids(texts).alias("text_id")]).unique("text_id", maintain_order=True)


def _own_answers(context: Context, documents: pl.DataFrame, anchors: pl.DataFrame) -> pl.DataFrame:
    """For each prompt its positives, and what must not be its negative: prompt_id, positives, excluded.

    Positives are the chosen answers of its selected pairs; where no pair was built from the prompt, all
    answers that a source brings. An answer that is neither chosen nor rejected may well be right, so it is
    excluded; one that was rejected in a selected pair may be a negative.
    """
    pairs = kept_pairs(context)
    candidates = (
        context.workspace.scan("candidates").select("prompt_id", "candidate_id", "response", "origin").collect()
    )
    candidates = candidates.with_columns(text_ids(candidates["response"]).alias("text_id"))
    built = _with_pairs(context)
    paired = candidates.join(built, on="prompt_id", how="semi")
    alone = candidates.filter(pl.col("origin") == "provided").join(built, on="prompt_id", how="anti")
    chosen = paired.join(pairs, left_on="candidate_id", right_on="chosen_id", how="semi")
    rejected = paired.join(pairs, left_on="candidate_id", right_on="rejected_id", how="semi")
    places = documents.select("text_id", "place")
    positives = _places(pl.concat([chosen, alone]), places, "positives")
    neutral = candidates.join(rejected, on="candidate_id", how="anti")
    excluded = _places(neutral, places, "excluded")
    return positives.join(excluded, on="prompt_id", how="left").with_columns(
        pl.col("excluded").fill_null(pl.lit([], dtype=pl.List(pl.Int64)))
    )


def _with_pairs(context: Context) -> pl.DataFrame:
    """The prompts that pairs were built from."""
    if not context.recipe.builds_pairs:
        return pl.DataFrame(schema={"prompt_id": pl.String})
    return context.workspace.scan("pairs").select("prompt_id").unique().collect()


def _places(candidates: pl.DataFrame, places: pl.DataFrame, name: str) -> pl.DataFrame:
    found = candidates.join(places, on="text_id").sort("place")
    return found.group_by("prompt_id").agg(pl.col("place").cast(pl.Int64).unique().sort().alias(name))


def _mined(anchors: pl.DataFrame, documents: pl.DataFrame, options: Negatives, seed: int) -> MinedNegatives:
    return mine_hard_negatives(
        anchor_embeddings=vector_matrix(anchors["vector"]),
        corpus_embeddings=vector_matrix(documents["vector"]),
        positives=anchors["positives"].to_list(),
        exclude=anchors["excluded"].to_list(),
        num_negatives=options.num_negatives,
        range_min=options.range_min,
        range_max=options.range_max,
        max_score=options.max_score,
        min_score=options.min_score,
        absolute_margin=options.absolute_margin,
        relative_margin=options.relative_margin,
        sampling=options.sampling,
        seed=seed,
    )


def _tuples(anchors: pl.DataFrame, documents: pl.DataFrame, mined: MinedNegatives) -> pl.DataFrame:
    """One row for each anchor and positive, with the anchor's negatives."""
    texts = documents["text"].to_list()
    negatives = [[texts[i] for i in row if i >= 0] for row in mined.negatives.tolist()]
    scores = [[s for s in row if not np.isnan(s)] for row in mined.scores.tolist()]
    frame = anchors.select(
        "anchor",
        "split",
        "positives",
        anchor_id="prompt_id",
        negatives=pl.Series(negatives, dtype=pl.List(pl.String)),
        negative_scores=pl.Series(scores, dtype=pl.List(pl.Float32)),
        positive_score=pl.Series(mined.positive_scores.astype(np.float64)),
    ).explode("positives")
    known = documents.select(positives=pl.col("place").cast(pl.Int64), positive="text", positive_id="text_id")
    return frame.join(known, on="positives", maintain_order="left").drop("positives")


def _left_out(anchors: pl.DataFrame, rule: str) -> pl.DataFrame:
    """Prompts that cannot be anchors."""
    reasons = {
        "no_embedding": "the encoder could not embed the prompt",
        "no_positive": "no answer is known to be right: the prompt has no selected pair and no provided answer",
    }
    return rejects_frame(
        anchors,
        table="retrieval",
        stage="retrieval",
        row_id=pl.col("prompt_id"),
        rule=rule,
        reason=reasons[rule],
    )


STAGE = Stage(
    name="retrieval",
    group="datasets",
    description="Anchor, positive and hard negatives, in sentence-transformers' form.",
    needs=("prompts", "candidates", "embeddings", "pairs", "preference"),
    run=run,
    table="retrieval",
    enabled=lambda recipe: "retrieval" in recipe.publish.datasets,
)

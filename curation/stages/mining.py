"""Mining as the recipe's section ``negatives`` asks: vectors, index, filters. No stage is here.

The library is ``curation.negatives``; the stage is ``retrieval``. Other prompts' answers are in ``other_answers``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import polars as pl

from curation.negatives.false_negatives import AgreementFilter, GuideFilter, NearPositiveFilter, RescoreFilter
from curation.negatives.filters import CandidateFilter
from curation.negatives.index import searches_exactly
from curation.negatives.inputs import Embeddings
from curation.negatives.mining import MinedNegatives, mine_hard_negatives
from curation.negatives.sides import SplitFilter
from curation.negatives.store import CorpusIndex
from curation.recipe import Negatives
from curation.scores.similarity import vector_matrix
from curation.stages.context import Context
from curation.stages.embeddings import document_step, prompts_of, text_ids
from curation.stages.kept_index import kept_index
from curation.stages.ledger_encoder import LedgerEncoder
from curation.stages.rescoring import LedgerScorer

__all__ = ["MiningCorpus", "mine", "mining_corpus"]


class MiningCorpus(NamedTuple):
    """The documents that have a vector."""

    documents: pl.DataFrame
    """text, text_id, place (their row number)."""
    vectors: Embeddings
    """In the order of their places; mapped from disk where there is an index."""
    corpus_index: CorpusIndex | None
    facts: dict[str, Any]


def mining_corpus(context: Context, documents: pl.DataFrame, options: Negatives, *, anchors: int) -> MiningCorpus:
    """The corpus in memory, or the workspace's index of it where the search is to be approximate.

    Args:
        documents: text, text_id, each once.
        anchors: how many will be searched for.
    """
    step = document_step(context)
    if step.prompt is not None:
        context.compute(step, documents.select("text_id", "text"))
    key = step.key
    in_memory = options.index in {"flat", "hnsw"} or (
        options.index == "auto" and searches_exactly(queries=anchors, rows=documents.height)
    )
    if not in_memory and context.workspace.is_local:
        kept = kept_index(context, documents["text_id"], key, storage=options.storage)
        if kept is not None:
            # Documents that have gone from the corpus made the index be built anew: it holds no others.
            ordered = kept.ids.to_frame("text_id").join(documents, on="text_id", maintain_order="left")
            facts = {"index": f"{kept.corpus_index.rows:,} rows, {kept.added:,} added" + " anew" * kept.rebuilt}
            return MiningCorpus(_placed(ordered), kept.vectors, kept.corpus_index, facts)
    found = context.ledger.fetch(key, documents["text_id"]).select("text_id", "vector")
    ordered = documents.join(found, on="text_id", maintain_order="left")
    return MiningCorpus(_placed(ordered.drop("vector")), vector_matrix(ordered["vector"]), None, {})


def _placed(documents: pl.DataFrame) -> pl.DataFrame:
    return documents.select("text", "text_id").with_row_index("place")


def mine(context: Context, anchors: pl.DataFrame, corpus: MiningCorpus, options: Negatives) -> MinedNegatives:
    """The negatives of each anchor by similarity.

    Args:
        anchors: prompt_id, messages, split, anchor, text_id, vector, positives and excluded (places).
    """
    return mine_hard_negatives(
        anchor_embeddings=vector_matrix(anchors["vector"]),
        corpus_embeddings=corpus.vectors,
        positives=anchors["positives"].to_list(),
        exclude=anchors["excluded"].to_list(),
        num_negatives=options.mined,
        range_min=options.range_min,
        range_max=options.range_max,
        max_score=options.max_score,
        min_score=options.min_score,
        absolute_margin=options.absolute_margin,
        relative_margin=options.relative_margin,
        sampling=options.sampling,
        temperature=options.temperature,
        seed=context.recipe.seed,
        index=corpus.corpus_index if corpus.corpus_index is not None else options.index,
        storage=options.storage if options.index == "hnsw" else None,
        target_recall=options.target_recall,
        barred=SplitFilter(anchors=anchors["split"].to_list(), documents=_splits_of(context, corpus)),
        filters=_filters(context, anchors, corpus, options),
    )


def _filters(
    context: Context, anchors: pl.DataFrame, corpus: MiningCorpus, options: Negatives
) -> list[CandidateFilter]:
    """The false-negative rules that the recipe asks for, cheap ones first."""
    rules: list[CandidateFilter] = []
    positives, texts = anchors["positives"].to_list(), corpus.documents["text"].to_list()
    if options.near_positive is not None:
        rules.append(
            NearPositiveFilter(
                corpus_embeddings=corpus.vectors,
                positives=positives,
                anchors=anchors.height,
                threshold=options.near_positive,
            )
        )
    guides = []
    for guide in options.guides:
        prompts = prompts_of(guide)
        asking = LedgerEncoder(context, guide, prompt=prompts.query)
        holding = LedgerEncoder(context, guide, prompt=prompts.document)
        guides.append(
            GuideFilter(
                anchor_embeddings=asking.encode(anchors["anchor"].to_list()).vectors,
                corpus_embeddings=holding.encode(texts).vectors,
                positives=positives,
                margin=options.guide_margin,
            )
        )
    if len(guides) == 1:
        rules.append(guides[0])
    elif guides:
        rules.append(AgreementFilter(guides, votes=options.guide_votes))
    if options.rescorer is not None:
        rules.append(
            RescoreFilter(
                LedgerScorer(context, options.rescorer, anchors=anchors, documents=texts),
                positives=positives,
                anchors=anchors.height,
                corpus=len(texts),
                margin=options.rescorer.margin,
                depth=options.rescorer.depth,
            )
        )
    return rules


def _splits_of(context: Context, corpus: MiningCorpus) -> list[list[str]]:
    """For each document the splits of the prompts that it answers."""
    answers = context.workspace.scan("candidates").select("prompt_id", "response").collect()
    prompts = context.workspace.scan("prompts").select("prompt_id", "split").collect()
    said = pl.DataFrame([answers["prompt_id"], text_ids(answers["response"]).alias("text_id")])
    sides = said.join(prompts, on="prompt_id").group_by("text_id").agg(pl.col("split").unique())
    documents = corpus.documents.join(sides, on="text_id", how="left", maintain_order="left")
    found: list[list[str]] = [own or [] for own in documents["split"].to_list()]
    return found

"""Mining as the recipe's section ``negatives`` asks: vectors, index, filters, other sources. No stage is here.

The library is ``curation.negatives``; the stage is ``retrieval``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import polars as pl

from curation.negatives.false_negatives import AgreementFilter, GuideFilter, NearPositiveFilter, RescoreFilter
from curation.negatives.filters import CandidateFilter
from curation.negatives.index import searches_exactly
from curation.negatives.inputs import Embeddings, Float32, Int64
from curation.negatives.mining import MinedNegatives, mine_hard_negatives
from curation.negatives.sources import SAME_ANSWER, answer_negatives, sibling_negatives
from curation.negatives.store import CorpusIndex
from curation.recipe import Negatives
from curation.scores.similarity import vector_matrix
from curation.stages.context import Context
from curation.stages.embeddings import embedding_step, text_ids
from curation.stages.kept_index import kept_index
from curation.stages.ledger_encoder import LedgerEncoder
from curation.stages.rescoring import LedgerScorer

__all__ = ["MiningCorpus", "OtherAnswers", "mine", "mining_corpus", "other_answers"]


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
    key = embedding_step(context).key
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
        anchors: prompt_id, messages, anchor, text_id, vector, positives and excluded (places).
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
        encoder = LedgerEncoder(context, guide)
        guides.append(
            GuideFilter(
                anchor_embeddings=encoder.encode(anchors["anchor"].to_list()).vectors,
                corpus_embeddings=encoder.encode(texts).vectors,
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


class OtherAnswers(NamedTuple):
    """Negatives from the answers to other prompts."""

    places: list[list[int]]
    """Per anchor; fewer where there are fewer."""
    scores: list[list[float]]
    """Their cosine with the anchor."""
    facts: dict[str, Any]


def other_answers(
    context: Context, anchors: pl.DataFrame, corpus: MiningCorpus, mined: MinedNegatives, options: Negatives
) -> OtherAnswers:
    """Answers to prompts near the anchor, far from it, or of a sibling category: none of its own or mined ones."""
    places: list[list[int]] = [[] for _ in range(anchors.height)]
    wanted = {"near_prompt": options.near_prompt_answers, "off_topic": options.off_topic_answers}
    total = sum(wanted.values()) + options.sibling_answers
    if not total:
        return OtherAnswers(places, [[] for _ in places], {})
    answers = _answers(context, anchors, corpus)
    if answers.is_empty():
        return OtherAnswers(places, [[] for _ in places], {"anchors short of other answers": anchors.height})
    vectors = np.asarray(corpus.vectors[answers["place"].to_numpy()], np.float32)
    first = anchors.select(pl.col("positives").list.first().cast(pl.Int64).alias("place"), "row")
    # An anchor's positive may be a document of the corpus that is nobody's answer: it is put beside them.
    chosen = np.arange(anchors.height) + len(vectors)
    own = np.asarray(corpus.vectors[first["place"].to_numpy()], np.float32)
    prompts: Float32 = vector_matrix(anchors["vector"])
    taken = [
        {*positives, *excluded, *negatives}
        for positives, excluded, negatives in zip(
            anchors["positives"].to_list(), anchors["excluded"].to_list(), mined.negatives.tolist(), strict=True
        )
    ]
    at = np.concatenate((answers["place"].to_numpy(), first["place"].to_numpy())).astype(np.int64)
    for source, count in wanted.items():
        if not count:
            continue
        widest = max(map(len, taken))
        found = answer_negatives(
            source,  # type: ignore[arg-type]
            chosen=chosen,
            prompt_of_answer=np.concatenate((answers["row"].to_numpy(), first["row"].to_numpy())),
            prompt_embeddings=prompts,
            answer_embeddings=np.concatenate((vectors, own)),
            prompt_threshold=options.prompt_threshold,
            count=count + widest,
            seed=context.recipe.seed,
        )
        _add(_unlike_positives(found.rows, at, anchors, corpus), at, count, places, taken)
    if options.sibling_answers:
        rows = _sibling_answers(context, anchors, answers, vectors, options, wanted=max(map(len, taken)))
        _add(rows, at, options.sibling_answers, places, taken)
    scores = [
        [float(s) for s in np.asarray(corpus.vectors[own_places], np.float32) @ prompt] if own_places else []
        for own_places, prompt in zip(places, prompts, strict=True)
    ]
    short = sum(len(found) < total for found in places)
    return OtherAnswers(places, scores, {"anchors short of other answers": short})


def _unlike_positives(rows: Int64, at: Int64, anchors: pl.DataFrame, corpus: MiningCorpus) -> Int64:
    """``rows`` without those that say the same as a further positive; with the first they were compared before."""
    kept = rows.copy()
    for anchor, positives in enumerate(anchors["positives"].to_list()):
        found = np.flatnonzero(rows[anchor] >= 0)
        if len(positives) > 1 and len(found):
            answers = np.asarray(corpus.vectors[at[rows[anchor, found]]], np.float32)
            own = np.asarray(corpus.vectors[positives[1:]], np.float32)
            kept[anchor, found[(answers @ own.T).max(axis=1) > SAME_ANSWER]] = -1
    return kept


def _add(rows: Int64, at: Int64, count: int, places: list[list[int]], taken: list[set[int]]) -> None:
    """Gives each anchor the first ``count`` of its rows whose places are not taken yet."""
    for anchor, found in enumerate(rows.tolist()):
        new = dict.fromkeys(int(at[row]) for row in found if row >= 0)
        fresh = [place for place in new if place not in taken[anchor]][:count]
        places[anchor] += fresh
        taken[anchor] |= set(fresh)


def _sibling_answers(
    context: Context,
    anchors: pl.DataFrame,
    answers: pl.DataFrame,
    vectors: Float32,
    options: Negatives,
    *,
    wanted: int,
) -> Int64:
    """(anchors, …) rows of ``answers`` to prompts of a sibling category, the nearest to the anchor first."""
    categories = context.workspace.scan("prompts").select("prompt_id", "category").collect()
    labels = anchors.join(categories, on="prompt_id", how="left", maintain_order="left")["category"].fill_null("")
    own = answers.with_columns(labels.gather(answers["row"]).alias("label"))
    # A text that answers prompts of several categories is vouched for by none.
    single = own.with_columns(several=pl.col("label").n_unique().over("place") > 1)
    theirs = single.select(pl.when("several").then(pl.lit("")).otherwise("label")).to_series()
    return sibling_negatives(
        anchor_embeddings=vector_matrix(anchors["vector"]),
        corpus_embeddings=vectors,
        anchor_labels=labels.to_list(),
        corpus_labels=theirs.to_list(),
        parents={category: parent for category, parent in options.taxonomy.items() if category},
        num_negatives=options.sibling_answers + wanted,
    ).rows


def _answers(context: Context, anchors: pl.DataFrame, corpus: MiningCorpus) -> pl.DataFrame:
    """Every answer of the anchors' prompts: row (of the anchor), place (of the document)."""
    answers = context.workspace.scan("candidates").select("prompt_id", "response").collect()
    answers = answers.with_columns(text_ids(answers["response"]).alias("text_id"))
    return (
        answers.join(anchors.select("prompt_id", "row"), on="prompt_id", maintain_order="left")
        .join(
            corpus.documents.select("text_id", pl.col("place").cast(pl.Int64)), on="text_id", maintain_order="left"
        )
        .select("row", "place")
        .unique(maintain_order=True)
    )

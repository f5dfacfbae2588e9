"""Negatives from the answers to other prompts, as the recipe's section ``negatives`` asks. No stage is here.

The library is ``curation.negatives.sources``; negatives by similarity are in ``mining``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import polars as pl

from curation.negatives.inputs import Float32, Int64
from curation.negatives.mining import MinedNegatives
from curation.negatives.sides import LENDERS
from curation.negatives.sources import SAME_ANSWER, answer_negatives, sibling_negatives
from curation.recipe import Negatives
from curation.scores.similarity import vector_matrix
from curation.stages.context import Context
from curation.stages.embeddings import text_ids
from curation.stages.mining import MiningCorpus

__all__ = ["OtherAnswers", "other_answers"]


class OtherAnswers(NamedTuple):
    """Negatives from the answers to other prompts."""

    places: list[list[int]]
    """Per anchor; fewer where there are fewer."""
    scores: list[list[float]]
    """Their cosine with the anchor."""
    facts: dict[str, Any]


class _Askers(NamedTuple):
    """Anchors of one split, and whose answers they may have."""

    anchors: pl.DataFrame
    lenders: pl.DataFrame
    """Anchors of the splits that lend them answers, themselves among them."""
    answers: pl.DataFrame
    """Of the lenders: row (of the anchor), place (of the document), label (the category that it stands for)."""
    taken: list[set[int]]
    """Per asking anchor the places that it has, or may not have."""


def other_answers(
    context: Context, anchors: pl.DataFrame, corpus: MiningCorpus, mined: MinedNegatives, options: Negatives
) -> OtherAnswers:
    """Answers to prompts near the anchor, far from it, or of a sibling category: none of its own or mined ones.

    They come from the splits that lend to the anchor's (``LENDERS``).

    Args:
        anchors: prompt_id, row (their number), split, vector, positives and excluded (places).
    """
    places: list[list[int]] = [[] for _ in range(anchors.height)]
    total = options.near_prompt_answers + options.off_topic_answers + options.sibling_answers
    if not total:
        return OtherAnswers(places, [[] for _ in places], {})
    answers = _answers(context, anchors, corpus)
    for split, lending in LENDERS.items():
        own = anchors.filter(pl.col("split") == split)
        lenders = anchors.filter(pl.col("split").is_in(lending))
        lent = answers.join(lenders.select("row"), on="row", how="semi", maintain_order="left")
        if own.is_empty() or lent.is_empty():
            continue
        taken = [
            {*positives, *excluded, *negatives}
            for positives, excluded, negatives in zip(
                own["positives"].to_list(), own["excluded"].to_list(),
                mined.negatives[own["row"].to_numpy()].tolist(), strict=True,
            )
        ]  # fmt: skip
        found = _for_askers(context, _Askers(own, lenders, lent, taken), corpus, options)
        for row, given in zip(own["row"].to_list(), found, strict=True):
            places[row] = given
    prompts: Float32 = vector_matrix(anchors["vector"])
    scores = [
        [float(s) for s in np.asarray(corpus.vectors[own_places], np.float32) @ prompt] if own_places else []
        for own_places, prompt in zip(places, prompts, strict=True)
    ]
    short = sum(len(found) < total for found in places)
    return OtherAnswers(places, scores, {"anchors short of other answers": short})


def _for_askers(context: Context, askers: _Askers, corpus: MiningCorpus, options: Negatives) -> list[list[int]]:
    """The places that each asking anchor gets."""
    places: list[list[int]] = [[] for _ in range(askers.anchors.height)]
    vectors = np.asarray(corpus.vectors[askers.answers["place"].to_numpy()], np.float32)
    first = askers.anchors.select(pl.col("positives").list.first().cast(pl.Int64).alias("place"), "row")
    # An anchor's positive may be a document of the corpus that is nobody's answer: it is put beside them.
    chosen = np.arange(first.height) + len(vectors)
    both = pl.concat([askers.answers.select("place", "row"), first.select("place", "row")], how="vertical_relaxed")
    at = both["place"].to_numpy().astype(np.int64)
    local = pl.DataFrame([askers.lenders["row"]]).with_row_index("local")
    same = _same_answer(options)
    for source, count in (("near_prompt", options.near_prompt_answers), ("off_topic", options.off_topic_answers)):
        if not count:
            continue
        found = answer_negatives(
            source,  # type: ignore[arg-type]
            chosen=chosen,
            prompt_of_answer=both.join(local, on="row", maintain_order="left")["local"].to_numpy(),
            prompt_embeddings=vector_matrix(askers.lenders["vector"]),
            answer_embeddings=np.asarray(corpus.vectors[at], np.float32),
            prompt_threshold=options.prompt_threshold,
            max_score=same,
            count=count + max(map(len, askers.taken)),
            seed=context.recipe.seed,
        )
        _add(_unlike_positives(found.rows, at, askers.anchors, corpus, same), at, count, places, askers.taken)
    if options.sibling_answers:
        rows = _sibling_answers(askers, vectors, options)
        _add(_unlike_positives(rows, at, askers.anchors, corpus, same), at, options.sibling_answers, places,
             askers.taken)  # fmt: skip
    return places


def _same_answer(options: Negatives) -> float:
    """The cosine above which an answer says what a positive says."""
    return SAME_ANSWER if options.near_positive is None else min(SAME_ANSWER, options.near_positive)


def _unlike_positives(rows: Int64, at: Int64, anchors: pl.DataFrame, corpus: MiningCorpus, same: float) -> Int64:
    """``rows`` without those that say the same as a positive."""
    kept = rows.copy()
    for anchor, positives in enumerate(anchors["positives"].to_list()):
        found = np.flatnonzero(rows[anchor] >= 0)
        if len(found):
            answers = np.asarray(corpus.vectors[at[rows[anchor, found]]], np.float32)
            own = np.asarray(corpus.vectors[positives], np.float32)
            kept[anchor, found[(answers @ own.T).max(axis=1) > np.float32(same)]] = -1
    return kept


def _add(rows: Int64, at: Int64, count: int, places: list[list[int]], taken: list[set[int]]) -> None:
    """Gives each anchor the first ``count`` of its rows whose places are not taken yet."""
    for anchor, found in enumerate(rows.tolist()):
        new = dict.fromkeys(int(at[row]) for row in found if row >= 0)
        fresh = [place for place in new if place not in taken[anchor]][:count]
        places[anchor] += fresh
        taken[anchor] |= set(fresh)


def _sibling_answers(askers: _Askers, vectors: Float32, options: Negatives) -> Int64:
    """(anchors, …) rows of the answers to prompts of a sibling category, the nearest to the anchor first."""
    return sibling_negatives(
        anchor_embeddings=vector_matrix(askers.anchors["vector"]),
        corpus_embeddings=vectors,
        anchor_labels=askers.anchors["category"].to_list(),
        corpus_labels=askers.answers["label"].to_list(),
        parents={category: parent for category, parent in options.taxonomy.items() if category},
        num_negatives=options.sibling_answers + max(map(len, askers.taken)),
    ).rows


def _answers(context: Context, anchors: pl.DataFrame, corpus: MiningCorpus) -> pl.DataFrame:
    """Every answer of the anchors' prompts: row (of the anchor), place (of the document), label.

    The label is the prompt's category; a text that answers prompts of several is vouched for by none.
    """
    answers = context.workspace.scan("candidates").select("prompt_id", "response").collect()
    answers = answers.with_columns(text_ids(answers["response"]).alias("text_id"))
    found = (
        answers.join(anchors.select("prompt_id", "row", "category"), on="prompt_id", maintain_order="left")
        .join(
            corpus.documents.select("text_id", pl.col("place").cast(pl.Int64)), on="text_id", maintain_order="left"
        )
        .select("row", "place", label="category")
        .unique(maintain_order=True)
    )
    several = pl.col("label").n_unique().over("place") > 1
    return found.with_columns(pl.when(several).then(pl.lit("")).otherwise("label").alias("label"))

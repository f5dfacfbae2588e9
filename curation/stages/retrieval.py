"""Stage ``retrieval``: a prompt, an answer that is right for it, and near ones that are not.

No model is called, but for the guides and the rescorer that a recipe may name.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import polars as pl

from curation.negatives.mining import MinedNegatives
from curation.negatives.waterfall import emptying_rule
from curation.publish.formats import retrieval_frame
from curation.stages.context import Context, Stage, StageResult
from curation.stages.embeddings import anchor_step, corpus_rejects, corpus_texts, text_ids
from curation.stages.hygiene import prompted_inputs
from curation.stages.mining import MiningCorpus, mine, mining_corpus
from curation.stages.other_answers import OtherAnswers, other_answers
from curation.stages.preference import kept_pairs
from curation.stages.waterfall import write_waterfall
from curation.tables import concat_rejects, rejects_frame, validated
from curation.text_columns import message_texts
from schemas import TABLES

__all__ = ["STAGE"]

_RULES: Final = {"stage": pl.String, "rule": pl.String, "removed": pl.Int64, "left": pl.Int64}
_SEARCH: Final = {
    "dataset": pl.String,
    "anchors": pl.Int64,
    "documents": pl.Int64,
    "method": pl.String,
    "recall": pl.Float64,
}


def run(context: Context) -> StageResult:
    options = context.recipe.negatives
    assert options is not None
    anchors = _anchors(context)
    corpus = mining_corpus(context, _documents(context), options, anchors=anchors.height)
    step = anchor_step(context)
    if step.prompt is not None:
        context.compute(step, anchors.select("text_id", text="anchor").unique("text_id", maintain_order=True))
    vectors = context.ledger.fetch(step.key, anchors["text_id"]).select("text_id", "vector")
    lost = anchors.join(vectors, on="text_id", how="anti", maintain_order="left")
    anchors = anchors.join(vectors, on="text_id", maintain_order="left")
    own = _own_answers(context, corpus.documents, anchors)
    alone = anchors.join(own, on="prompt_id", how="anti", maintain_order="left")
    left_out = concat_rejects(
        _left_out(lost, "no_embedding"), _left_out(alone, "no_positive"), corpus_rejects(context)
    )
    anchors = anchors.join(own, on="prompt_id", maintain_order="left").with_row_index("row")
    if anchors.is_empty() or corpus.documents.is_empty():
        _write_search(context, None, corpus, anchors)
        write_waterfall(context, "retrieval", pl.DataFrame(schema=_RULES))
        return context.write("retrieval", "retrieval", TABLES["retrieval"].create_empty(), rejects=left_out)
    mined = mine(context, anchors, corpus, options)
    others = other_answers(context, anchors, corpus, mined, options)
    tuples = _tuples(anchors, corpus.documents, mined, others)
    built = retrieval_frame(tuples, num_negatives=options.num_negatives)
    write_waterfall(context, "retrieval", mined.waterfall.with_columns(stage=pl.lit("retrieval")))
    _write_search(context, mined, corpus, anchors)
    facts = {"documents": corpus.documents.height, "recall of the search": float(mined.recall)}
    facts |= {"search": mined.method} | corpus.facts | others.facts
    rejects = concat_rejects(_with_reason(built.rejects, mined.waterfall), left_out)
    return context.write("retrieval", "retrieval", built.frame, rejects=rejects, facts=facts)


def _write_search(
    context: Context, mined: MinedNegatives | None, corpus: MiningCorpus, anchors: pl.DataFrame
) -> None:
    """Keep how the search was done, and the share of the true nearest that it found."""
    row = {
        "dataset": "retrieval",
        "anchors": anchors.height,
        "documents": corpus.documents.height,
        "method": mined.method if mined else "none",
        "recall": float(mined.recall) if mined else None,
    }
    frame = validated("searches", pl.DataFrame([row], schema=_SEARCH), stage="retrieval").kept
    context.workspace.overwrite("searches", frame)


def _with_reason(rejects: pl.DataFrame, waterfall: pl.DataFrame) -> pl.DataFrame:
    """Where no candidate at all is left, the reason names the rule that took the last one."""
    rule = emptying_rule(waterfall)
    return rejects if rule is None else rejects.with_columns(pl.col("reason") + f": {rule}")


def _anchors(context: Context) -> pl.DataFrame:
    """The prompts as texts: prompt_id, messages, split, family_id, category (empty for none), anchor, text_id."""
    names = ("prompt_id", "messages", "split", "family_id", pl.col("category").fill_null(""))
    prompts = context.workspace.scan("prompts").select(*names).collect()
    texts = message_texts(prompts["messages"]).alias("anchor")
    return prompts.with_columns(texts, text_ids(texts).alias("text_id"))


def _documents(context: Context) -> pl.DataFrame:
    """The corpus, and every answer that is not in it: text, text_id, each once."""
    answers = context.workspace.scan("candidates").select(text="response").collect()["text"]
    texts = pl.concat([corpus_texts(context), answers]).alias("text")
    return pl.DataFrame([texts, text_ids(texts).alias("text_id")]).unique("text_id", maintain_order=True)


def _own_answers(context: Context, documents: pl.DataFrame, anchors: pl.DataFrame) -> pl.DataFrame:
    """For each prompt its positives, and what must not be its negative: prompt_id, positives, excluded.

    Positives are the chosen answers of its selected pairs; where no pair was built from the prompt, the
    answers that a source brings and none calls wrong. An answer that is neither chosen nor rejected may well
    be right, so it is excluded; one that was rejected in a selected pair may be a negative. An answer to another
    prompt of its family is excluded, too: what answers a mutated prompt answers the one that it was made from. A
    text that is the prompt itself is neither.
    """
    pairs = kept_pairs(context)
    candidates = (
        context.workspace.scan("candidates").select("prompt_id", "candidate_id", "response", "origin").collect()
    )
    candidates = candidates.with_columns(text_ids(candidates["response"]).alias("text_id"))
    built = _with_pairs(context)
    paired = candidates.join(built, on="prompt_id", how="semi")
    alone = candidates.filter(pl.col("origin") == "provided").join(built, on="prompt_id", how="anti")
    alone = alone.join(_called_wrong(context), on="candidate_id", how="anti")
    chosen = paired.join(pairs, left_on="candidate_id", right_on="chosen_id", how="semi")
    rejected = paired.join(pairs, left_on="candidate_id", right_on="rejected_id", how="semi")
    places = documents.select("text_id", "place")
    itself = anchors.select("prompt_id", "text_id")
    right = pl.concat([chosen, alone]).join(itself, on=["prompt_id", "text_id"], how="anti")
    positives = _places(right, places, "positives")
    neutral = candidates.join(rejected, on="candidate_id", how="anti").select("prompt_id", "text_id")
    excluded = _places(pl.concat([neutral, _of_the_family(candidates, anchors), itself]), places, "excluded")
    return positives.join(excluded, on="prompt_id", how="left").with_columns(
        pl.col("excluded").fill_null(pl.lit([], dtype=pl.List(pl.Int64)))
    )


def _of_the_family(candidates: pl.DataFrame, anchors: pl.DataFrame) -> pl.DataFrame:
    """The answers to the other prompts of an anchor's family: prompt_id (of the anchor), text_id."""
    families = anchors.select("prompt_id", "family_id")
    kin = families.join(families.rename({"prompt_id": "other"}), on="family_id")
    kin = kin.filter(pl.col("prompt_id") != pl.col("other"))
    said = candidates.select("text_id", other="prompt_id")
    return kin.join(said, on="other").select("prompt_id", "text_id")


def _called_wrong(context: Context) -> pl.DataFrame:
    """The answers that a source rejects in a pair or labels as bad, whatever else is said of them: candidate_id."""
    inputs = prompted_inputs(context)
    rejected = inputs.filter(pl.col("kind") == "pair").select(
        candidate_id=pl.col("candidate_ids").list.get(pl.col("rejected_index"))
    )
    labelled = inputs.filter(pl.col("labels").list.len() > 0).select(candidate_id="candidate_ids", good="labels")
    bad = labelled.explode("candidate_id", "good").filter(~pl.col("good")).select("candidate_id")
    found: pl.DataFrame = pl.concat([rejected, bad]).unique().collect()
    return found


def _with_pairs(context: Context) -> pl.DataFrame:
    """The prompts that pairs were built from."""
    if not context.recipe.builds_pairs:
        return pl.DataFrame(schema={"prompt_id": pl.String})
    return context.workspace.scan("pairs").select("prompt_id").unique().collect()


def _places(candidates: pl.DataFrame, places: pl.DataFrame, name: str) -> pl.DataFrame:
    found = candidates.join(places, on="text_id").sort("place")
    return found.group_by("prompt_id").agg(pl.col("place").cast(pl.Int64).unique().sort().alias(name))


def _tuples(
    anchors: pl.DataFrame, documents: pl.DataFrame, mined: MinedNegatives, others: OtherAnswers
) -> pl.DataFrame:
    """One row for each anchor and positive, with its negatives: mined ones, then other prompts' answers."""
    texts = documents["text"].to_list()
    negatives = [
        [texts[i] for i in (*row, *more) if i >= 0]
        for row, more in zip(mined.negatives.tolist(), others.places, strict=True)
    ]
    scores = [
        [s for s in (*row, *more) if not np.isnan(s)]
        for row, more in zip(mined.scores.tolist(), others.scores, strict=True)
    ]
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
        "no_positive": "no answer is known to be right: the prompt has no selected pair, and no answer of a source "
        "that none calls wrong and that is not the prompt itself",
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
    needs=("inputs", "hygiene", "prompts", "candidates", "embeddings", "pairs", "preference"),
    run=run,
    table="retrieval",
    version=3,
    enabled=lambda recipe: "retrieval" in recipe.publish.tables,
)

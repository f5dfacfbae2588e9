"""The scores that sources give to answers, and which of them may be compared. Pairs are built in ``construction``.

Sources score on scales of their own, and one row's ranks, or its winner, say nothing of another row's answers. So
scores are compared within one source, and where its rows hold several answers, within a row (and the rows that
score the same answers, of which the mean counts). Those of sources that name one ``score_scale`` are all compared.
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from curation.pairs.construction import pair_ids
from curation.pairs.margin_scales import named_scale, scale_of_source

__all__ = ["of_both", "opposed_pairs", "scale_means", "source_scores", "standings", "with_one_scale"]


def source_scores(inputs: pl.DataFrame, scales: Mapping[str, str | None]) -> pl.DataFrame:
    """Each answer's score beside those that it may be compared with.

    Args:
        inputs: rows of table ``inputs``.
        scales: of each source the scale that the recipe names, or None for one of its own.

    Returns:
        ``prompt_id``, ``candidate_id``, ``scale`` (what the number means), ``compared`` (the answers of a prompt
        with the same number here may be compared) and ``score``, the mean of several: a row for each answer and
        ``compared``, in the order of the input. Answers without a score are left out.
    """
    scored = inputs.filter(pl.col("scores").list.drop_nulls().list.len() > 0)
    several = (pl.col("candidate_ids").list.len() > 1).any().over("source") & named_scale(scales).is_null()
    together = pl.when(several).then(pl.col("candidate_ids").list.sort().list.join(" "))
    keyed = scored.select(
        "prompt_id",
        "candidate_ids",
        "scores",
        scale=scale_of_source(scales),
        together=together,
    ).with_row_index("row")
    keyed = keyed.with_columns(compared=pl.col("row").first().over("scale", "prompt_id", "together"))
    each = keyed.explode("candidate_ids", "scores").filter(pl.col("scores").is_finite())
    return each.group_by(
        "prompt_id", pl.col("candidate_ids").alias("candidate_id"), "compared", maintain_order=True
    ).agg(pl.col("scale").first(), score=pl.col("scores").mean())


def of_both(pairs: pl.DataFrame, scores: pl.DataFrame, *, same: str) -> pl.DataFrame:
    """Pairs with the scores of both answers: a row for each value of ``same`` under which both have one.

    Args:
        pairs: ``chosen_id``, ``rejected_id``.
        scores: ``candidate_id``, ``score``, and ``compared`` or ``scale``, which ``same`` names.

    Returns:
        ``chosen_score``, ``rejected_score`` and ``same`` beside them.
    """
    for side, key in (("chosen", []), ("rejected", [same])):
        said = scores.select(same, **{f"{side}_id": "candidate_id", f"{side}_score": "score"})
        pairs = pairs.join(said, on=[f"{side}_id", *key], maintain_order="left")
    return pairs


def opposed_pairs(pairs: pl.DataFrame, scores: pl.DataFrame) -> pl.DataFrame:
    """The other way round of each pair by scores that other scores of the same two answers speak against.

    A strategy need not build that one: of three answers the second is compared with the best alone.

    Args:
        pairs: as ``construction.build_pairs`` gives them.
        scores: as :func:`source_scores` gives them.
    """
    ranked = of_both(pairs.filter(pl.col("strategy") != "provided"), scores.drop_nulls("score"), same="compared")
    against = pl.col("chosen_score") < pl.col("rejected_score")
    opposed = ranked.filter(against).unique("pair_id", maintain_order=True)
    turned = {
        "chosen_id": pl.col("rejected_id"),
        "rejected_id": pl.col("chosen_id"),
        "strategy": pl.lit("provided"),
    }
    return pair_ids(opposed.select(pairs.columns).with_columns(**turned).drop("pair_id"))


def scale_means(scores: pl.DataFrame) -> pl.DataFrame:
    """Each answer's mean score on each scale: candidate_id, scale, score."""
    return scores.group_by("candidate_id", "scale", maintain_order=True).agg(pl.col("score").mean())


def with_one_scale(scores: pl.DataFrame) -> pl.DataFrame:
    """Each answer's mean score where all its scores are on one scale: candidate_id, provided_score."""
    one = pl.col("scale").n_unique() == 1
    means = scores.group_by("candidate_id", maintain_order=True).agg(pl.when(one).then(pl.col("score").mean()))
    return means.rename({"score": "provided_score"})


def standings(scores: pl.DataFrame) -> pl.DataFrame:
    """Where answers stand among all that are scored on their scale: candidate_id, standing (0 to 1, best last).

    So answers of different scales can be put in one order; on one scale it is that of the scores. Of an answer's
    several scales the mean counts.
    """
    place = ((pl.col("score").rank("average") - 0.5) / pl.len()).over("scale")
    placed = scale_means(scores).with_columns(standing=place)
    return placed.group_by("candidate_id", maintain_order=True).agg(pl.col("standing").mean())

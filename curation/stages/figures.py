"""The key figure of a stage: the one that says most about what it did. No stage is here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

import polars as pl

from curation.publish.plots import density_chart, histogram_chart, waterfall_chart
from curation.stages.context import Context
from curation.stages.evidence import pair_evidence

if TYPE_CHECKING:
    from curation.publish.plots import Figure

__all__ = ["stage_figure"]


def stage_figure(context: Context, stage: str) -> Figure | None:
    """The figure of a stage that has run; None where it has none, or nothing to show."""
    draw = _FIGURES.get(stage)
    return None if draw is None else draw(context)


def _answer_lengths(context: Context) -> Figure | None:
    lengths = context.workspace.scan("candidates").select(value=pl.col("response").str.len_chars())
    return _histogram(lengths, "length of the answer, in characters")


def _reward_means(context: Context) -> Figure | None:
    return _histogram(_rewards(context).select(value=pl.col("rewards").list.mean()), "mean reward of the answer")


def _rewards(context: Context) -> pl.LazyFrame:
    """Rewards of the present candidates; an older model's may be among them."""
    present = context.workspace.scan("candidates").select("candidate_id")
    return context.workspace.scan("rewards").join(present, on="candidate_id", how="semi")


def _refusal_probabilities(context: Context) -> Figure | None:
    present = context.workspace.scan("candidates").select("candidate_id")
    found = context.workspace.scan("refusals").join(present, on="candidate_id", how="semi")
    return _histogram(found.select(value="refusal_probability"), "probability that the answer refuses")


def _pair_scores(context: Context) -> Figure | None:
    scores = context.workspace.read("pair_scores")
    both = density_chart(
        scores, "strength_mean", "ln_ches", x_title="preference strength", y_title="length-normalised CHES"
    )
    if both is not None:
        return both
    return _histogram(scores.lazy().select(value="cosine"), "cosine of chosen and rejected")


def _waterfall(dataset: str) -> Callable[[Context], Figure | None]:
    def draw(context: Context) -> Figure | None:
        rules = context.workspace.read("waterfall").filter(pl.col("dataset") == dataset)
        return None if rules.is_empty() else waterfall_chart(rules)

    return draw


def _kept_and_dropped(context: Context) -> Figure | None:
    if not context.recipe.builds_pairs:
        return None
    evidence = pair_evidence(context.workspace, texts=False)
    return histogram_chart(evidence, "strength_mean", title="preference strength", width=420, height=200)


def _histogram(values: pl.LazyFrame, title: str) -> Figure | None:
    frame = values.with_columns(status=pl.lit("kept")).collect()
    return histogram_chart(frame, "value", title=title, legend=False, width=420, height=200)


_FIGURES: Final[Mapping[str, Callable[[Context], Figure | None]]] = {
    "candidates": _answer_lengths,
    "rewards": _reward_means,
    "refusals": _refusal_probabilities,
    "pair_scores": _pair_scores,
    "preference": _waterfall("preference"),
    "retrieval": _waterfall("retrieval"),
    "publish_preference": _kept_and_dropped,
}

"""The key figure of a stage: the one that says most about what it did. No stage is here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

import polars as pl

from curation.publish.plots import density_chart, histogram_chart, waterfall_chart
from curation.stages.context import Context
from curation.stages.evidence import pair_evidence
from curation.stages.refusals import candidate_refusals
from curation.stages.rewards import candidate_rewards

if TYPE_CHECKING:
    from curation.publish.chart_style import Figure

__all__ = ["stage_figure"]

_ENOUGH_FOR_DENSITY: Final = 500
_PAIR_SCORES: Final = {
    "ln_ches": "length-normalised CHES",
    "strength_mean": "preference strength",
    "cosine": "cosine of chosen and rejected",
    "length_ratio": "length ratio of chosen and rejected",
}


def stage_figure(context: Context, stage: str) -> Figure | None:
    """The figure of a stage that has run; None where it has none, or nothing to show."""
    draw = _FIGURES.get(stage)
    return None if draw is None else draw(context)


def _answer_lengths(context: Context) -> Figure | None:
    lengths = context.workspace.scan("candidates").select(value=pl.col("response").str.len_chars())
    return _histogram(lengths.collect(), "length of the answer, in characters")


def _reward_means(context: Context) -> Figure | None:
    found = candidate_rewards(context, _candidates(context))
    return _histogram(found.select(value=pl.col("rewards").list.mean()), "mean reward of the answer")


def _refusal_probabilities(context: Context) -> Figure | None:
    found = candidate_refusals(context, _candidates(context))
    return _histogram(found.select(value="refusal_probability"), "probability that the answer refuses")


def _candidates(context: Context) -> pl.Series:
    return context.workspace.scan("candidates").select("candidate_id").collect()["candidate_id"]


def _pair_scores(context: Context) -> Figure | None:
    scores = context.workspace.read("pair_scores")
    if scores.height >= _ENOUGH_FOR_DENSITY:
        x, y = "strength_mean", "ln_ches"
        both = density_chart(scores, x, y, x_title=_PAIR_SCORES[x], y_title=_PAIR_SCORES[y])
        if both is not None:
            return both
    for column, title in _PAIR_SCORES.items():
        one = _histogram(scores.select(value=column), title, unit="pairs")
        if one is not None:
            return one
    return None


def _waterfall(dataset: str) -> Callable[[Context], Figure | None]:
    def draw(context: Context) -> Figure | None:
        rules = context.workspace.read("waterfall").filter(pl.col("dataset") == dataset)
        return None if rules.is_empty() else waterfall_chart(rules)

    return draw


def _kept_and_dropped(context: Context) -> Figure | None:
    if not context.recipe.builds_pairs:
        return None
    evidence = pair_evidence(context, texts=False)
    return histogram_chart(evidence, "strength_mean", title="preference strength", width=420, height=200)


def _histogram(values: pl.DataFrame, title: str, *, unit: str = "answers") -> Figure | None:
    frame = values.with_columns(status=pl.lit("kept"))
    return histogram_chart(frame, "value", title=title, unit=unit, legend=False, width=420, height=200)


_FIGURES: Final[Mapping[str, Callable[[Context], Figure | None]]] = {
    "candidates": _answer_lengths,
    "rewards": _reward_means,
    "refusals": _refusal_probabilities,
    "pair_scores": _pair_scores,
    "preference": _waterfall("preference"),
    "retrieval": _waterfall("retrieval"),
    "publish_preference": _kept_and_dropped,
}

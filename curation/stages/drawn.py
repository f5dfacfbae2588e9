"""Sampling in rounds: budgets by difficulty and near-identical samples. No stage is here.

The rounds are decided by what is known of the answers, so they can be gone through again from the ledger: a run
that was killed asks for what is missing, and one that is done asks for nothing. Which answers stay is in
``chosen_samples``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import polars as pl

from curation.candidates.budgets import sample_until
from curation.candidates.trusted import source_verdicts
from curation.candidates.verifiers import verify
from curation.recipe import Generation
from curation.recipe.sampling import Sampling
from curation.stages.answer_checks import checked_answers
from curation.stages.asked import requests_for
from curation.stages.context import Context
from curation.stages.hygiene import prompted_inputs
from curation.stages.sample_rewards import sample_rewards

__all__ = ["Drawn", "drawn_in_rounds", "is_drawn_in_rounds", "right_answers"]

_JUDGED: Final = {"prompt_id": pl.String, "sample_index": pl.Int64, "response": pl.String, "success": pl.Boolean}


class Drawn(NamedTuple):
    """What the rounds asked for."""

    requests: pl.DataFrame
    facts: dict[str, int]


def is_drawn_in_rounds(sampling: Sampling | None, options: Generation) -> bool:
    """Whether a model's answers are drawn in rounds, and not ``samples`` at once."""
    if sampling is None or options.only_as_rejected:
        return False
    return sampling.budget is not None or sampling.near_identical is not None


def drawn_in_rounds(
    context: Context, step: Any, prompts: pl.DataFrame, *, get: Callable[[pl.DataFrame], None] | None = None
) -> Drawn:
    """Go through the rounds of one model.

    Args:
        step: the generation step.
        prompts: those that it answers.
        get: brings requests into the ledger, a round at a time; None to look at what is there.
    """
    sampling = context.recipe.sampling
    assert sampling is not None
    budget, draw = sampling.budget, _Draw(context, sampling, step, prompts, get)
    if budget is None:
        goal: dict[str, int] = {"successes": step.options.samples}
    elif budget.kind == "uniform":
        goal = {"successes": budget.successes}
    else:
        goal = {"pilot": budget.pilot, "hardest": budget.hardest}
    found = sample_until(
        prompts["prompt_id"],
        draw.ask,
        draw.judge,
        **goal,
        max_samples=sampling.max_samples,
        max_rounds=sampling.max_rounds,
        near_threshold=sampling.near_identical,
    )
    facts = {"rounds": found.rounds + 1, "prompts short of their samples": found.short.height}
    if draw.unjudged:
        facts["answers that the verifier could not judge"] = draw.unjudged
    return Drawn(draw.requests, facts)


@dataclass
class _Draw:
    """What was asked for so far, and what became of it; each answer is judged once."""

    context: Context
    sampling: Sampling
    step: Any
    prompts: pl.DataFrame
    get: Callable[[pl.DataFrame], None] | None
    unjudged: int = 0
    requests: pl.DataFrame = field(init=False)
    judged: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=_JUDGED))

    def __post_init__(self) -> None:
        none = pl.DataFrame(schema={"prompt_id": pl.String, "sample_index": pl.Int64})
        self.requests = requests_for(self.step, self.prompts, none)

    def ask(self, wanted: pl.DataFrame) -> pl.DataFrame:
        """See ``sample_until``."""
        new = wanted.join(self.requests, on=["prompt_id", "sample_index"], how="anti", maintain_order="left")
        if not new.is_empty():
            asked = requests_for(self.step, self.prompts, new)
            if self.get is not None:
                self.get(asked)
            self.requests = pl.concat([self.requests, asked])
            self.judged = pl.concat([self.judged, self._judged(asked["request_id"])])
        return self.judged

    def judge(self, answers: pl.DataFrame) -> pl.Series:
        """See ``sample_until``: the answers are those that ``ask`` has just given."""
        assert answers.height == self.judged.height
        return self.judged["success"]

    def _judged(self, ids: pl.Series) -> pl.DataFrame:
        """New answers; one that is unfit (see ``curation.candidates.checks``) is no success."""
        answers = self.context.ledger.fetch(self.step.key, ids)
        fit, _ = checked_answers(
            self.context, answers, self.prompts, model=self.step.options, row_id="request_id", stage="generations"
        )
        unfit = answers.join(fit, on="request_id", how="anti", maintain_order="left")
        fit = fit.join(self.prompts.select("prompt_id", "messages"), on="prompt_id", maintain_order="left")
        good = fit.with_columns(success=self._success(fit))
        # What is unfit goes, so nothing repeats it: a name of its own is near to no other answer.
        bad = unfit.with_columns(success=pl.lit(value=False), response=pl.col("request_id"))
        return pl.concat([good.select(list(_JUDGED)), bad.select(list(_JUDGED))])

    def _success(self, fit: pl.DataFrame) -> pl.Series:
        budget = self.sampling.budget
        if budget is None:
            return pl.Series([True] * fit.height, dtype=pl.Boolean)
        if budget.min_reward is not None:
            scores = sample_rewards(self.context, self.sampling, fit)
            return (scores >= budget.min_reward).fill_null(value=False)
        assert budget.verifier is not None
        known = fit.select("prompt_id").join(
            right_answers(self.context), on="prompt_id", how="left", maintain_order="left"
        )
        right = [one or [] for one in known["right"].to_list()]
        passed = verify(budget.verifier, fit["messages"].to_list(), fit["response"].to_list(), right)
        # More answers that nothing can judge would be money for nothing, so these count.
        self.unjudged += passed.null_count()
        return passed.fill_null(value=True)


def right_answers(context: Context) -> pl.DataFrame:
    """prompt_id, right: the right answers of the sources."""
    inputs = prompted_inputs(context).collect()
    given = inputs.filter(pl.col("candidate_ids").list.len() > 0)
    texts = given.select(candidate_id="candidate_ids", response="responses").explode("candidate_id", "response")
    said = (
        source_verdicts(inputs)
        .filter("right")
        .join(
            texts.unique("candidate_id", keep="first", maintain_order=True),
            on="candidate_id",
            maintain_order="left",
        )
    )
    return said.group_by("prompt_id", maintain_order=True).agg(right="response")

"""Stage ``judgements``: an LLM compares the two answers of each pair, in both orders.

A comparison is of two answers, so that a pair that is flipped, or built by another strategy, is not asked about
again. What is made of the probabilities is a view: ``delta`` may change without a request.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from curation.engine import Batch, Worker, failures_frame
from curation.ledger import LedgerKey
from curation.models.chat import is_address
from curation.models.protocols import Fault
from curation.models.rewards import open_pair_judge, reward_fingerprint
from curation.recipe import PairJudge
from curation.scores.judging import VERDICTS, JudgeStatistics, judge_statistics, judge_verdicts
from curation.stages.context import Context, Stage, StageResult
from curation.text import content_hash

__all__ = ["STAGE", "JudgeStep", "comparison_id", "judge_facts", "judge_step", "judged_pairs"]

_STEP_VERSION = 1
_ORDERS = ("first", "swapped")


@dataclass(frozen=True)
class JudgeStep:
    """Comparing with one judge."""

    options: PairJudge

    @property
    def name(self) -> str:
        return "judgements"

    @property
    def batch_rows(self) -> int:
        return self.options.batch_rows

    @property
    def key(self) -> LedgerKey:
        producer = f"{reward_fingerprint(self.options.model)} pairs{_STEP_VERSION}"
        return LedgerKey("judgements", "comparison_id", "judge", producer)

    @property
    def is_remote(self) -> bool:
        """Whether a server does the work."""
        return is_address(self.options.model.removeprefix("judge:"))

    def open(self) -> Worker:
        return _Judging(open_pair_judge(self.options.model))


@dataclass
class _Judging:
    judge: Any

    def __call__(self, batch: pl.DataFrame) -> Batch:
        texts = [batch[name].to_list() for name in ("messages", "first", "second")]
        rows, failures = [], []
        found = self.judge.compare(*texts, rubric=self.judge.outputs[0])
        names = batch.select("comparison_id", "prompt_id", "first_id", "second_id").iter_rows(named=True)
        for row, one in zip(names, found, strict=True):
            if one.fault is None:
                rows.append(row | _probabilities(one.first, "first") | _probabilities(one.swapped, "swapped"))
            else:
                failures.append(_failure(row, one.fault))
        kinds = {f"{order}_{letter}": pl.Float64 for order in _ORDERS for letter in "abc"}
        ids: dict[str, Any] = dict.fromkeys(("comparison_id", "prompt_id", "first_id", "second_id"), pl.String)
        return Batch(pl.DataFrame(rows, schema=ids | kinds), failures_frame(failures))


def _probabilities(given: Mapping[str, float], order: str) -> dict[str, float]:
    """The three probabilities of one order."""
    return {f"{order}_{letter.lower()}": min(given.get(letter, 0.0), 1.0) for letter in "ABC"}


def _failure(row: Mapping[str, Any], fault: Fault) -> dict[str, Any]:
    return {"row_id": row["comparison_id"], "item_id": row["prompt_id"], **fault._asdict()}


def judge_step(context: Context) -> JudgeStep:
    """The step of the recipe's judge."""
    assert context.recipe.judge is not None
    return JudgeStep(context.recipe.judge)


def comparison_id(prompt: str, one: str, other: str) -> str:
    """Of two answers to a prompt, whichever comes first."""
    return content_hash("comparison", prompt, *sorted((one, other)))


def _comparisons(pairs: pl.DataFrame) -> pl.DataFrame:
    """Row by row beside ``pairs``: comparison_id, prompt_id, first_id, second_id, chosen_first."""
    ordered = pairs.select(
        "prompt_id",
        first_id=pl.min_horizontal("chosen_id", "rejected_id"),
        second_id=pl.max_horizontal("chosen_id", "rejected_id"),
        chosen_first=pl.col("chosen_id") < pl.col("rejected_id"),
    )
    ids = [comparison_id(*row) for row in ordered.select(ordered.columns[:3]).iter_rows()]
    return ordered.insert_column(0, pl.Series("comparison_id", ids, dtype=pl.String))


def judged_pairs(context: Context, pairs: pl.DataFrame) -> pl.DataFrame:
    """``judge_verdict`` (chosen, rejected or tie), ``judge_probability`` that chosen is better and
    ``judge_consistent``, row by row beside ``pairs``; null where there is no judge, or no readable reply."""
    if context.recipe.judge is None or pairs.is_empty():
        # Literals alone would make one row.
        empty = {name: pl.lit(None, dtype=kind) for name, kind in VERDICTS.items()}
        return pairs.with_columns(**empty).select(*VERDICTS)
    step = judge_step(context)
    compared = _comparisons(pairs)
    found = context.ledger.fetch(step.key, compared["comparison_id"].unique(maintain_order=True))
    verdicts = judge_verdicts(found, delta=step.options.delta).select("comparison_id", *VERDICTS)
    beside = compared.join(verdicts, on="comparison_id", how="left", maintain_order="left")
    other = {"chosen": "rejected", "rejected": "chosen"}
    return beside.select(
        pl.when("chosen_first").then("judge_verdict").otherwise(pl.col("judge_verdict").replace(other)),
        pl.when("chosen_first").then("judge_probability").otherwise(1 - pl.col("judge_probability")),
        "judge_consistent",
    )


def run(context: Context) -> StageResult:
    pairs = context.workspace.read("pairs")
    step = judge_step(context)
    asked = _asked(context, pairs)
    report = context.compute(step, asked)
    facts = {"judge": step.key.producer, "computed by the judge": report.computed}
    return StageResult("judgements", asked.height, report.failed, facts | judge_facts(context))


def _asked(context: Context, pairs: pl.DataFrame) -> pl.DataFrame:
    """Each comparison once, with its texts."""
    prompts = context.workspace.scan("prompts").select("prompt_id", "messages")
    answers = context.workspace.scan("candidates").select("candidate_id", "response")
    frame = _comparisons(pairs).unique("comparison_id", keep="first", maintain_order=True).lazy()
    frame = frame.join(prompts, on="prompt_id", how="left", maintain_order="left")
    for place in ("first", "second"):
        named = answers.rename({"candidate_id": f"{place}_id", "response": place})
        frame = frame.join(named, on=f"{place}_id", how="left", maintain_order="left")
    asked: pl.DataFrame = frame.drop("chosen_first").collect()
    return asked


def judge_facts(context: Context) -> dict[str, str]:
    """Ties, position bias and cycles of the judge's verdicts on the present pairs: for terminal and report."""
    if context.recipe.judge is None or not context.recipe.builds_pairs:
        return {}
    step = judge_step(context)
    ids = _comparisons(context.workspace.read("pairs"))["comparison_id"].unique(maintain_order=True)
    found = context.ledger.fetch(step.key, ids)
    if found.is_empty():
        return {"judge: pairs compared in both orders": "0"}
    return _said(judge_statistics(found, delta=step.options.delta))


def _said(found: JudgeStatistics) -> dict[str, str]:
    return {
        "judge: pairs compared in both orders": f"{found.compared:,}",
        "judge: ties": f"{found.ties:.1%}",
        "judge: the two orders disagree": f"{found.inconsistent:.1%}",
        "judge: the first place wins twice, the second": f"{found.first_both:.1%}, {found.second_both:.1%}",
        "judge: lean to the first place": f"{found.lean_to_first:+.3f}",
        "judge: decided pairs in a cycle": f"{found.in_cycle:.1%}",
    }


STAGE = Stage(
    name="judgements",
    group="pairs",
    description="What an LLM says of the two answers of each pair, asked in both orders.",
    needs=("pairs", "prompts", "candidates"),
    run=run,
    table="judgements",
    enabled=lambda recipe: recipe.judge is not None and recipe.builds_pairs,
    uses_model=True,
)

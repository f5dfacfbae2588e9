"""``curation judge``: an LLM compares the two answers of each pair, in both orders."""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

import polars as pl

from curation.commands.streams import Stream, open_stream
from curation.errors import InputError
from curation.models.rewards import open_reward
from curation.models.rewards.judge import Comparison, Judge
from curation.progress import StepProgress
from curation.scores.judging import JudgeStatistics, judge_statistics
from curation.text import content_hash, prompt_id

__all__ = ["JUDGE_COLUMNS", "JudgeDone", "run_judge"]

JUDGE_COLUMNS: Final = ("judge_verdict", "judge_probability", "judge_consistent")
_CHUNK_ROWS: Final = 512
_SIDE: Final = {"A": "chosen", "B": "rejected", "tie": "tie"}


class JudgeDone(NamedTuple):
    """What the command did."""

    rows: int
    rejected: dict[str, int]
    verdicts: dict[str, int]
    statistics: JudgeStatistics
    summary: str


def run_judge(
    input: str | Path,
    output: str | Path,
    *,
    model: str | Judge,
    delta: float = 0.0,
    progress: StepProgress | None = None,
) -> JudgeDone:
    """Adds ``judge_verdict`` (chosen, rejected or tie), ``judge_probability`` that chosen is better, and
    ``judge_consistent``: whether both orders, read alone, name the same winner.

    A reply that cannot be read makes its row a reject, never a number.

    Args:
        input: ``prompt``, ``chosen``, ``rejected``.
        model: ``judge:…`` with one rubric (``curation.models.rewards.judge``), or an open judge.
        delta: a tie when the two answers' summed probabilities are at most so far apart (TrustJudge).

    Raises:
        InputError: when the file, its columns or the model's name is wrong.
        ModelError: when the judge cannot be loaded or reached.
    """
    judge = _opened(model)
    seen = _Seen([], [], [], [])
    with open_stream(input, output, shapes=("pair",), chunk_rows=_CHUNK_ROWS) as stream:
        for chunk in stream.chunks():
            prompts, chosen, rejected = (chunk[name].to_list() for name in ("prompt", "chosen", "rejected"))
            found = judge.compare(prompts, chosen, rejected, rubric=judge.outputs[0], delta=delta)
            seen.prompts.extend(prompt_id(prompt) for prompt in prompts)
            seen.first.extend(content_hash(text) for text in chosen)
            seen.second.extend(content_hash(text) for text in rejected)
            seen.found.extend(found)
            _write(stream, chunk["row"].to_list(), found)
            if progress:
                progress.advance(chunk.height)
    orders = [(one.verdict, one.first, one.swapped) for one in seen.found]
    statistics = judge_statistics(seen.prompts, seen.first, seen.second, orders)
    verdicts = [_SIDE[one.verdict.better] for one in seen.found if one.verdict is not None]
    counts = {name: verdicts.count(name) for name in ("chosen", "rejected", "tie")}
    lines = [stream.summary(), ", ".join(f"{name} {count:,}" for name, count in counts.items()), _said(statistics)]
    return JudgeDone(stream.rows_written, stream.rejected, counts, statistics, "\n".join(lines))


class _Seen(NamedTuple):
    prompts: list[str]
    first: list[str]
    second: list[str]
    found: list[Comparison]


def _opened(model: str | Judge) -> Judge:
    judge = open_reward(model) if isinstance(model, str) else model
    if not isinstance(judge, Judge):
        raise InputError(f"model {model!r} is no judge: expected judge:http://host:port/v1#model or judge:MODEL")
    if len(judge.outputs) != 1:
        raise InputError(f"a comparison goes by one rubric, found {', '.join(judge.outputs)}")
    return judge


def _write(stream: Stream, rows: list[int], found: list[Comparison]) -> None:
    kept = []
    for row, one in zip(rows, found, strict=True):
        if one.verdict is None:
            assert one.fault is not None
            stream.reject(row, one.fault.rule, one.fault.value, one.fault.reason)
            continue
        better, worse = one.verdict.scores["A"], one.verdict.scores["B"]
        decided = better + worse
        probability = better / decided if decided > 0 else 0.5
        kept.append((row, _SIDE[one.verdict.better], probability, one.verdict.consistent))
    kinds = [pl.Int64, pl.String, pl.Float64, pl.Boolean]
    stream.write(pl.DataFrame(kept, schema=dict(zip(("row", *JUDGE_COLUMNS), kinds, strict=True)), orient="row"))


def _said(found: JudgeStatistics) -> str:
    return (
        f"of {found.compared:,} compared in both orders: ties {found.ties:.1%}, orders disagree "
        f"{found.inconsistent:.1%} (the first place wins twice {found.first_both:.1%}, the second "
        f"{found.second_both:.1%}), lean to the first place {found.lean_to_first:+.3f}, "
        f"decided pairs in a cycle {found.in_cycle:.1%}"
    )

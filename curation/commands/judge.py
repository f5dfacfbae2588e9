"""``curation judge``: an LLM compares the two answers of each pair, in both orders."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, NamedTuple

import polars as pl

from curation.commands.streams import Stream, open_stream
from curation.models.rewards.judge import Comparison, Judge, open_pair_judge
from curation.progress import StepProgress
from curation.scores.judging import JudgeStatistics, judge_statistics
from curation.text import content_hash, prompt_id

__all__ = ["JUDGE_COLUMNS", "JudgeDone", "run_judge"]

JUDGE_COLUMNS: Final = ("judge_verdict", "judge_probability", "judge_consistent")
_CHUNK_ROWS: Final = 512
_COMPARED: Final[dict[str, Any]] = dict.fromkeys(("prompt_id", "first_id", "second_id"), pl.String) | {
    f"{order}_{letter}": pl.Float64 for order in ("first", "swapped") for letter in "abc"
}
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
    judge = open_pair_judge(model) if isinstance(model, str) else model
    seen: list[pl.DataFrame] = []
    verdicts: list[str] = []
    with open_stream(input, output, shapes=("pair",), chunk_rows=_CHUNK_ROWS) as stream:
        for chunk in stream.chunks():
            prompts, chosen, rejected = (chunk[name].to_list() for name in ("prompt", "chosen", "rejected"))
            found = judge.compare(prompts, chosen, rejected, rubric=judge.outputs[0], delta=delta)
            seen.append(_compared(prompts, chosen, rejected, found))
            verdicts += [_SIDE[one.verdict.better] for one in found if one.verdict is not None]
            _write(stream, chunk["row"].to_list(), found)
            if progress:
                progress.advance(chunk.height)
    statistics = judge_statistics(pl.concat([pl.DataFrame(schema=_COMPARED), *seen]), delta=delta)
    counts = {name: verdicts.count(name) for name in ("chosen", "rejected", "tie")}
    lines = [stream.summary(), ", ".join(f"{name} {count:,}" for name, count in counts.items()), _said(statistics)]
    lines += [judge.note] if judge.note else []
    return JudgeDone(stream.rows_written, stream.rejected, counts, statistics, "\n".join(lines))


def _compared(prompts: list[Any], chosen: list[str], rejected: list[str], found: list[Comparison]) -> pl.DataFrame:
    """The comparisons that could be read, as ``curation.scores.judging`` wants them."""
    rows = [
        (
            prompt_id(prompt), content_hash(one), content_hash(two),
            *(order.get(letter, 0.0) for order in (said.first, said.swapped) for letter in "ABC"),
        )
        for prompt, one, two, said in zip(prompts, chosen, rejected, found, strict=True)
        if said.verdict is not None
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=_COMPARED, orient="row")


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
    if not found.compared:
        return "no pair could be compared in both orders"
    return (
        f"of {found.compared:,} compared in both orders: ties {found.ties:.1%}, orders disagree "
        f"{found.inconsistent:.1%} (the first place wins twice {found.first_both:.1%}, the second "
        f"{found.second_both:.1%}), lean to the first place {found.lean_to_first:+.3f}, "
        f"decided pairs in a cycle {found.in_cycle:.1%}"
    )

"""``curation rewards``: the rewards of answers, or of both answers of a pair, under one or more models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import polars as pl

from curation.commands.streams import Stream, open_stream
from curation.models.identity import EMBEDDED
from curation.models.protocols import FloatArray, RewardModel
from curation.models.rewards import open_reward
from curation.progress import StepProgress

__all__ = ["RewardsDone", "run_rewards"]

_CHUNK_ROWS: Final = 1024


class RewardsDone(NamedTuple):
    """What the command did."""

    rows: int
    rejected: dict[str, int]
    outputs: list[str]
    """What each entry of the lists stands for: ``model`` or ``model:output``."""
    missing: dict[str, int]
    """Answers that an output has no reward for, by entry."""
    summary: str


def run_rewards(
    input: str | Path,
    output: str | Path,
    *,
    models: Sequence[str | RewardModel] = (EMBEDDED,),
    device: str | None = None,
    progress: StepProgress | None = None,
) -> RewardsDone:
    """Adds ``rewards`` (rows with one response), or ``chosen_rewards`` and ``rejected_rewards`` (pairs).

    Each is a list with the entries of every model in the order given; an ensemble or a model of several
    attributes has several. An answer that a model cannot score has null there, and the other models'
    entries stay. A row without any reward is rejected (``no_reward``).

    Args:
        input: ``prompt`` and ``response``, or ``prompt``, ``chosen`` and ``rejected``.
        models: MODEL arguments (``curation.models.rewards``), or open models.

    Raises:
        InputError: when the file, its columns or a model's name is wrong.
        ModelError: when a model cannot be loaded or answers something else than numbers.
    """
    with open_stream(input, output, shapes=("pair", "response"), chunk_rows=_CHUNK_ROWS) as stream:
        opened = [open_reward(m, device=device) if isinstance(m, str) else m for m in models]
        names = [m if isinstance(m, str) else m.fingerprint for m in models]
        outputs: list[str] = []
        missing: dict[str, int] = {}
        for chunk in stream.chunks():
            parts = _answers(chunk)
            if chunk.is_empty():
                _write(stream, chunk, dict.fromkeys(parts, np.empty((0, 0))))
                continue
            scores = {}
            for column, answers in parts.items():
                scores[column], outputs = _score(opened, names, chunk["prompt"].to_list(), answers)
                for name, count in zip(outputs, np.isnan(scores[column]).sum(axis=0), strict=True):
                    missing[name] = missing.get(name, 0) + int(count)
            _write(stream, chunk, scores)
            if progress:
                progress.advance(chunk.height)
    missing = {name: count for name, count in missing.items() if count}
    lines = [stream.summary(), f"entries: {', '.join(outputs) or 'none, for no row could be read'}"]
    lines += [f"{name}: no reward for {count:,} answers" for name, count in missing.items()]
    return RewardsDone(stream.rows_written, stream.rejected, outputs, missing, "\n".join(lines))


def _answers(chunk: pl.DataFrame) -> dict[str, list[str]]:
    if "response" in chunk.columns:
        return {"rewards": chunk["response"].to_list()}
    return {f"{name}_rewards": chunk[name].to_list() for name in ("chosen", "rejected")}


def _score(
    models: Sequence[RewardModel], names: Sequence[str], prompts: list[list[dict[str, str]]], answers: list[str]
) -> tuple[FloatArray, list[str]]:
    """(n, entries) with NaN for what is missing, and the entries' names."""
    columns, outputs = [], []
    for model, name in zip(models, names, strict=True):
        scores = np.asarray(model.score(prompts, answers), dtype=np.float64).reshape(len(answers), -1)
        columns.append(np.where(np.isfinite(scores), scores, np.nan))
        parts = getattr(model, "outputs", ())
        count = len(parts) or scores.shape[1]
        parts = parts or [str(number) for number in range(count)]
        outputs += [name] if count == 1 else [f"{name}:{part}" for part in parts]
    return np.concatenate(columns, axis=1), outputs


def _write(stream: Stream, chunk: pl.DataFrame, scores: dict[str, FloatArray]) -> None:
    there = np.ones(chunk.height, dtype=bool)
    for values in scores.values():
        there &= np.isfinite(values).any(axis=1)
    for row in chunk["row"].filter(pl.Series(~there)):
        stream.reject(row, "no_reward", "", "no model could score it")
    columns = {
        name: pl.Series(name, values.tolist(), dtype=pl.List(pl.Float64)).list.eval(pl.element().fill_nan(None))
        for name, values in scores.items()
    }
    stream.write(pl.DataFrame({"row": chunk["row"], **columns}).filter(pl.Series(there)))

"""``curation rewards``: the rewards of answers, or of both answers of a pair, under one or more models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import polars as pl

from curation.commands.streams import Stream, open_stream
from curation.errors import ModelError
from curation.models.identity import EMBEDDED
from curation.models.protocols import Fault, FloatArray, RewardModel
from curation.models.rewards import given_to_each, open_reward, same_width
from curation.progress import StepProgress
from curation.recipe import Reward

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
    failed: dict[str, str]
    """Models that broke off, and why; their entries are null from there on."""
    summary: str


def run_rewards(
    input: str | Path,
    output: str | Path,
    *,
    models: Sequence[str | Reward | RewardModel] = (EMBEDDED,),
    device: str | None = None,
    options: Mapping[str, Any] | None = None,
    progress: StepProgress | None = None,
) -> RewardsDone:
    """Adds ``rewards`` (rows with one response), or ``chosen_rewards`` and ``rejected_rewards`` (pairs).

    Each is a list with the entries of every model in the order given; an ensemble or a model of several
    attributes has several. An answer that a model cannot score has null there, and the other models'
    entries stay; so they do where a model breaks off altogether. A row without any reward is rejected
    (``no_reward``).

    Args:
        input: ``prompt`` and ``response``, or ``prompt``, ``chosen`` and ``rejected``.
        models: MODEL arguments (``curation.models.rewards``), these with their own options as in a recipe, or open
            models.
        options: ``attributes``, ``dtype``, ``max_length``, ``encoder``: each for every named model that takes it.

    Raises:
        InputError: when the file, its columns, a model's name or an option is wrong.
        ModelError: when a model cannot be loaded, or when all of them break off.
    """
    with open_stream(input, output, shapes=("pair", "response"), chunk_rows=_CHUNK_ROWS) as stream:
        opened = _opened(models, device, options or {})
        names = [_name(model) for model in models]
        known = _Known(names, {}, {})
        missing: dict[str, int] = {}
        for chunk in stream.chunks():
            parts = _answers(chunk)
            if chunk.is_empty():
                _write(stream, chunk, dict.fromkeys(parts, np.empty((0, 0))), {})
                continue
            scores, faults = {}, {}
            for column, answers in parts.items():
                scores[column] = _score(opened, known, chunk["prompt"].to_list(), answers)
                faults[column] = [_faults_of(opened, place, known, len(answers)) for place in range(len(opened))]
                for name, count in zip(known.outputs, np.isnan(scores[column]).sum(axis=0), strict=True):
                    missing[name] = missing.get(name, 0) + int(count)
            _write(stream, chunk, scores, faults)
            if progress:
                progress.advance(chunk.height)
    missing = {name: count for name, count in missing.items() if count}
    lines = [stream.summary(), f"entries: {', '.join(known.outputs) or 'none, for no row could be read'}"]
    lines += [f"{name}: no reward for {count:,} answers" for name, count in missing.items()]
    lines += [f"{name}: {said}" for name, model in zip(names, opened, strict=True) if (said := _note(model))]
    failed = {names[place]: str(error) for place, error in known.failed.items()}
    lines += [f"{name} broke off, and has no rewards from there on: {reason}" for name, reason in failed.items()]
    return RewardsDone(stream.rows_written, stream.rejected, known.outputs, missing, failed, "\n".join(lines))


def _opened(
    models: Sequence[str | Reward | RewardModel], device: str | None, options: Mapping[str, Any]
) -> list[RewardModel]:
    named = [model for model in models if isinstance(model, str)]
    own = dict(zip(named, given_to_each(named, options), strict=True))
    opened: list[RewardModel] = []
    for model in models:
        if isinstance(model, str):
            opened.append(open_reward(model, device=device, **own[model]))
        elif isinstance(model, Reward):
            opened.append(open_reward(model.model, device=device, **model.options))
        else:
            opened.append(model)
    return opened


def _name(model: str | Reward | RewardModel) -> str:
    if isinstance(model, Reward):
        return model.model
    return model if isinstance(model, str) else model.fingerprint


def _note(model: RewardModel) -> str:
    """What the model itself has to say of its rewards."""
    return str(getattr(model, "note", ""))


def _answers(chunk: pl.DataFrame) -> dict[str, list[str]]:
    if "response" in chunk.columns:
        return {"rewards": chunk["response"].to_list()}
    return {f"{name}_rewards": chunk[name].to_list() for name in ("chosen", "rejected")}


class _Known(NamedTuple):
    """What has been seen of the models so far, by their place."""

    names: list[str]
    parts: dict[int, list[str]]
    """The names of a model's entries, once it has answered."""
    failed: dict[int, ModelError]

    @property
    def outputs(self) -> list[str]:
        """The entries so far; one for a model that broke off before it answered, none for one not yet asked."""
        asked = [place for place in range(len(self.names)) if place in self.parts or place in self.failed]
        return [name for place in asked for name in self.parts.get(place, [self.names[place]])]


def _score(
    models: Sequence[RewardModel], known: _Known, prompts: list[list[dict[str, str]]], answers: list[str]
) -> FloatArray:
    """(n, entries) with NaN for what is missing.

    Raises:
        ModelError: when no model is left that answers.
    """
    columns = []
    for place, model in enumerate(models):
        scores = _scores_of(model, place, known, prompts, answers)
        columns.append(np.where(np.isfinite(scores), scores, np.nan))
    if len(known.failed) == len(models):
        raise next(iter(known.failed.values()))
    return np.concatenate(columns, axis=1)


def _scores_of(
    model: RewardModel, place: int, known: _Known, prompts: list[list[dict[str, str]]], answers: list[str]
) -> FloatArray:
    """(n, entries of the model), all NaN once it has broken off: the other models' rewards are worth having."""
    name = known.names[place]
    if place not in known.failed:
        try:
            scores = np.asarray(model.score(prompts, answers), dtype=np.float64).reshape(len(answers), -1)
            same_width(len(known.parts.get(place, ())), scores.shape[1])
        except ModelError as error:
            known.failed[place] = error
        else:
            own = list(getattr(model, "outputs", ())) or [str(number) for number in range(scores.shape[1])]
            known.parts.setdefault(place, [name] if len(own) == 1 else [f"{name}:{part}" for part in own])
            return scores
    return np.full((len(answers), len(known.parts.get(place, [name]))), np.nan)


def _faults_of(models: Sequence[RewardModel], place: int, known: _Known, answers: int) -> Sequence[Fault | None]:
    """Why answers of the last call have no reward, where the model says so."""
    if (error := known.failed.get(place)) is not None:
        return [Fault("broke_off", "", str(error))] * answers
    return getattr(models[place], "faults", None) or [None] * answers


def _write(
    stream: Stream,
    chunk: pl.DataFrame,
    scores: dict[str, FloatArray],
    faults: dict[str, list[Sequence[Fault | None]]],
) -> None:
    there = np.ones(chunk.height, dtype=bool)
    why: dict[int, Fault] = {}
    for name, values in scores.items():
        lacking = ~np.isfinite(values).any(axis=1)
        for place in np.flatnonzero(lacking).tolist():
            said = next((model[place] for model in faults[name] if model[place] is not None), None)
            if said is not None:
                why.setdefault(place, said)
        there &= ~lacking
    rows = chunk["row"].to_list()
    for place in np.flatnonzero(~there).tolist():
        fault = why.get(place)
        more = ", for they gave no finite number" if fault is None else f": {fault.reason}"
        stream.reject(rows[place], "no_reward", fault.value if fault else "", f"no model could score it{more}")
    columns = {
        name: pl.Series(name, values.tolist(), dtype=pl.List(pl.Float64)).list.eval(pl.element().fill_nan(None))
        for name, values in scores.items()
    }
    stream.write(pl.DataFrame({"row": chunk["row"], **columns}).filter(pl.Series(there)))

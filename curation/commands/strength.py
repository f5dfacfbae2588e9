"""``curation strength``: preference strength of a file that has rewards of several models."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal, NamedTuple

import polars as pl

from curation.commands.streams import Stream, open_stream
from curation.errors import InputError
from curation.files import ROW
from curation.pairs.flipping import changed_by_a_flip, twin_of, was_flipped
from curation.pairs.views import BandAction, apply_bands, reward_augmented
from curation.prompts.column_kinds import known_labels
from curation.prompts.votes import are_votes
from curation.scores.margins import Scaling, mean_rewards, reward_lists
from curation.scores.strength import STRENGTH_COLUMNS, preference_strength

__all__ = ["StrengthDone", "run_strength"]

_REWARDS: Final = ("chosen_rewards", "rejected_rewards")
_VIEWED: Final = ("flipped", "label_smoothing", "margin", "weight")
"""Columns that the views add, or that an earlier view has added."""
_GOALS: Final = ("goal", "chosen_goal_reward", "rejected_goal_reward")
_MEANS: Final = ("chosen_mean_reward", "rejected_mean_reward")

_SIDES: Final = ("chosen", "rejected")
_LENGTHS: Final = ("chosen_length", "rejected_length")
_STRUCTURE_IS_OLD: Final = (
    "in_cycle, cycle and judged_both_ways were of the pairs before they were turned round, and are null now: run "
    "`curation structure` again"
)
_SHOWN: Final = 20
_CONTROLLED: Final = "length is controlled: what follows the log length ratio is taken out of every margin"


class StrengthDone(NamedTuple):
    """What the command did."""

    rows: int
    rejected: dict[str, int]
    bands: dict[str, int]
    models: pl.DataFrame
    notes: list[str]
    summary: str


def run_strength(
    input: str | Path,
    output: str | Path,
    *,
    scaling: Scaling = "robust",
    labelled: str | None = None,
    bands: Literal["quantile", "probability"] = "quantile",
    thresholds: tuple[float, float, float] | None = None,
    length_control: bool = False,
    actions: Mapping[str, Sequence[BandAction]] | None = None,
    goals: bool = False,
) -> StrengthDone:
    """Adds the columns of ``curation.scores.strength`` to rows with ``chosen_rewards`` and ``rejected_rewards``.

    The whole file is read at once: scales and quantiles are taken over it.

    Args:
        labelled: a Boolean column that says of some rows whether the label is right.
        scaling, bands, thresholds: see :func:`curation.scores.strength.preference_strength`.
        length_control: take out of each model's margins what follows the log length ratio (Dubois et al. 2024); the
            file then needs ``prompt``, ``chosen`` and ``rejected`` too.
        actions: band to what is done with its pairs (drop, flip, soft_label, margin, weight); adds
            ``label_smoothing``, ``margin``, ``weight`` and ``flipped``. A flip exchanges every column of
            chosen with its namesake of rejected, and turns scores, verdicts, votes and ``labelled`` round; what it
            does with further columns is in ``curation.pairs.flipping.flip_pairs``.
        goals: each pair twice, conditioned on a goal score, the mean of the rewards of the models that answered
            for both (Zhang et al. 2024, reward-augmented data); adds ``goal``, ``chosen_goal_reward`` and
            ``rejected_goal_reward``.

    Raises:
        InputError: when the file, its columns or an option is wrong.
    """
    columns = (*_REWARDS, *([labelled] if labelled else []))
    shapes = ("pair",) if length_control else ()
    with open_stream(input, output, shapes=shapes, columns=columns, chunk_rows=None) as stream:
        if goals and set(_GOALS) <= set(stream.source.schema):
            raise InputError(
                f"{input}: each row stands under a goal already (columns {', '.join(_GOALS)}): every pair would "
                f"be there four times: give the file from before, or leave --goals out"
            )
        counts: dict[str, int] = {}
        notes: list[str] = []
        models = pl.DataFrame()
        for chunk in stream.chunks():
            lengths = _LENGTHS if length_control else None
            rows = _with_lengths(chunk, stream, columns) if length_control else chunk
            result = preference_strength(
                rows, scaling=scaling, labelled=labelled, bands=bands, thresholds=thresholds, lengths=lengths
            )
            viewed = _viewed(result.frame, stream, actions, labelled=labelled, goals=goals)
            # What no band asks for stays as it was, also where its values are of several types.
            kept = {name for name in stream.source.mixed & set(viewed.columns) if viewed[name].dtype == pl.String}
            own = set(viewed.columns) - {*_VIEWED, *_REWARDS} | kept
            stream.write(viewed, still_mixed=own - set(STRENGTH_COLUMNS))
            place = chunk["row"]
            stream.reject_frame(result.rejects.with_columns(row=place.gather(result.rejects["row"])))
            counts = dict(result.frame["strength_band"].value_counts(sort=True).iter_rows())
            notes, models = [*result.notes, *([_CONTROLLED] if length_control else [])], result.models
            notes += _not_turned(viewed, stream.originals)
            notes += [_STRUCTURE_IS_OLD] if _lost(viewed, stream.originals) else []
    bands_said = [", ".join(f"{band} {count:,}" for band, count in counts.items())] if counts else []
    lines = [stream.summary(), *bands_said, *notes]
    return StrengthDone(stream.rows_written, stream.rejected, counts, models, notes, "\n".join(lines))


def _lost(viewed: pl.DataFrame, originals: pl.DataFrame) -> bool:
    """Whether what ``curation structure`` has found was taken back, because pairs were turned round."""
    known = [frame["in_cycle"].count() for frame in (originals, viewed) if "in_cycle" in frame.columns]
    return len(known) == 2 and known[0] > 0 == known[1]


def _not_turned(viewed: pl.DataFrame, originals: pl.DataFrame) -> list[str]:
    """The columns that a flip leaves alone: whether one says which answer is better, the user alone knows."""
    if "flipped" not in viewed.columns or not viewed["flipped"].any():
        return []
    names = [name for name in originals.columns if name not in {ROW, "prompt", *viewed.columns}]
    shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else "")
    return [f"as they were, also where flipped is true: {shown}"] if names else []


def _with_lengths(chunk: pl.DataFrame, stream: Stream, columns: Sequence[str]) -> pl.DataFrame:
    """The rows whose texts could be read, with their rewards and the lengths of both answers, in characters."""
    sizes = (pl.col(side).str.len_chars().alias(name) for side, name in zip(_SIDES, _LENGTHS, strict=True))
    return stream.beside(chunk.select("row", *sizes), columns)


def _viewed(
    scored: pl.DataFrame,
    stream: Stream,
    actions: Mapping[str, Sequence[BandAction]] | None,
    *,
    labelled: str | None,
    goals: bool,
) -> pl.DataFrame:
    """``row``, the strength columns, and every column of the file that a flip or an action changes."""
    added = scored.select("row", *STRENGTH_COLUMNS)
    if not actions and not goals:
        return added
    turns = goals or any("flip" in names for names in (actions or {}).values())
    # Rewards that came as text, or whole on one side alone, are written as what they were read as.
    kinds = [scored[name].dtype for name in _REWARDS]
    read_anew = turns and (pl.String in kinds or kinds[0] != kinds[1])
    read = [reward_lists(scored, name) for name in _REWARDS if read_anew]
    full = added.hstack(read).join(
        _own_columns(stream, {*added.columns, *(s.name for s in read)}, turns=turns),
        on="row",
        maintain_order="left",
    )
    full = full.with_columns(_was=was_flipped(full))
    if labelled and turns:
        full = full.with_columns(known_labels(scored[labelled]).alias(labelled))
    if goals:
        means = mean_rewards(scored, chosen=_REWARDS[0], rejected=_REWARDS[1])
        full = full.drop(_MEANS, strict=False).hstack(means)
    if actions:
        view = apply_bands(full, actions)
        stream.reject_frame(view.rejects.with_columns(row=full["row"].gather(view.rejects["row"])))
        full = view.frame
    if goals:
        full = reward_augmented(full, chosen_score=_MEANS[0], rejected_score=_MEANS[1])
    if labelled and turns:
        full = full.with_columns(pl.col(labelled) ^ pl.col("flipped") ^ pl.col("_was"))
    return full.drop("_was")


def _own_columns(stream: Stream, new: Collection[str], *, turns: bool) -> pl.DataFrame:
    """``row`` and the file's own columns that the views read or change, but for those that are ``new``."""
    originals = stream.originals.drop(new, strict=False)
    wanted: list[str] = [name for name in _VIEWED if name in originals.columns]
    if turns:
        wanted += [name for name in changed_by_a_flip(originals) if name not in wanted]
        _need_turnable_votes(stream)
        for name in wanted:
            twin = twin_of(name)
            if twin in wanted and (name in stream.source.mixed) != (twin in stream.source.mixed):
                raise InputError(
                    f"columns {name!r} and {twin!r} cannot change places in a flip: the values of one are of "
                    f"several types; give both in one form"
                )
    return originals.select(pl.col(ROW).alias("row"), *wanted)


def _need_turnable_votes(stream: Stream) -> None:
    """Votes in several types are JSON text here, which a flip would leave on the wrong answer."""
    for name in sorted(stream.source.mixed & set(stream.originals.columns)):
        cells = stream.originals[name].drop_nulls()
        if any(are_votes(json.loads(cell)) for cell in cells.filter(cells.str.contains('"voter"', literal=True))):
            raise InputError(
                f"column {name!r} cannot be turned round in a flip: its votes are of several types; give each as "
                f"chosen, rejected or tie"
            )

"""Reward lists to a matrix of margins on one scale. What margins say of a pair is in ``strength``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from curation.errors import InputError

__all__ = [
    "MIN_ROWS_TO_SCALE",
    "Margins",
    "Scaling",
    "mean_rewards",
    "read_margins",
    "reward_lists",
    "robust_scale",
    "scale_margins",
]

FloatArray = npt.NDArray[np.float64]
Scaling = Literal["robust", "none"]

MIN_ROWS_TO_SCALE: Final = 10
_NORMAL_CONSISTENCY: Final = 1.4826  # median |d| times this is the std where d ~ N(0, std)


class Margins(NamedTuple):
    """What could be read of the reward columns."""

    values: FloatArray
    """(rows kept, models): reward of chosen minus reward of rejected; NaN where a model has no answer."""
    kept: npt.NDArray[np.int64]
    """Row numbers of the frame that ``values`` stands for."""
    rejects: pl.DataFrame
    """``row``, ``rule``, ``value``, ``reason`` of the others."""


def read_margins(frame: pl.DataFrame, *, chosen: str, rejected: str, models: int | None = None) -> Margins:
    """The margins of every row whose two lists have the expected number of rewards.

    Args:
        frame: holds two columns of lists of numbers, one entry per model, in the same order.
        models: how many models there are; None for the most frequent list length.

    Raises:
        InputError: when a column is missing or holds no lists of numbers.
    """
    first, second = reward_lists(frame, chosen), reward_lists(frame, rejected)
    lengths = pl.DataFrame({"c": first.list.len(), "r": second.list.len()})
    if models is None:
        models = _usual_length(lengths)
    good = ((lengths["c"] == models) & (lengths["r"] == models)).fill_null(False)
    kept = np.flatnonzero(good.to_numpy()).astype(np.int64)
    with np.errstate(invalid="ignore", over="ignore"):  # ∞ − ∞, and what is more than a float holds
        values = _matrix(first, good, models) - _matrix(second, good, models)
    values[~np.isfinite(values)] = np.nan
    rejects = _count_rejects(lengths, good, models, [(frame[chosen], first), (frame[rejected], second)])
    empty = np.isnan(values).all(axis=1) if models else np.ones(len(kept), dtype=bool)
    if empty.any():
        rejects = pl.concat([rejects, _rejects(kept[empty], "no_reward", "", "no model gave a finite reward")])
        values, kept = values[~empty], kept[~empty]
    return Margins(values, kept, rejects.sort("row"))


def mean_rewards(frame: pl.DataFrame, *, chosen: str, rejected: str) -> pl.DataFrame:
    """``chosen_mean_reward`` and ``rejected_mean_reward``, row by row, over the models that answered for both.

    Args:
        frame: rows that :func:`read_margins` keeps.
    """
    lists = [reward_lists(frame, name) for name in (chosen, rejected)]
    models = int(lists[0].list.len().max() or 0)  # type: ignore[arg-type]
    everything = pl.Series([True] * frame.height, dtype=pl.Boolean)
    both = [_matrix(values, everything, models) for values in lists]
    there = np.isfinite(both[0]) & np.isfinite(both[1])
    count = np.maximum(there.sum(axis=1), 1)
    means = [np.where(there, values, 0.0).sum(axis=1) / count for values in both]
    return pl.DataFrame({"chosen_mean_reward": means[0], "rejected_mean_reward": means[1]})


def robust_scale(margins: FloatArray) -> FloatArray:
    """The scale of each model: 1.4826 × median |margin| over its rows, (models,).

    Taken about zero, since zero is where a model sees no difference. A model with a zero margin on half
    of its rows or more is measured on the others; one with no other margins has scale 1.
    """
    scales = np.ones(margins.shape[1])
    for column in range(margins.shape[1]):
        sizes = np.abs(margins[:, column])
        sizes = sizes[np.isfinite(sizes)]
        middle = float(np.median(sizes)) if len(sizes) else 0.0
        if middle == 0.0:
            sizes = sizes[sizes > 0]
            middle = float(np.median(sizes)) if len(sizes) else 0.0
        if middle > 0.0:
            scales[column] = middle * _NORMAL_CONSISTENCY
    return scales


def scale_margins(margins: FloatArray, scaling: Scaling) -> tuple[FloatArray, FloatArray]:
    """The margins on one scale, and the scale of each model; as given where rows are too few to tell."""
    if scaling == "none" or len(margins) < MIN_ROWS_TO_SCALE:
        return margins, np.ones(margins.shape[1])
    scales = robust_scale(margins)
    return margins / scales, scales


def reward_lists(frame: pl.DataFrame, name: str) -> pl.Series:
    """A column of rewards as lists, one entry a model; null where a row holds none, or something else.

    Raises:
        InputError: when the column is missing or can hold no rewards.
    """
    if name not in frame.columns:
        raise InputError(
            f"column {name!r} is missing: found {', '.join(frame.columns) or 'no columns'}; "
            f"expected a list of rewards, one entry per model (make it with `curation rewards`)"
        )
    series = frame[name]
    dtype = series.dtype
    if dtype.is_numeric():
        return (
            series.cast(pl.Float64).reshape((len(series), 1)).arr.to_list()
            if len(series)
            else (series.cast(pl.List(pl.Float64)))
        )
    if isinstance(dtype, pl.Array):
        series, dtype = series.arr.to_list(), pl.List(dtype.inner)
    if series.null_count() == len(series) and not isinstance(dtype, pl.List):
        return pl.Series(name, [None] * len(series), dtype=pl.List(pl.Float64))
    if dtype == pl.String:  # of a CSV file, or JSON text where a row holds something else than a list
        read = [_decoded(text) for text in series.to_list()]
        if any(value is not None for value in read):
            return pl.Series(name, read, dtype=pl.List(pl.Float64))
    if not isinstance(dtype, pl.List) or not (dtype.inner.is_numeric() or dtype.inner == pl.Null):
        raise InputError(f"column {name!r} holds {dtype}, expected lists of numbers, one entry per model")
    return series.cast(pl.List(pl.Float64))


def _decoded(text: str | None) -> list[float | None] | None:
    """The rewards that a text lists, or the one that it is; None where it is something else."""
    try:
        value = json.loads(text) if text else None
    except (ValueError, RecursionError):
        return None
    values = value if isinstance(value, list) else [value]
    known = all(v is None or (isinstance(v, int | float) and not isinstance(v, bool)) for v in values)
    return [None if v is None else float(v) for v in values] if known and value is not None else None


def _usual_length(lengths: pl.DataFrame) -> int:
    both = lengths.filter(pl.col("c") == pl.col("r"), pl.col("c") > 0)["c"]
    if both.is_empty():
        return 0
    counts = both.value_counts().sort(["count", "c"], descending=True)
    return int(counts["c"][0])


def _matrix(series: pl.Series, good: pl.Series, models: int) -> FloatArray:
    if models == 0 or not good.any():
        return np.empty((int(good.sum()), models))
    if not good.all():
        series = series.filter(good)
    flat = series.explode().fill_null(float("nan")).to_numpy()
    return np.asarray(flat, dtype=np.float64).reshape(-1, models)


def _count_rejects(
    lengths: pl.DataFrame, good: pl.Series, models: int, sides: Sequence[tuple[pl.Series, pl.Series]]
) -> pl.DataFrame:
    unread = [given.is_not_null() & read.is_null() for given, read in sides]
    bad = lengths.with_columns(unread=unread[0] | unread[1]).with_row_index("row").filter(~good)
    unreadable = bad.filter("unread")
    bad = bad.filter(~pl.col("unread"))
    missing = bad.filter(pl.col("c").is_null() | pl.col("r").is_null())
    wrong = bad.filter(pl.col("c").is_not_null() & pl.col("r").is_not_null())
    return pl.concat(
        [
            _rejects(
                unreadable["row"].to_numpy(),
                "unreadable_rewards",
                "",
                "rewards are no list of numbers, one a model",
            ),
            _rejects(missing["row"].to_numpy(), "missing_rewards", "", "a list of rewards is missing"),
            _rejects(
                wrong["row"].to_numpy(),
                "reward_count",
                [f"{c} and {r}" for c, r in wrong.select("c", "r").iter_rows()],
                f"the lists of rewards have other lengths than the {models} of most rows",
            ),
        ]
    )


def _rejects(rows: npt.NDArray[np.int64], rule: str, value: str | list[str], reason: str) -> pl.DataFrame:
    size = len(rows)
    return pl.DataFrame(
        {
            "row": pl.Series(rows, dtype=pl.Int64),
            "rule": pl.Series([rule] * size, dtype=pl.String),
            "value": pl.Series([value] * size if isinstance(value, str) else value, dtype=pl.String),
            "reason": pl.Series([reason] * size, dtype=pl.String),
        }
    )

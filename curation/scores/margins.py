"""Reward lists to a matrix of margins on one scale. What margins say of a pair is in ``strength``."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from curation.errors import InputError

__all__ = ["MIN_ROWS_TO_SCALE", "Margins", "Scaling", "read_margins", "robust_scale", "scale_margins"]

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
    first, second = _list_column(frame, chosen), _list_column(frame, rejected)
    lengths = pl.DataFrame({"c": first.list.len(), "r": second.list.len()})
    if models is None:
        models = _usual_length(lengths)
    good = ((lengths["c"] == models) & (lengths["r"] == models)).fill_null(False)
    kept = np.flatnonzero(good.to_numpy()).astype(np.int64)
    values = _matrix(first, good, models) - _matrix(second, good, models)
    values[~np.isfinite(values)] = np.nan
    rejects = _count_rejects(lengths, good, models)
    empty = np.isnan(values).all(axis=1) if models else np.ones(len(kept), dtype=bool)
    if empty.any():
        rejects = pl.concat([rejects, _rejects(kept[empty], "no_reward", "", "no model gave a finite reward")])
        values, kept = values[~empty], kept[~empty]
    return Margins(values, kept, rejects.sort("row"))


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


def _list_column(frame: pl.DataFrame, name: str) -> pl.Series:
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
    if dtype == pl.Null:
        return series.cast(pl.List(pl.Float64))
    if not isinstance(dtype, pl.List) or not (dtype.inner.is_numeric() or dtype.inner == pl.Null):
        raise InputError(f"column {name!r} holds {dtype}, expected lists of numbers, one entry per model")
    return series.cast(pl.List(pl.Float64))


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


def _count_rejects(lengths: pl.DataFrame, good: pl.Series, models: int) -> pl.DataFrame:
    bad = lengths.with_row_index("row").filter(~good)
    missing = bad.filter(pl.col("c").is_null() | pl.col("r").is_null())
    wrong = bad.filter(pl.col("c").is_not_null() & pl.col("r").is_not_null())
    return pl.concat(
        [
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

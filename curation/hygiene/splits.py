"""Splits: which prompts go to train, validation and test, so that what belongs together stays together.

How near-duplicates and families are found is elsewhere; here they are columns.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from curation.errors import InputError
from curation.hygiene.groups import UnionFind
from schemas.columns import SPLITS

__all__ = ["assign_splits", "leaking_groups"]


def assign_splits(
    prompts: pl.DataFrame,
    *,
    fractions: Mapping[str, float],
    seed: int,
    group_columns: Sequence[str] = ("prompt_id",),
    stratify: str | None = None,
) -> pl.DataFrame:
    """Add a column ``split``.

    Rows that share a value in any of the group columns, directly or through others, are one group and get
    one split. A group's split depends on the seed and on its smallest value of the first group column
    alone, so new prompts do not move old ones, unless they tie two groups together.

    Args:
        prompts: the group columns are text; nulls tie nothing together.
        fractions: train, validation, test to shares that add up to 1.
        seed: of the assignment.
        group_columns: see above; the first must have no nulls.
        stratify: a column; within each of its values the fractions are met as nearly as whole groups
            allow. Then a new prompt may move others of its stratum.

    Raises:
        InputError: when a fraction has an unknown name, or they do not add up to 1.
    """
    unknown = [name for name in fractions if name not in SPLITS]
    if unknown or abs(sum(fractions.values()) - 1.0) > 1e-9:
        raise InputError(f"split fractions: expected {', '.join(SPLITS)} adding up to 1, found {dict(fractions)}")
    names = [name for name in SPLITS if fractions.get(name, 0.0) > 0.0]
    edges = np.cumsum([fractions[name] for name in names])
    edges[-1] = np.inf
    keys = _group_keys(prompts, group_columns)
    places = np.array([_place(key, seed) for key in keys], dtype=np.float64)
    if stratify is not None:
        places = _ranked(places, keys, prompts[stratify])
    chosen = [names[i] for i in np.searchsorted(edges, places, side="right")]
    return prompts.with_columns(split=pl.Series(chosen, dtype=pl.String))


def leaking_groups(prompts: pl.DataFrame, *, group_column: str = "prompt_id") -> list[str]:
    """The groups that stand in more than one split, sorted; none is what a publication needs."""
    counts = prompts.drop_nulls(group_column).group_by(group_column).agg(pl.col("split").n_unique())
    return sorted(counts.filter(pl.col("split") > 1)[group_column].to_list())


def _group_keys(prompts: pl.DataFrame, columns: Sequence[str]) -> list[str]:
    """Each row's group, named by the smallest value of the first column in it."""
    first = prompts[columns[0]].cast(pl.String).to_list()
    groups = UnionFind(len(first))
    for column in columns:
        seen: dict[str, int] = {}
        for row, value in enumerate(prompts[column].cast(pl.String).to_list()):
            if value is not None:
                groups.join(seen.setdefault(value, row), row)
    smallest: dict[int, str] = {}
    labels = groups.labels().tolist()
    for label, value in zip(labels, first, strict=True):
        smallest[label] = min(value, smallest.get(label, value))
    return [smallest[label] for label in labels]


def _place(key: str, seed: int) -> float:
    """A number in [0, 1) that is the same on every machine."""
    digest = hashlib.sha256(f"split {seed} {key}".encode()).digest()
    return int.from_bytes(digest[:8], "little") / 2**64


def _ranked(places: npt.NDArray[np.float64], keys: list[str], strata: pl.Series) -> npt.NDArray[np.float64]:
    """Places spread evenly within each stratum; a group counts in the stratum of its first row."""
    frame = pl.DataFrame({"key": keys, "place": places, "stratum": strata.cast(pl.String).fill_null("")})
    groups = frame.group_by("key", maintain_order=True).agg(
        pl.col("place").first(), pl.col("stratum").first(), size=pl.len()
    )
    groups = groups.sort("stratum", "place", "key").with_columns(
        rank=(pl.col("size").cum_sum().over("stratum") - pl.col("size") / 2) / pl.col("size").sum().over("stratum")
    )
    ranked = frame.select("key").join(groups.select("key", "rank"), on="key", maintain_order="left")
    found: npt.NDArray[np.float64] = ranked["rank"].to_numpy().astype(np.float64)
    return found

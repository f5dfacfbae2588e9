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
    previous: str | None = None,
) -> pl.DataFrame:
    """Add a column ``split``.

    Rows that share a value in any of the group columns, directly or through others, are one group and get
    one split. A group's split depends on the seed and on its smallest value of the first group column
    alone, so new prompts do not move old ones, unless they tie two groups together or bring a smaller
    value. With ``previous`` nothing at all moves them.

    Args:
        prompts: the group columns are text; nulls tie nothing together.
        fractions: train, validation, test to shares that add up to 1.
        seed: of the assignment.
        group_columns: see above; the first must have no nulls.
        stratify: a column; within each of its values the fractions are met as nearly as whole groups
            allow. Where it is null, a group is placed for itself. Without ``previous`` a new prompt may then
            move others of its stratum.
        previous: a column with the split that a row was given before, null for new rows. Such a row keeps it,
            and new rows of its group get it; the strata count it.

    Raises:
        InputError: when a fraction has an unknown name, or they do not add up to 1.
    """
    unknown = [name for name in fractions if name not in SPLITS]
    if unknown or abs(sum(fractions.values()) - 1.0) > 1e-9:
        raise InputError(f"split fractions: expected {', '.join(SPLITS)} adding up to 1, found {dict(fractions)}")
    names = [name for name in SPLITS if fractions.get(name, 0.0) > 0.0]
    shares = [fractions[name] for name in names]
    keys = _group_keys(prompts, group_columns)
    rows = pl.DataFrame(
        {
            "key": pl.Series(keys, dtype=pl.String),
            "given": _column(prompts, previous),
            "stratum": _column(prompts, stratify),
        }
    )
    groups = rows.group_by("key", maintain_order=True).agg(
        pl.col("given").drop_nulls().first(), pl.col("stratum").first(), size=pl.len()
    )
    places = pl.Series([_place(key, seed) for key in groups["key"]], dtype=pl.Float64)
    groups = groups.with_columns(place=places)
    groups = groups.with_columns(chosen=pl.Series(_by_place(places.to_numpy(), names, shares), dtype=pl.String))
    if stratify is not None:
        groups = groups.join(_by_quota(groups, names, shares, seed), on="key", how="left", maintain_order="left")
        groups = groups.with_columns(chosen=pl.coalesce("quota", "chosen"))
    chosen = rows.join(groups.select("key", "chosen", group_given="given"), on="key", maintain_order="left")
    return prompts.with_columns(split=chosen.select(pl.coalesce("given", "group_given", "chosen")).to_series())


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


def _column(prompts: pl.DataFrame, name: str | None) -> pl.Series:
    if name is None:
        return pl.Series([None] * prompts.height, dtype=pl.String)
    return prompts[name].cast(pl.String)


def _by_place(places: npt.NDArray[np.float64], names: Sequence[str], shares: Sequence[float]) -> list[str]:
    """Each place in [0, 1) falls into a split's share."""
    edges = np.cumsum(shares)
    edges[-1] = np.inf
    return [names[i] for i in np.searchsorted(edges, places, side="right")]


def _by_quota(groups: pl.DataFrame, names: Sequence[str], shares: Sequence[float], seed: int) -> pl.DataFrame:
    """key, quota: the split of each new group with a stratum, so that the stratum's rows meet the shares.

    What was given before counts. Quotas are whole rows, rounded by a draw of the stratum's own, so that many
    small strata together meet the shares, too.
    """
    strata = groups.drop_nulls("stratum")
    new = strata.filter(pl.col("given").is_null()).sort("stratum", "place", "key")
    rows = new.group_by("stratum", maintain_order=True).agg(new=pl.col("size").sum().cast(pl.Float64))
    for name in names:
        had = strata.filter(pl.col("given") == name).group_by("stratum").agg(pl.col("size").sum().alias(name))
        rows = rows.join(had, on="stratum", how="left", maintain_order="left")
    had_rows = rows.select(names).fill_null(0).to_numpy().astype(np.float64)
    total = rows["new"].to_numpy() + had_rows.sum(axis=1)
    wanted = np.maximum(0.0, total[:, None] * np.asarray(shares) - had_rows)
    wanted *= (rows["new"].to_numpy() / np.maximum(wanted.sum(axis=1), 1e-12))[:, None]
    draws = np.array([_place(f"stratum {stratum}", seed) for stratum in rows["stratum"]], dtype=np.float64)
    # A whole number stays one, in spite of the last bit of a sum.
    edges = np.floor(wanted.cumsum(axis=1)[:, :-1].round(9) + draws[:, None])
    middle = pl.col("size").cum_sum().over("stratum") - pl.col("size") / 2
    placed = new.select("key", "stratum", middle=middle).join(
        rows.select("stratum").with_row_index("at"), on="stratum", maintain_order="left"
    )
    split = (edges[placed["at"].to_numpy()] <= placed["middle"].to_numpy()[:, None]).sum(axis=1)
    return placed.select("key", quota=pl.Series([names[i] for i in split], dtype=pl.String))

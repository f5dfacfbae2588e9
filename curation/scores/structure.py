"""What pairs say about each other: cycles, contradictions, conflicting duplicates, and length bias."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from curation.errors import InputError

__all__ = [
    "LONGER_PREFERRED",
    "LengthBias",
    "conflicts",
    "length_bias",
    "match_lengths",
    "preference_cycles",
    "structure_counts",
]

FloatArray = npt.NDArray[np.float64]
LONGER_PREFERRED: Final = "the longer answer has the higher reward"


def preference_cycles(pairs: pl.DataFrame) -> pl.DataFrame:
    """The pairs that lie on a cycle of preferences within their prompt (a ≻ b ≻ c ≻ a, or a ≻ b ≻ a).

    Args:
        pairs: ``prompt_id``, ``chosen_id``, ``rejected_id``.

    Returns:
        ``in_cycle`` for each row, in order, and ``cycle``: a number shared by the pairs of one strongly
        connected component, null outside of one.
    """
    _need(pairs, "prompt_id", "chosen_id", "rejected_id")
    prompt = pairs["prompt_id"].cast(pl.String)
    nodes = pl.concat([prompt + "\x00" + pairs[name].cast(pl.String) for name in ("chosen_id", "rejected_id")])
    codes = nodes.rank("dense").to_numpy().astype(np.int64) - 1
    first, second = codes[: pairs.height], codes[pairs.height :]
    if not np.isin(first, second).any():  # no answer is chosen here and rejected there
        return pl.select(
            in_cycle=pl.repeat(False, pairs.height), cycle=pl.repeat(None, pairs.height, dtype=pl.Int64)
        )
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    size = int(codes.max()) + 1
    graph = coo_array((np.ones(pairs.height), (first, second)), shape=(size, size))
    _, component = connected_components(graph, directed=True, connection="strong")
    inside = component[first] == component[second]
    numbers = {value: number for number, value in enumerate(dict.fromkeys(component[first][inside].tolist()))}
    cycle = [numbers[int(c)] if i else None for c, i in zip(component[first], inside, strict=True)]
    return pl.DataFrame({"in_cycle": inside, "cycle": pl.Series(cycle, dtype=pl.Int64)})


def conflicts(pairs: pl.DataFrame) -> pl.DataFrame:
    """Pairs of answers that are judged more than once, and how the judgements differ.

    Args:
        pairs: ``prompt_id``, ``chosen_id``, ``rejected_id``, and ``source`` where there is one.

    Returns:
        One row for each unordered pair of answers that is judged both ways: ``prompt_id``, ``first_id``,
        ``second_id`` (in the order of their ids), ``prefer_first``, ``prefer_second`` (counts), ``sources``.
    """
    _need(pairs, "prompt_id", "chosen_id", "rejected_id")
    source = pl.col("source").cast(pl.String) if "source" in pairs.columns else pl.lit(None, dtype=pl.String)
    ordered = pl.col("chosen_id") < pl.col("rejected_id")
    return (
        pairs.select(
            "prompt_id",
            first_id=pl.min_horizontal("chosen_id", "rejected_id"),
            second_id=pl.max_horizontal("chosen_id", "rejected_id"),
            first_wins=ordered,
            source=source,
        )
        .group_by("prompt_id", "first_id", "second_id", maintain_order=True)
        .agg(
            prefer_first=pl.col("first_wins").sum().cast(pl.Int64),
            prefer_second=(~pl.col("first_wins")).sum().cast(pl.Int64),
            sources=pl.col("source").drop_nulls().unique().sort(),
        )
        .filter((pl.col("prefer_first") > 0) & (pl.col("prefer_second") > 0))
    )


def structure_counts(
    judged: pl.DataFrame, *, in_cycle: int, margins: pl.Series, lengths: Sequence[npt.ArrayLike]
) -> dict[str, int | float]:
    """What pairs say of each other and of length, in words and numbers.

    Args:
        judged: every judgement: ``prompt_id``, ``chosen_id``, ``rejected_id``, and ``source`` where there is one.
        in_cycle: how many pairs lie on a cycle.
        margins: (pairs,) strength; without any number, nothing is said of length.
        lengths: (pairs,) of chosen and of rejected.
    """
    contradicted = conflicts(judged)
    counts: dict[str, int | float] = {
        "pairs in a cycle": in_cycle,
        "two answers judged both ways": contradicted.height,
        "of them across sources": contradicted.filter(pl.col("sources").list.len() > 1).height,
    }
    if margins.null_count() < margins.len():
        bias = length_bias(margins.cast(pl.Float64).fill_null(np.nan).to_numpy(), *lengths)
        counts["rank correlation of strength and length ratio"] = round(bias.correlation, 4)
        counts[LONGER_PREFERRED] = round(bias.longer_preferred, 4)
    return counts


class LengthBias(NamedTuple):
    """How much margins follow the difference in length."""

    correlation: float
    """Spearman's, of margin and log length ratio; 0 where one of them is constant."""
    longer_preferred: float
    """Share of pairs of different length whose longer answer has the higher reward."""
    controlled: FloatArray
    """(pairs,) margins with their linear part in the log length ratio taken out: length-controlled strength."""


def length_bias(
    margins: npt.ArrayLike, chosen_lengths: npt.ArrayLike, rejected_lengths: npt.ArrayLike
) -> LengthBias:
    """Length bias of (pairs,) margins; lengths are characters, words or tokens, at least 0.

    The control is a least-squares line through zero, as in length-controlled AlpacaEval (Dubois et al. 2024):
    a pair of equal lengths keeps its margin.
    """
    margin = np.asarray(margins, dtype=np.float64)
    ratio = np.log1p(np.asarray(chosen_lengths, dtype=np.float64)) - np.log1p(
        np.asarray(rejected_lengths, dtype=np.float64)
    )
    good = np.isfinite(margin)
    energy = float((ratio[good] ** 2).sum())
    slope = float((ratio[good] * margin[good]).sum()) / energy if energy > 0 else 0.0
    differ = good & (ratio != 0) & (margin != 0)
    preferred = float((np.sign(ratio[differ]) == np.sign(margin[differ])).mean()) if differ.any() else 0.5
    return LengthBias(_spearman(margin[good], ratio[good]), preferred, margin - slope * ratio)


def match_lengths(
    chosen_lengths: npt.ArrayLike, rejected_lengths: npt.ArrayLike, *, bins: int = 10, seed: int = 0
) -> npt.NDArray[np.int64]:
    """Rows of a sample in which chosen is longer as often as it is shorter, by how much too.

    Log length ratios are put into bins that mirror each other around 0; from a bin and its mirror the same
    number is drawn. Rows of ratio 0 stay. Returns row numbers, ascending.
    """
    ratio = np.log1p(np.asarray(chosen_lengths, dtype=np.float64)) - np.log1p(
        np.asarray(rejected_lengths, dtype=np.float64)
    )
    size = np.abs(ratio)
    kept = list(np.flatnonzero(ratio == 0))
    edges = np.quantile(size[size > 0], np.linspace(0, 1, bins + 1)[1:-1]) if (size > 0).any() else np.zeros(0)
    place = np.searchsorted(edges, size, side="right")
    random = np.random.default_rng(seed)
    for number in range(bins):
        longer = np.flatnonzero((place == number) & (ratio > 0))
        shorter = np.flatnonzero((place == number) & (ratio < 0))
        count = min(len(longer), len(shorter))
        kept += list(random.permutation(longer)[:count]) + list(random.permutation(shorter)[:count])
    return np.sort(np.asarray(kept, dtype=np.int64))


def _spearman(first: FloatArray, second: FloatArray) -> float:
    if len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    ranks = [pl.Series(values).rank("average").to_numpy() for values in (first, second)]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _need(frame: pl.DataFrame, *names: str) -> None:
    missing = [name for name in names if name not in frame.columns]
    if missing:
        raise InputError(f"column {missing[0]!r} is missing: found {', '.join(frame.columns)}")

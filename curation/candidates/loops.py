"""Repetition loops: answers in which the model says one thing over and over until it is stopped.

A loop is exact repetition without anything between, many times, that fills the answer's end or half of it. Refrains
come back after a verse, list items differ, rules of dashes hold no letter: none of them is one.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from curation.hygiene.shingles import mix

__all__ = ["MIN_LOOP_CHARACTERS", "MIN_LOOP_REPEATS", "repetition_loops"]

MIN_LOOP_CHARACTERS: Final = 200
MIN_LOOP_REPEATS: Final = 6
_WINDOW: Final = 8
_CHUNK: Final = 2_000_000
_HALF: Final = 0.5

Ints = npt.NDArray[np.int64]


class _Stretch(NamedTuple):
    start: int
    period: int
    length: int


def repetition_loops(
    responses: pl.Series, *, min_characters: int = MIN_LOOP_CHARACTERS, min_repeats: int = MIN_LOOP_REPEATS
) -> pl.DataFrame:
    """The longest loop of each text.

    Args:
        responses: n texts, no nulls.
        min_characters: least length of the repeated stretch, first copy included.
        min_repeats: least number of copies in a row.

    Returns:
        n rows: ``unit_characters`` and ``repeats`` of the loop, both null for none.
    """
    lengths = responses.str.len_chars().to_numpy().astype(np.int64)
    found: list[tuple[int | None, int | None]] = [(None, None)] * len(lengths)
    long = np.flatnonzero(lengths >= min_characters)
    for part in _chunks(long, lengths):
        for text, stretch in _longest(responses.gather(part), min_characters, min_repeats).items():
            found[int(part[text])] = (stretch.period, stretch.length // stretch.period)
    schema = {"unit_characters": pl.Int64, "repeats": pl.Int64}
    return pl.DataFrame(found, schema=schema, orient="row")


def _chunks(rows: Ints, lengths: Ints) -> list[Ints]:
    """Row numbers in parts of bounded length."""
    if not rows.size:
        return []
    part = np.cumsum(lengths[rows]) // _CHUNK
    return np.split(rows, np.flatnonzero(np.diff(part)) + 1)


def _longest(texts: pl.Series, min_characters: int, min_repeats: int) -> dict[int, _Stretch]:
    """For each text with a loop its longest one."""
    encoded = [np.frombuffer(text.encode("utf-32-le"), dtype="<u4") for text in texts]
    sizes = np.array([len(one) for one in encoded], dtype=np.int64)
    ends = np.cumsum(sizes)
    characters = np.concatenate(encoded).astype(np.uint64)
    text = np.repeat(np.arange(len(sizes)), sizes)
    gaps = _gaps(characters, text)
    # A run of one and the same gap g > 0 says that the stretch repeats itself with period g.
    starts = np.concatenate([[0], np.flatnonzero((np.diff(gaps) != 0) | (np.diff(text) != 0)) + 1])
    runs = np.diff(np.append(starts, len(gaps)))
    period = gaps[starts]
    length = runs + period + _WINDOW - 1
    enough = (period > 0) & (length >= min_characters) & (length >= min_repeats * period)
    loops: dict[int, _Stretch] = {}
    for at, p, size in zip(starts[enough].tolist(), period[enough].tolist(), length[enough].tolist(), strict=True):
        owner = int(text[at])
        begin = at - p
        end = int(ends[owner])
        reaches_end = end - (begin + size) < p
        if not reaches_end and size < _HALF * sizes[owner]:
            continue
        unit = characters[begin : begin + p].astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")
        if not any(c.isalnum() for c in unit):
            continue
        if owner not in loops or size > loops[owner].length:
            loops[owner] = _Stretch(begin, p, size)
    return loops


def _gaps(characters: npt.NDArray[np.uint64], text: Ints) -> Ints:
    """How far back the same ``_WINDOW`` characters were last seen in the same text; 0 for never."""
    n = len(characters)
    hashes = np.zeros(n, dtype=np.uint64)
    spread = mix(characters + np.uint64(0x9E3779B97F4A7C15))
    for offset in range(_WINDOW):
        # At the end of all texts the window runs over; those positions are cut below.
        rolled = np.concatenate([spread[offset:], np.zeros(offset, dtype=np.uint64)])
        hashes += rolled * np.uint64(pow(0xD6E8FEB86659FD93, offset + 1, 2**64))
    hashes ^= mix(text.astype(np.uint64) + np.uint64(1))
    last = np.searchsorted(text, text, side="right") - _WINDOW
    inside = np.arange(n) <= last
    order = np.argsort(hashes, kind="stable")
    same = hashes[order[1:]] == hashes[order[:-1]]
    gaps = np.zeros(n, dtype=np.int64)
    gaps[order[1:]] = np.where(same, order[1:] - order[:-1], 0)
    gaps[~inside] = 0
    return gaps

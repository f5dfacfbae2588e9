"""Duplicates of any kind removed from a frame: which rows stay, and which one each of the others duplicates.

What counts as a duplicate is decided in ``exact``, ``near`` and ``semantic``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from curation.errors import InputError, closest
from curation.files import ROW
from curation.hygiene.bands import BandKeys
from curation.hygiene.exchanged import Opposed, cosine_similarity, jaccard_similarity, part_opposed
from curation.hygiene.groups import Links
from curation.models.encoder import as_encoder
from curation.models.protocols import Encoder
from curation.prompts.texts import text_columns

__all__ = [
    "CONTRADICTORY",
    "KEEP",
    "MEASURES",
    "METHODS",
    "RULES",
    "THRESHOLDS",
    "Deduplicated",
    "Found",
    "deduplicate",
    "find_duplicates",
]

METHODS: Final = ("exact", "minhash", "semantic")
KEEP: Final = ("first", "longest", "best")
THRESHOLDS: Final = {"minhash": 0.8, "semantic": 0.9}
RULES: Final = {"exact": "exact_duplicate", "minhash": "near_duplicate", "semantic": "semantic_duplicate"}
MEASURES: Final = {"exact": "equal", "minhash": "Jaccard", "semantic": "cosine"}
CONTRADICTORY: Final = "contradictory_pair"
_JOINT: Final = "\n\x1f\n"


class Deduplicated(NamedTuple):
    """What deduplication leaves."""

    kept: pl.DataFrame
    """The rows that stay, in their order, with all their columns."""
    rejects: pl.DataFrame
    """row, rule, value (the row that was kept), reason, and duplicate_of and similarity as numbers."""
    recall: float
    """Estimated share of the duplicates that the search saw, 1.0 where every pair was compared or, for
    minhash, the probability that a pair exactly at the threshold was compared."""
    truncated: int
    """Texts of which the encoder read only a part; 0 for the other methods."""


def deduplicate(
    frame: pl.DataFrame,
    *,
    column: str | Sequence[str],
    method: str = "exact",
    threshold: float | None = None,
    keep: str = "first",
    score: str | None = None,
    against: pl.DataFrame | None = None,
    within: str | None = None,
    sides: tuple[str, str] | None = None,
    ngram: int = 3,
    look_alikes: bool = True,
    encoder: str | Encoder = "embedded",
    seed: int = 0,
    keys: BandKeys | None = None,
) -> Deduplicated:
    """Removes duplicates; exactly one row of each cluster stays.

    Pairs that are near one another with their answers exchanged are no duplicates but contradictions, and all of
    them go (``contradictory_pair``); see :mod:`curation.hygiene.exchanged`.

    Args:
        frame: the rows; those whose text is null or empty are rejected as such.
        column: the text (or message list) to compare; several are compared together, for pairs.
        method: ``exact`` (normalised text), ``minhash`` (Jaccard index of word n-grams) or ``semantic``
            (cosine of embeddings).
        threshold: least similarity of duplicates; by default 0.8 for minhash, 0.9 for semantic.
        keep: which one of a cluster stays: the ``first``, the ``longest``, or the ``best`` by ``score``.
        score: a numeric column, higher is better; nulls come last.
        against: rows of other sources or versions, with the same columns; they stay, whatever they are.
        within: a column of text; only rows with one value there are compared (answers to one prompt, say).
        sides: the better and the worse answer of pairs, for ``minhash`` and ``semantic``; by default ``chosen``
            and ``rejected`` where both are compared.
        ngram: for minhash, words of an n-gram.
        look_alikes: for semantic, whether differing numbers or negations make texts different.
        encoder: for semantic, a MODEL or an open encoder.
        seed: of hashes and clusters.
        keys: for minhash, who computes band keys where it is not done here; see ``near``.

    Raises:
        InputError: for a column, method, threshold or preference that cannot be, or ``within`` and ``against``.
    """
    columns = [column] if isinstance(column, str) else list(column)
    threshold = _checked(method, threshold, keep, score, ngram)
    if sides is None and {"chosen", "rejected"} <= set(columns) and method != "exact":
        sides = ("chosen", "rejected")
    texts, faults = _texts(frame, columns, score, sides or ())
    reference = _texts(against, columns, None, sides or ())[0] if against is not None else texts.clear()
    joined = pl.concat([reference.select("text"), texts.select("text")])["text"]
    order = _order(reference.height, texts, keep)
    groups = None if within is None else _groups(frame, within, texts["row"], against=against)
    encoder = as_encoder(encoder) if method == "semantic" else encoder
    links, recall, truncated = find_duplicates(
        joined, method=method, threshold=threshold, order=order, groups=groups, ngram=ngram,
        look_alikes=look_alikes, encoder=encoder, seed=seed, keys=keys,
    )  # fmt: skip
    opposed = Opposed(links, np.full(len(joined), -1, dtype=np.int64))
    if sides is not None:
        measure = jaccard_similarity(ngram) if isinstance(encoder, str) else cosine_similarity(encoder)
        chosen, rejected = (pl.concat([reference[side], texts[side]]) for side in sides)
        opposed = part_opposed(links, chosen=chosen, rejected=rejected, similarity=measure, threshold=threshold)
    rejects = _rejects(opposed, reference["row"], texts["row"], method)
    gone = pl.concat([faults["row"], rejects["row"]])
    numbers = frame[ROW] if ROW in frame.columns else pl.Series(range(frame.height), dtype=pl.Int64)
    kept = frame.filter(~numbers.is_in(gone.implode()))
    return Deduplicated(kept, pl.concat([faults, rejects], how="diagonal").sort("row"), recall, truncated)


class Found(NamedTuple):
    """Links, and how complete they are; see :class:`Deduplicated`."""

    links: Links
    recall: float
    truncated: int


def find_duplicates(
    texts: pl.Series,
    *,
    method: str,
    threshold: float,
    order: npt.NDArray[np.int64],
    groups: npt.NDArray[np.int64] | None = None,
    ngram: int = 3,
    look_alikes: bool = True,
    encoder: str | Encoder = "embedded",
    seed: int = 0,
    keys: BandKeys | None = None,
) -> Found:
    """The links between texts by one of the methods, within ``groups`` if given; see :func:`deduplicate`."""
    if method == "exact":
        from curation.hygiene.exact import exact_duplicates

        if groups is not None:
            texts = pl.select(pl.concat_str(pl.Series(groups), texts, separator=_JOINT)).to_series()
        return Found(exact_duplicates(texts, order=order), 1.0, 0)
    if method == "minhash":
        from curation.hygiene.bands import plan_bands
        from curation.hygiene.near import near_duplicates

        links = near_duplicates(
            texts, threshold=threshold, order=order, n=ngram, groups=groups, seed=seed, keys=keys
        )
        return Found(links, plan_bands(threshold).proposed(threshold), 0)
    from curation.hygiene.semantic import (
        encode_whole,
        look_alike_key,
        semantic_duplicates,
        semantic_duplicates_within,
    )

    values = texts.to_list()
    vectors, truncated = encode_whole(values, as_encoder(encoder))
    alike = [look_alike_key(text) for text in values] if look_alikes else None
    if groups is not None:
        links = semantic_duplicates_within(vectors, threshold=threshold, order=order, groups=groups, keys=alike)
        return Found(links, 1.0, truncated)
    found = semantic_duplicates(vectors, threshold=threshold, order=order, keys=alike, seed=seed)
    return Found(found.links, found.recall, truncated)


def _checked(method: str, threshold: float | None, keep: str, score: str | None, ngram: int) -> float:
    if method not in METHODS:
        raise InputError(f"method {method!r}{closest(method, METHODS)}, expected one of {', '.join(METHODS)}")
    if keep not in KEEP:
        raise InputError(f"keep {keep!r}{closest(keep, KEEP)}, expected one of {', '.join(KEEP)}")
    if (keep == "best") != (score is not None):
        raise InputError("keep 'best' and a score column go together: give both or neither")
    if method == "exact" and threshold not in {None, 1.0}:
        raise InputError("method 'exact' takes no threshold: use 'minhash' or 'semantic' with one")
    threshold = threshold if threshold is not None else THRESHOLDS.get(method, 1.0)
    if not 0 < threshold <= 1:
        raise InputError(f"threshold {threshold}, expected a number above 0 and up to 1")
    if ngram < 1:
        raise InputError(f"ngram {ngram}, expected at least 1 word")
    return threshold


def _texts(
    frame: pl.DataFrame, columns: list[str], score: str | None, sides: Sequence[str]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """row, text, sides and score of the rows that have a text, and the rejects of the others."""
    rows, faults = text_columns(frame, [*columns, *(s for s in sides if s not in columns)], name="the frame")
    joined = pl.concat_str([pl.col(c) for c in columns], separator=_JOINT)
    texts = rows.select("row", text=joined, **{side: pl.col(side) for side in sides})
    if score is None:
        return texts.with_columns(score=pl.lit(None, dtype=pl.Float64)), faults
    if score not in frame.columns or not frame.schema[score].is_numeric():
        raise InputError(f"score column {score!r}: expected a column of numbers; found {', '.join(frame.columns)}")
    numbers = frame[ROW] if ROW in frame.columns else pl.Series(range(frame.height), dtype=pl.Int64)
    scores = pl.DataFrame([numbers.rename("row"), frame[score].cast(pl.Float64).fill_nan(None).rename("score")])
    return texts.join(scores, on="row", how="left", maintain_order="left"), faults


def _groups(
    frame: pl.DataFrame, within: str, rows: pl.Series, *, against: pl.DataFrame | None
) -> npt.NDArray[np.int64]:
    """A number for each row that has a text: its value of ``within``."""
    if against is not None:
        raise InputError(
            "within and against exclude each other: rows of another file belong to no group of this one"
        )
    if within not in frame.columns:
        there = [name for name in frame.columns if name != ROW]
        raise InputError(f"no column {within!r}{closest(within, there)}; found {', '.join(there)}")
    numbers = frame[ROW] if ROW in frame.columns else pl.Series(range(frame.height), dtype=pl.Int64)
    values = pl.DataFrame([numbers.rename("row"), frame[within].rank("dense").cast(pl.Int64).rename("group")])
    found = rows.to_frame("row").join(values, on="row", how="left", maintain_order="left")
    return found["group"].fill_null(-1).to_numpy().astype(np.int64)


def _order(before: int, texts: pl.DataFrame, keep: str) -> npt.NDArray[np.int64]:
    """Positions from the one to keep most; the rows of ``against`` come first."""
    position = pl.int_range(before, before + pl.len(), dtype=pl.Int64)
    own = texts.with_columns(position=position, length=pl.col("text").str.len_chars())
    if keep == "longest":
        own = own.sort("length", "position", descending=[True, False])
    elif keep == "best":
        own = own.sort("score", "position", descending=[True, False], nulls_last=True)
    return np.concatenate((np.arange(before, dtype=np.int64), own["position"].to_numpy()))


def _rejects(opposed: Opposed, reference: pl.Series, rows: pl.Series, method: str) -> pl.DataFrame:
    before = len(reference)
    links, other = opposed.links, opposed.opposite[before:]
    kept = np.where(other >= 0, other, links.kept_by[before:])
    own = np.flatnonzero(kept >= 0)
    kept, opposite = kept[own], other[own] >= 0
    numbers = np.concatenate((reference.to_numpy(), rows.to_numpy()))[kept]
    found = pl.DataFrame(
        {
            "row": rows.to_numpy()[own],
            "duplicate_of": numbers,
            "similarity": links.similarity[before:][own],
            "against": kept < before,
            "opposite": opposite,
        },
        schema_overrides={"row": pl.Int64, "duplicate_of": pl.Int64},
    )
    where = pl.concat_str(pl.when("against").then(pl.lit("against row ")).otherwise(pl.lit("row ")), "duplicate_of")
    measured = pl.concat_str(
        pl.lit(f" ({MEASURES[method]} "), pl.col("similarity").round(4), pl.lit(")"), ignore_nulls=True
    )
    repeats = pl.concat_str(pl.lit("duplicates "), where, measured)
    contradicts = pl.concat_str(pl.lit("nearly the same answers stand the other way round in "), where)
    return found.select(
        "row",
        rule=pl.when("opposite").then(pl.lit(CONTRADICTORY)).otherwise(pl.lit(RULES[method])),
        value=pl.concat_str(pl.when("against").then(pl.lit("against ")).otherwise(pl.lit("")), "duplicate_of"),
        reason=pl.when("opposite").then(contradicts).otherwise(repeats),
        duplicate_of="duplicate_of",
        similarity=pl.col("similarity").fill_nan(None),
    )

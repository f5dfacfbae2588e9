"""``curation structure``: what the pairs of a file say of each other: cycles, contradictions, and length."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal, NamedTuple

import numpy as np
import polars as pl

from curation.commands.streams import Stream, open_stream
from curation.errors import InputError
from curation.scores.structure import conflicts, match_lengths, preference_cycles, structure_counts
from curation.text import content_hash, prompt_id

__all__ = ["STRUCTURE_COLUMNS", "StructureDone", "run_structure"]

STRUCTURE_COLUMNS: Final = ("in_cycle", "cycle", "judged_both_ways", "length_ratio")
_STRENGTH: Final = "strength_mean"


class StructureDone(NamedTuple):
    """What the command did."""

    rows: int
    rejected: dict[str, int]
    counts: dict[str, int | float]
    """What was found among the rows that could be read, before any was dropped."""
    summary: str


def run_structure(
    input: str | Path,
    output: str | Path,
    *,
    cycles: Literal["keep", "drop"] = "keep",
    matching: bool = False,
    seed: int = 0,
) -> StructureDone:
    """Adds ``in_cycle``, ``cycle`` (a number that the pairs of a circle share), ``judged_both_ways`` (the same two
    answers stand in another row the other way round) and ``length_ratio`` (characters of chosen over rejected).

    Answers are the same where their texts are, and prompts likewise. A column ``source`` says which contradictions
    are across sources; a column ``strength_mean`` (of ``curation strength``), how far strength follows length. The
    whole file is read at once.

    Args:
        input: ``prompt``, ``chosen``, ``rejected``.
        cycles: drop rejects the pairs on a cycle (``preference_cycle``), which two rows that contradict each other
            are too.
        matching: reject pairs (``length_not_matched``) until chosen is longer as often as it is shorter, and by as
            much, among those that are left.
        seed: of the draw.

    Raises:
        InputError: when the file, its columns or an option is wrong.
    """
    if cycles not in ("keep", "drop"):
        raise InputError(f"cycles is {cycles!r}, expected keep or drop")
    counts: dict[str, int | float] = {}
    with open_stream(input, output, shapes=("pair",), chunk_rows=None) as stream:
        for chunk in stream.chunks():
            kind = stream.originals.schema.get("source")
            known = [] if kind is None or kind.is_nested() or kind == pl.Binary else ["source"]
            pairs = _pairs(chunk).hstack(_beside(chunk, stream, [*known, _STRENGTH]))
            found = _structure(pairs)
            judged = pairs.select("prompt_id", "chosen_id", "rejected_id", *known)
            counts = structure_counts(
                judged, in_cycle=int(found["in_cycle"].sum()), margins=pairs[_STRENGTH], lengths=_lengths(pairs)
            ) | _longer(pairs)
            gone = found["in_cycle"] & pl.Series([cycles == "drop"] * found.height, dtype=pl.Boolean)
            left = np.flatnonzero(~gone.to_numpy())
            kept = left[match_lengths(*_lengths(pairs[left]), seed=seed)] if matching else left
            unmatched = np.setdiff1d(left, kept)
            for rows, rule, reason in (
                (
                    np.flatnonzero(gone.to_numpy()),
                    "preference_cycle",
                    "the prompt's preferences go round in a circle",
                ),
                (unmatched, "length_not_matched", "dropped so that chosen is longer as often as it is shorter"),
            ):
                said = {"rule": pl.lit(rule), "value": pl.lit(""), "reason": pl.lit(reason)}
                stream.reject_frame(chunk[rows].select("row").with_columns(**said))
            stream.write(chunk.select("row").hstack(found.select(STRUCTURE_COLUMNS))[kept])
    lines = [stream.summary(), *(f"{name}: {value:,}" for name, value in counts.items())]
    return StructureDone(stream.rows_written, stream.rejected, counts, "\n".join(lines))


def _pairs(chunk: pl.DataFrame) -> pl.DataFrame:
    """What names each pair's parts, and the lengths of its answers."""
    ids = {
        "prompt_id": [prompt_id(prompt) for prompt in chunk["prompt"].to_list()],
        **{f"{side}_id": [content_hash(text) for text in chunk[side]] for side in ("chosen", "rejected")},
    }
    named = pl.DataFrame(ids, schema=dict.fromkeys(ids, pl.String))
    return named.hstack(
        chunk.select(pl.col(side).str.len_chars().alias(f"{side}_length") for side in ("chosen", "rejected"))
    )


def _beside(chunk: pl.DataFrame, stream: Stream, names: list[str]) -> pl.DataFrame:
    """Columns of the file beside the rows that could be read; a column of strengths that is none is null."""
    found = stream.beside(chunk.select("row"), names).drop("row")
    if _STRENGTH not in found.columns or not found[_STRENGTH].dtype.is_numeric():
        found = found.with_columns(pl.lit(None, dtype=pl.Float64).alias(_STRENGTH))
    return found.select(names)


def _structure(pairs: pl.DataFrame) -> pl.DataFrame:
    both = conflicts(pairs.drop("source", strict=False)).select("prompt_id", "first_id", "second_id", _both=True)
    ordered = pairs.select(
        "prompt_id",
        first_id=pl.min_horizontal("chosen_id", "rejected_id"),
        second_id=pl.max_horizontal("chosen_id", "rejected_id"),
    )
    joined = ordered.join(both, on=ordered.columns, how="left", maintain_order="left")
    ratio = pairs.select(length_ratio=pl.col("chosen_length") / pl.col("rejected_length"))
    return preference_cycles(pairs).hstack(
        [joined["_both"].fill_null(value=False).alias("judged_both_ways"), ratio["length_ratio"]]
    )


def _lengths(pairs: pl.DataFrame) -> list[np.ndarray]:
    return [pairs[f"{side}_length"].to_numpy() for side in ("chosen", "rejected")]


def _longer(pairs: pl.DataFrame) -> dict[str, int | float]:
    """How often the label prefers the longer of two answers of different length."""
    differ = pairs.filter(pl.col("chosen_length") != pl.col("rejected_length"))
    if differ.is_empty():
        return {}
    longer = int((differ["chosen_length"] > differ["rejected_length"]).sum())
    return {"chosen is the longer answer, of pairs whose lengths differ": round(longer / differ.height, 4)}

"""Which pairs people are asked about: a sample stratified by the evidence. Writing it down is in ``sheets``."""

from __future__ import annotations

from typing import Final

import polars as pl

from curation.errors import InputError
from curation.pairs.ranking import draw
from curation.workspace import Workspace

__all__ = ["REVIEWED", "allocate", "review_sample"]

REVIEWED: Final = ("preference", "preference_unpaired", "reward")
"""Datasets that are made of pairs."""


def review_sample(workspace: Workspace, dataset: str, *, rows: int = 100, seed: int = 0) -> pl.DataFrame:
    """A seeded sample of the pairs that were built for a dataset, kept and dropped.

    A stratum is a pair's strength band and whether it was kept. Each stratum gets the same number of rows as
    far as it has them, and what a small one leaves goes to the others: rare evidence is seen as often as
    common. ``sampling_probability`` is what an estimate over all pairs needs (Egami et al. 2023).

    Returns:
        ``pair_id``, ``prompt`` (messages), ``answer_a``, ``answer_b`` (texts), ``answer_a_id``, ``answer_b_id``,
        ``stratum``, ``sampling_probability``. Which answer is A is drawn, so that it tells nothing.

    Raises:
        InputError: for a dataset that is not made of pairs, or a workspace without any.
    """
    if dataset not in REVIEWED:
        raise InputError(
            f"dataset {dataset!r} cannot be reviewed; {', '.join(REVIEWED)} can: they are made of pairs"
        )
    if rows < 1:
        raise InputError(f"a sample of {rows} rows, expected at least 1")
    pairs = workspace.scan("pairs").select("pair_id", "prompt_id", "chosen_id", "rejected_id")
    bands = workspace.scan("pair_scores").select("pair_id", "strength_band")
    kept = workspace.scan("preference").select("pair_id", _kept=pl.lit(value=True))
    fate = pl.when(pl.col("_kept")).then(pl.lit("kept")).otherwise(pl.lit("dropped"))
    known: pl.DataFrame = (
        pairs.join(bands, on="pair_id", how="left", maintain_order="left")
        .join(kept, on="pair_id", how="left", maintain_order="left")
        .with_columns(stratum=pl.concat_str(pl.col("strength_band").fill_null("no band"), pl.lit(", "), fate))
        .drop("_kept", "strength_band")
        .collect()
    )
    if known.is_empty():
        raise InputError(f"{workspace.url} holds no pairs: run a recipe that builds some first")
    return _shown(workspace, _drawn(known, rows, seed), seed)


def allocate(sizes: dict[str, int], rows: int) -> dict[str, int]:
    """Rows for each stratum: equal shares, and what a stratum is too small for goes to the others."""
    given = dict.fromkeys(sizes, 0)
    left = min(rows, sum(sizes.values()))
    while left:
        open_ones = sorted((name for name in sizes if given[name] < sizes[name]), key=lambda n: (sizes[n], n))
        share = max(1, left // len(open_ones))
        for name in open_ones:
            more = min(share, sizes[name] - given[name], left)
            given[name] += more
            left -= more
    return given


def _drawn(known: pl.DataFrame, rows: int, seed: int) -> pl.DataFrame:
    wanted = allocate(dict(known["stratum"].value_counts().iter_rows()), rows)
    return (
        known.with_columns(_draw=draw(known["pair_id"], seed), _wanted=pl.col("stratum").replace_strict(wanted))
        .sort("_draw", "pair_id")
        .with_columns(
            _place=pl.int_range(pl.len()).over("stratum"),
            sampling_probability=pl.col("_wanted") / pl.len().over("stratum"),
        )
        .filter(pl.col("_place") < pl.col("_wanted"))
        .drop("_wanted", "_place", "_draw")
    )


def _shown(workspace: Workspace, drawn: pl.DataFrame, seed: int) -> pl.DataFrame:
    """The drawn pairs with their texts, the two answers in a drawn order."""
    swap = draw(drawn["pair_id"], seed + 1) % 2 == 1
    sides = drawn.with_columns(
        answer_a_id=pl.when(swap).then("rejected_id").otherwise("chosen_id"),
        answer_b_id=pl.when(swap).then("chosen_id").otherwise("rejected_id"),
    ).lazy()
    answers = workspace.scan("candidates").select("candidate_id", "response")
    prompts = workspace.scan("prompts").select("prompt_id", prompt="messages")
    sides = sides.join(prompts, on="prompt_id", how="left", maintain_order="left")
    for side in ("a", "b"):
        named = answers.rename({"candidate_id": f"answer_{side}_id", "response": f"answer_{side}"})
        sides = sides.join(named, on=f"answer_{side}_id", how="left", maintain_order="left")
    return sides.select(
        "pair_id", "prompt", "answer_a", "answer_b", "answer_a_id", "answer_b_id", "stratum", "sampling_probability"
    ).collect()

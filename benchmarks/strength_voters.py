"""Crowd voters on ukpconvarg1: accuracy against gold, and wrong labels by strength band.

.venv/bin/python benchmarks/strength_voters.py [--data DIR] [--methods majority dawid_skene glad mace]
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
from pathlib import Path

import numpy as np
import polars as pl
from _figures import FIGURES, shared_data

from curation.scores.strength import preference_strength
from curation.scores.strength_bands import BANDS
from curation.scores.voters import METHODS, aggregate_votes

_LABELLED = 500


def read(path: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Votes (pair, voter, vote), and gold (pair, gold: whether the first argument wins) of decided pairs."""
    votes, gold = [], []
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            if row["gold"] not in ("a1", "a2"):
                continue
            gold.append((row["id"], row["gold"] == "a1"))
            votes += [(row["id"], worker, {"a1": 1, "a2": 0}.get(vote)) for worker, vote, _ in row["votes"]]
    return (
        pl.DataFrame(votes, schema=["pair", "voter", "vote"], orient="row"),
        pl.DataFrame(gold, schema=["pair", "gold"], orient="row"),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    options = parser.parse_args()
    FIGURES.packages.append("crowd-kit")
    votes, gold = read(shared_data(options.data) / "ukpconvarg1" / "ukpconvarg1_full_votes.jsonl.gz")
    print(f"{gold.height} decided pairs, {votes.height} votes of {votes['voter'].n_unique()} people\n")
    print("| method | accuracy against gold | seconds |\n|---|---|---|")
    accuracy: dict[str, float] = {}
    for method in options.methods:
        started = time.perf_counter()
        found = aggregate_votes(votes, method=method).pairs
        joined = gold.join(found, on="pair", how="left").with_columns(pl.col("probability").fill_null(0.5))
        side = joined.select(
            right=pl.when(pl.col("probability") == 0.5)
            .then(0.5)
            .otherwise(((pl.col("probability") > 0.5) == pl.col("gold")).cast(pl.Float64))
        )["right"]
        accuracy[method] = float(side.mean())
        print(f"| {method} | {side.mean():.4f} | {time.perf_counter() - started:.1f} |", flush=True)
    for method, share in accuracy.items():
        if method == "majority" or "majority" not in accuracy:
            continue
        FIGURES.add(
            f"crowd votes by {method}", share, "accuracy", peer="majority", peer_value=accuracy["majority"],
            better="higher", conditions=f"{gold.height:,} pairs of ukpconvarg1",
        )  # fmt: skip
    bands(votes, gold)


def bands(votes: pl.DataFrame, gold: pl.DataFrame, *, seed: int = 0) -> None:
    """One vote a pair is the label, the others are the models that judge it.

    A vote is a margin of 1 or -1, so that without calibration no probability exceeds the sigmoid of 1, 0.731, and
    the band very_strong, from 0.95 on, stays empty whatever the votes say; calibrated on known labels it does not.
    """
    random = np.random.default_rng(seed)
    rows = []
    truth = dict(gold.iter_rows())
    for (pair,), group in votes.drop_nulls("vote").group_by(["pair"], maintain_order=True):
        cast = group["vote"].to_list()
        if len(cast) < 3:
            continue
        label = cast.pop(int(random.integers(len(cast))))
        margins = [1.0 if vote == label else -1.0 for vote in cast] + [None] * (5 - len(cast))
        rows.append(
            {"chosen_rewards": margins[:5], "rejected_rewards": [0.0] * 5, "wrong": (label == 1) != truth[pair]}
        )
    schema = {"chosen_rewards": pl.List(pl.Float64), "rejected_rewards": pl.List(pl.Float64), "wrong": pl.Boolean}
    frame = pl.DataFrame(rows, schema=schema)
    drawn = np.zeros(frame.height, dtype=bool)
    drawn[random.permutation(frame.height)[:_LABELLED]] = True
    sample = pl.Series(drawn)
    labelled = frame.with_columns(right=pl.when(sample).then(~pl.col("wrong")))
    for said, given, column in (
        ("nothing calibrates", frame, None),
        (f"{_LABELLED} pairs of known label calibrate, the others are shown", labelled, "right"),
    ):
        found = preference_strength(given, scaling="none", bands="probability", labelled=column).frame
        assert found.height == frame.height, "a pair without any vote would shift the sample"
        shares = dict(found.filter(~sample).partition_by("strength_band", as_dict=True))
        print(f"\n| band ({said}) | pairs | share of wrong labels |\n|---|---|---|")
        for band in BANDS:
            if (part := shares.get((band,))) is not None:
                print(f"| {band} | {part.height:,} | {part['wrong'].mean():.3f} |")


if __name__ == "__main__":
    main()
    FIGURES.write()

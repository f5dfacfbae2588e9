"""Selecting rows, and negatives from structure: seconds, and what is chosen.

Texts: sentences of SciFact, prompts of hh-rlhf, and 4 % arguments of UKPConvArg1, the rest of which are the target.
Of as many rows as there are planted arguments: how many of them the methods with a target choose (a random draw:
4 %), and how well the methods for diversity cover all rows, beside a random draw. The time of embedding is told
apart. Negatives by structure run on embeddings with topics.

    python benchmarks/selection.py [--data ../shared/data] [--rows 20000] [--cache FILE.npy]
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import json
import re
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from _figures import FIGURES, shared_data

DIMENSION: Final = 384
PLANTED: Final = 0.04


class Texts(NamedTuple):
    candidates: list[str]
    planted: Any
    """(n,) whether a candidate is of the target's kind."""
    target: list[str]


class Vectors(NamedTuple):
    vectors: Any


class Lookup:
    """What a selection needs of an encoder, over ready embeddings."""

    def __init__(self, texts: Sequence[str], vectors: Any) -> None:
        self._place = {text: at for at, text in enumerate(texts)}
        self._vectors = vectors

    def encode(self, texts: Sequence[str]) -> Vectors:
        return Vectors(self._vectors[[self._place[text] for text in texts]])


def read_texts(data: Path, rows: int) -> Texts:
    rng = np.random.default_rng(0)
    arguments = _shuffled(rng, _arguments(data))
    planted = min(int(rows * PLANTED), len(arguments) * 3 // 4)
    others = _shuffled(rng, _prompts(data))[: rows // 6]
    others += _shuffled(rng, _sentences(data))[: rows - planted - len(others)]
    candidates = arguments[:planted] + others
    order = rng.permutation(len(candidates))
    return Texts([candidates[at] for at in order], order < planted, arguments[planted:])


def _shuffled(rng: np.random.Generator, texts: Sequence[str]) -> list[str]:
    unique = sorted(set(texts))
    return [unique[at] for at in rng.permutation(len(unique))]


def _arguments(data: Path) -> list[str]:
    (path,) = sorted((data / "ukpconvarg1").glob("*votes.jsonl.gz"))
    with gzip.open(path, "rt") as lines:
        return [row[side].strip() for row in map(json.loads, lines) for side in ("arg1", "arg2")]


def _prompts(data: Path) -> list[str]:
    with gzip.open(data / "hh_harmless" / "test.jsonl.gz", "rt") as lines:
        dialogues = [json.loads(line)["chosen"] for line in lines]
    asked = [text.split("\n\nAssistant:")[0].split("Human:")[-1].strip() for text in dialogues]
    return [text for text in asked if text]


def _sentences(data: Path) -> list[str]:
    with zipfile.ZipFile(data / "scifact" / "scifact.zip") as archive, archive.open("corpus_train.csv") as file:
        cells = [row["abstract"] for row in csv.DictReader(io.TextIOWrapper(file, "utf-8"))]
    found = [part.strip(" []'\"\n") for cell in cells for part in re.split(r"['\"]\s*\n\s*['\"]", cell)]
    return [text for text in found if len(text) > 20]


def embedded(texts: Texts, cache: Path | None) -> tuple[Lookup, Any]:
    """An encoder of all texts, and the vectors of the candidates."""
    from curation.models.encoder import open_encoder

    every = list(dict.fromkeys([*texts.candidates, *texts.target]))
    if cache and cache.exists():
        vectors = np.load(cache)
    else:
        start = time.perf_counter()
        vectors = open_encoder(max_length=64).encode(every).vectors
        seconds = time.perf_counter() - start
        FIGURES.add("embedding texts to select from", seconds, "s", conditions=f"{len(every):,} texts, 64 tokens")
        if cache:
            np.save(cache, vectors)
    encoder = Lookup(every, vectors)
    return encoder, encoder.encode(texts.candidates).vectors


def select(texts: Texts, encoder: Lookup, vectors: Any) -> None:
    from curation.hygiene.chosen_texts import AIMED, SELECTIONS, choose_texts

    n, count = len(texts.candidates), int(texts.planted.sum())
    drawn = np.random.default_rng(1).choice(n, count, replace=False)
    print(f"{n:,} candidates, {count:,} chosen; target of {len(texts.target)} texts\n")
    print("| method | seconds | chosen | of the target's kind | least similar row | mean similarity |")
    print("|---|--:|--:|--:|--:|--:|")
    _row("random", 0.0, drawn, texts, vectors)
    for method in SELECTIONS:
        target = texts.target if method in AIMED else []
        start = time.perf_counter()
        chosen = choose_texts(texts.candidates, method=method, count=count, target=target, encoder=encoder)  # type: ignore[arg-type]
        seconds = time.perf_counter() - start
        kept = np.setdiff1d(np.arange(n), chosen.left_out)
        _row(method, seconds, kept, texts, vectors)
        FIGURES.add(f"selecting rows, {method}", seconds, "s", conditions=f"{count:,} of {n:,}, embeddings ready")
        if method in {"dsir", "transport"}:
            share, random = texts.planted[kept].mean(), texts.planted[drawn].mean()
            FIGURES.add(
                f"rows of the target's kind among those chosen, {method}", share, "share", peer="random draw",
                peer_value=random, better="higher", conditions=f"{count:,} of {n:,}, {count / n:.0%} are of it",
            )  # fmt: skip
        elif method != "lengths":
            measure = 0 if method == "k_centre" else 1
            FIGURES.add(
                f"{('least', 'mean')[measure]} similarity of a row to those chosen, {method}",
                coverage(vectors, kept)[measure], "cosine", peer="random draw",
                peer_value=coverage(vectors, drawn)[measure], better="higher", conditions=f"{count:,} of {n:,}",
            )  # fmt: skip


def coverage(vectors: Any, chosen: Any) -> tuple[float, float]:
    """The least and the mean similarity of a row to the chosen row that is nearest to it."""
    nearest = (vectors @ vectors[chosen].T).max(axis=1)
    return float(nearest.min()), float(nearest.mean())


def _row(method: str, seconds: float, kept: Any, texts: Texts, vectors: Any) -> None:
    least, mean = coverage(vectors, kept)
    share = texts.planted[kept].mean()
    print(f"| {method} | {seconds:.1f} | {len(kept):,} | {share:.1%} | {least:.3f} | {mean:.3f} |", flush=True)


def structured(rows: int) -> None:
    """Sibling categories and other prompts' answers, four answers a prompt."""
    from curation.negatives.sources import answer_negatives, sibling_negatives

    rng = np.random.default_rng(0)
    prompts = rows // 4
    topics = rng.standard_normal((max(2, prompts // 50), DIMENSION), dtype=np.float32)
    topic = rng.integers(0, len(topics), prompts)
    asked = _unit(topics[topic] + 0.4 * rng.standard_normal((prompts, DIMENSION), dtype=np.float32))
    owner = np.repeat(np.arange(prompts), 4)
    answers = _unit(asked[owner] + 0.5 * _unit(rng.standard_normal((rows, DIMENSION), dtype=np.float32)))
    labels = [f"label {at % 200}" for at in topic[owner]]
    parents = {f"label {at}": f"family {at // 5}" for at in range(200)}
    print(f"\n{rows:,} answers to {prompts:,} prompts, embeddings ready\n")
    print("| negatives | seconds | anchors served |\n|---|--:|--:|")

    def siblings() -> Any:
        return sibling_negatives(
            anchor_embeddings=answers, corpus_embeddings=answers, anchor_labels=labels, corpus_labels=labels,
            parents=parents, num_negatives=5,
        )  # fmt: skip

    def others(source: Any) -> Callable[[], Any]:
        return lambda: answer_negatives(
            source, chosen=owner.searchsorted(np.arange(prompts)), prompt_of_answer=owner, prompt_embeddings=asked,
            answer_embeddings=answers, count=2,
        )  # fmt: skip

    work = {"sibling categories": siblings}
    work |= {source: others(source) for source in ("same_prompt", "near_prompt", "off_topic")}
    for name, find in work.items():
        start = time.perf_counter()
        found = find()
        seconds = time.perf_counter() - start
        served = float((found.rows[:, 0] >= 0).mean())
        anchors = len(found.rows)
        print(f"| {name} | {seconds:.2f} | {served:.1%} of {anchors:,} |", flush=True)
        given = f"{anchors:,} anchors, {rows:,} answers, embeddings ready; {served:.1%} served"
        FIGURES.add(f"negatives from structure, {name}", seconds, "s", conditions=given)


def _unit(vectors: Any) -> Any:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path)
    parser.add_argument("--rows", type=int, default=4_000)
    parser.add_argument("--cache", type=Path, help="embeddings, kept for the next run")
    arguments = parser.parse_args()
    texts = read_texts(shared_data(arguments.data), arguments.rows)
    encoder, vectors = embedded(texts, arguments.cache)
    select(texts, encoder, vectors)
    structured(arguments.rows)


if __name__ == "__main__":
    main()
    FIGURES.write()

"""The synthetic sources of ``scale.py``: drawn from a seed, so that a size always gives the same rows.

Three sources of prompts with four answers each and their scores. Of every hundred prompts one repeats another
source's word for word, one nearly (a word is another one), five should be refused, and one stands in a file of
an earlier version. One answer in ten refuses, one in fifty is another answer to its prompt again, and whole scores
from 1 to 5 make ties. Answers have 50 words, prompts 25, of a vocabulary of 2,000 made-up words.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

__all__ = ["ANSWERS", "SHARES", "write_sources"]

ANSWERS: Final = 4
SHARES: Final = {"chat": 0.6, "forum": 0.3, "safety": 0.1}
_ANSWER_WORDS, _PROMPT_WORDS = 50, 25
_CHUNK: Final = 100_000
_REFUSALS: Final = (
    "I'm sorry, but I can't help with that request.",
    "I cannot assist with this. If you need support, please reach out to someone you trust.",
    "As an AI language model, I am not able to provide that information.",
    "Sorry, that is not something I can do.",
)


def vocabulary() -> pl.Series:
    """2,000 words of two or three syllables."""
    first, second = "bdfgklmnprst", "aeiou"
    syllables = [a + b for a in first for b in second]
    rng = np.random.default_rng(7)
    words = {"".join(rng.choice(syllables, size=2 + number % 2)) for number in range(6000)}
    return pl.Series("word", sorted(words)[:2000])


def texts(rng: np.random.Generator, rows: int, words: int, known: pl.Series) -> pl.Series:
    """So many texts of so many words each."""
    drawn = known.gather(rng.integers(0, len(known), rows * words, dtype=np.int32))
    lists = drawn.reshape((rows, words)).arr.to_list()
    return lists.list.join(" ").alias("text")


def write_sources(folder: Path, prompts: int, *, seed: int = 0) -> dict[str, Path]:
    """Write ``chat.parquet``, ``forum.parquet``, ``safety.parquet`` and ``earlier.parquet``; returns where."""
    folder.mkdir(parents=True, exist_ok=True)
    known, paths = vocabulary(), dict[str, Path]()
    first: pl.Series | None = None
    for number, (name, share) in enumerate(SHARES.items()):
        parts = []
        for at, rows in _chunks(round(prompts * share)):
            rng = np.random.default_rng([seed, number, at])
            asked = texts(rng, rows, _PROMPT_WORDS, known)
            if first is None:
                first = asked
            else:
                asked = _repeated(rng, asked, first, known)
            parts.append(_rows(rng, asked, name, known))
        paths[name] = folder / f"{name}.parquet"
        pl.concat(parts).write_parquet(paths[name])
    assert first is not None
    paths["earlier"] = folder / "earlier.parquet"
    pl.DataFrame({"prompt": first.tail(max(1, prompts // 100))}).write_parquet(paths["earlier"])
    return paths


def _chunks(rows: int) -> Iterator[tuple[int, int]]:
    for start in range(0, rows, _CHUNK):
        yield start // _CHUNK, min(_CHUNK, rows - start)


def _repeated(rng: np.random.Generator, asked: pl.Series, first: pl.Series, known: pl.Series) -> pl.Series:
    """2.5 % of the prompts as those of the first source stand, 2.5 % with one word changed."""
    kind = rng.random(len(asked))
    other = first.gather(rng.integers(0, len(first), len(asked)))
    changed = other.str.replace(r"\w+$", "") + known.gather(rng.integers(0, len(known), len(asked)))
    frame = pl.DataFrame({"own": asked, "other": other, "changed": changed, "kind": kind})
    said = pl.when(pl.col("kind") < 0.025).then("other").when(pl.col("kind") < 0.05).then("changed")
    return frame.select(said.otherwise("own").alias("text")).to_series()


def _rows(rng: np.random.Generator, asked: pl.Series, name: str, known: pl.Series) -> pl.DataFrame:
    rows = len(asked)
    said = texts(rng, rows * ANSWERS, _ANSWER_WORDS, known)
    kind = pl.Series(rng.random(rows * ANSWERS))
    refusal = pl.Series(_REFUSALS).gather(rng.integers(0, len(_REFUSALS), rows * ANSWERS))
    answers = pl.DataFrame({"said": said, "kind": kind, "refusal": refusal})
    again = pl.col("said").shift(1, fill_value=said[0])
    share = 0.5 if name == "safety" else 0.05
    full = pl.col("refusal") + pl.lit(" ") + pl.col("said").str.slice(0, 40)
    given = pl.when(pl.col("kind") < share).then(full).when(pl.col("kind") > 0.98).then(again).otherwise("said")
    text = answers.select(given.alias("text")).to_series().reshape((rows, ANSWERS)).arr.to_list()
    scores = pl.Series(rng.integers(1, 6, (rows, ANSWERS)).astype(float)).arr.to_list()
    due = pl.Series(rng.random(rows) < 0.5) if name == "safety" else None
    frame = pl.DataFrame({"prompt": asked, "responses": text, "scores": scores})
    category = pl.lit(name + " ") + (pl.int_range(pl.len()) % 20).cast(pl.String)
    behaviour = (
        pl.lit(None, pl.String) if due is None else pl.when(due).then(pl.lit("refuse")).otherwise(pl.lit("comply"))
    )
    return frame.with_columns(category=category, expected_behaviour=behaviour)

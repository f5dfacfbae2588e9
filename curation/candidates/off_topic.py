"""Off-topic negatives: good answers to another prompt, wrong here because they are about something else."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from curation.candidates.draws import uniform_draws
from curation.errors import InputError
from curation.hygiene.shingles import shingle
from curation.text import normalise

__all__ = ["OffTopic", "off_topic_answers"]

_DRAWS: Final = 12
_LONG_WORD: Final = r"\b\p{L}{4,}\b|[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Hangul}]"
_REQUEST_WORDS: Final = (
    r"(?i)\b(?:please|explain|describe|write|tell|give|list|make|name|what|which|when|where|does|have|with|that|this"
    r"|from|about|would|could|should|there|they|your|some|into|following)\b"
)
"""Said in any request, so that they tell no topic."""
Ints = npt.NDArray[np.int64]


class OffTopic(NamedTuple):
    """Borrowed answers, and the prompts for which none was far enough."""

    borrowed: pl.DataFrame
    """``prompt_id``, ``parent_id`` (the answer's identifier at its own prompt), ``response``."""
    none_found: pl.DataFrame
    """``prompt_id``."""


def off_topic_answers(
    prompts: pl.DataFrame,
    donors: pl.DataFrame,
    *,
    max_similarity: float = 0.2,
    min_words: int = 8,
    seed: int = 0,
) -> OffTopic:
    """For each prompt one answer of another prompt, drawn by a seed.

    An answer is never borrowed from the same family, from a prompt that shares more than ``max_similarity`` of its
    words (Jaccard index of the words of four letters and more), nor when its own words are that much those of
    the prompt. Nor is one that would be right anywhere: answers with few words, and those given to several
    prompts ("I cannot help with that"), are no donors. What refuses is for the caller to leave out.

    Args:
        prompts: ``prompt_id``, ``text``, ``family_id``: those that want an answer.
        donors: ``prompt_id``, ``candidate_id``, ``response``, ``text`` (of the prompt), ``family_id``.
        max_similarity: in [0, 1).
        min_words: words of a donor's answer, at least.
        seed: of the draw. A prompt's draw depends on its identifier and on the donors.
    """
    if not 0 <= max_similarity < 1:
        raise InputError(f"off-topic answers: max_similarity is {max_similarity}, expected at least 0 and below 1")
    usable = _usable(donors, min_words)
    chosen = np.full(prompts.height, -1, dtype=np.int64)
    if usable.height and prompts.height:
        asked, given, answers = (_word_sets(t) for t in (prompts["text"], usable["text"], usable["response"]))
        families, theirs = prompts["family_id"].to_numpy(), usable["family_id"].to_numpy()
        # Donors lie on a circle in the order of a draw; a prompt starts at a drawn place.
        order = np.lexsort(
            (usable["candidate_id"].to_numpy(), uniform_draws(usable["candidate_id"], seed=seed, salt="donor"))
        )
        for number in range(_DRAWS):
            left = np.flatnonzero(chosen < 0)
            if not left.size:
                break
            draws = uniform_draws(prompts["prompt_id"].gather(left), seed=seed, salt=f"off topic {number}")
            drawn = order[(draws * usable.height).astype(np.int64)]
            far = families[left] != theirs[drawn]
            far &= _similarity(asked, left, given, drawn) <= max_similarity
            far &= _similarity(asked, left, answers, drawn, of_first=True) <= max_similarity
            chosen[left[far]] = drawn[far]
    found = chosen >= 0
    taken = usable[chosen[found]].select(parent_id="candidate_id", response="response")
    borrowed = pl.concat([prompts.filter(pl.Series(found)).select("prompt_id"), taken], how="horizontal")
    return OffTopic(borrowed, prompts.filter(pl.Series(~found)).select("prompt_id"))


def _usable(donors: pl.DataFrame, min_words: int) -> pl.DataFrame:
    same = pl.Series("_same", [normalise(text).casefold() for text in donors["response"]], dtype=pl.String)
    marked = donors.with_columns(same).with_columns(
        _prompts=pl.col("prompt_id").n_unique().over("_same"),
        _words=pl.col("response").str.count_matches(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}]|\p{L}+"),
    )
    return marked.filter((pl.col("_prompts") == 1) & (pl.col("_words") >= min_words)).drop(
        "_same", "_prompts", "_words"
    )


class _Sets(NamedTuple):
    hashes: npt.NDArray[np.uint64]
    offsets: Ints


def _word_sets(texts: pl.Series) -> _Sets:
    """The distinct longer words of each text, hashed and sorted; of a text without any, all its words."""
    topics = texts.str.replace_all(_REQUEST_WORDS, " ")
    long = topics.str.extract_all(_LONG_WORD).list.join(" ")
    words = shingle(
        pl.select(pl.when(long.alias("a") != "").then(long.alias("a")).otherwise(texts.alias("b"))).to_series(), n=1
    )
    owner = np.repeat(np.arange(len(texts)), np.diff(words.offsets))
    frame = pl.DataFrame({"owner": owner, "hash": words.hashes}).unique().sort("owner", "hash")
    counts = np.bincount(frame["owner"].to_numpy(), minlength=len(texts))
    return _Sets(frame["hash"].to_numpy(), np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))


def _similarity(
    a: _Sets, rows_a: Ints, b: _Sets, rows_b: Ints, *, of_first: bool = False
) -> npt.NDArray[np.float64]:
    """The Jaccard index of pairs of sets, or the share of the first that is in the second."""
    left, right = _taken(a, rows_a, "pair"), _taken(b, rows_b, "pair")
    shared = np.bincount(left.join(right, on=["pair", "hash"])["pair"].to_numpy(), minlength=len(rows_a))
    sizes_a = np.diff(a.offsets)[rows_a]
    whole = sizes_a if of_first else sizes_a + np.diff(b.offsets)[rows_b] - shared
    return np.asarray(shared / np.maximum(whole, 1))


def _taken(sets: _Sets, rows: Ints, name: str) -> pl.DataFrame:
    sizes = np.diff(sets.offsets)[rows]
    starts = np.repeat(sets.offsets[rows] - np.concatenate([[0], np.cumsum(sizes)[:-1]]), sizes)
    at = starts + np.arange(int(sizes.sum()))
    return pl.DataFrame({name: np.repeat(np.arange(len(rows)), sizes), "hash": sets.hashes[at]})

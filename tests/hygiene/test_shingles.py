"""Words and n-grams by bytes, against a plain reading of the same rules."""

from __future__ import annotations

import re

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.hygiene.shingles import find_words, ngrams, shingle

_WORD = re.compile("[a-z0-9_\u00c0-\u07ff\u1000-\u1fff]+|[\u0800-\u0fff\u3000-\uffff\U00010000-\U0010ffff]")


def plain_words(text: str) -> list[str]:
    """The rules again, over characters: words, and single characters of scripts without spaces."""
    return _WORD.findall(pl.Series([text]).str.to_lowercase().item())


def plain_grams(text: str, n: int) -> list[tuple[str, ...]]:
    words = plain_words(text)
    if len(words) < n:
        return [tuple(words)] if words else []
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


letters = st.text(st.sampled_from("ab1 _-.,é☃ß中文ก😀\u00a0\u2014\n"), max_size=30)


@settings(max_examples=300, deadline=None)
@given(texts=st.lists(letters | st.text(st.characters(codec="utf-8")), min_size=1, max_size=6), n=st.integers(1, 4))
def test_grams_are_equal_exactly_where_the_plain_ones_are(texts: list[str], n: int) -> None:
    words = find_words(texts)
    found = ngrams(words, n)

    by_hash: dict[int, tuple[str, ...]] = {}
    by_gram: dict[tuple[str, ...], int] = {}
    for i, text in enumerate(texts):
        assert words.offsets[i + 1] - words.offsets[i] == len(plain_words(text))
        hashes = found.hashes[found.offsets[i] : found.offsets[i + 1]].tolist()
        for value, gram in zip(hashes, plain_grams(text, n), strict=True):
            assert by_hash.setdefault(value, gram) == gram
            assert by_gram.setdefault(gram, value) == value


@settings(max_examples=100, deadline=None)
@given(text=st.text(st.characters(codec="utf-8")))
def test_words_begin_where_they_are_said_to(text: str) -> None:
    lowered = pl.Series([text]).str.to_lowercase().item().encode()

    starts = find_words([text]).starts.tolist()

    for start, word in zip(starts, plain_words(text), strict=True):
        assert lowered[start:].decode().startswith(word)


def test_every_text_has_a_shingle() -> None:
    texts = ["", "!!!", "one", "one two three four", "!!!", "???"]

    found = shingle(texts, n=3)

    assert np.diff(found.offsets).tolist() == [1, 1, 1, 2, 1, 1]
    first = found.hashes[found.offsets[:-1]]
    assert first[1] == first[4]
    assert len({int(value) for value in first}) == 5


@pytest.mark.parametrize("threads", [1, 3])
def test_chunks_and_threads_change_nothing(threads: int) -> None:
    chance = np.random.default_rng(0)
    texts = [" ".join(map(str, chance.integers(0, 50, size=chance.integers(0, 400)))) for _ in range(600)]
    texts[7] = "x" * 1_200_000

    found = shingle(texts, n=3, threads=threads)

    alone = [shingle([text], n=3).hashes for text in texts]
    assert (found.hashes == np.concatenate(alone)).all()
    assert np.diff(found.offsets).tolist() == [len(part) for part in alone]


def test_a_slice_of_a_series_is_read_as_that_slice() -> None:
    series = pl.Series(["zero", "one two", "drei"])[1:]

    assert shingle(series, n=1).hashes.tolist() == shingle(["one two", "drei"], n=1).hashes.tolist()

"""Words and n-grams by bytes, against a plain reading of the same rules."""

from __future__ import annotations

import itertools
import re
import unicodedata
from typing import Final

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.hygiene.shingles import _MAY_CHANGE_IN_NFC, find_words, ngrams, shingle
from curation.hygiene.signs import few_places

_WORD = re.compile("[a-z0-9_\u00c0-\u07ff\u1000-\u1fff]+|[\u0800-\u0fff\u3000-\uffff\U00010000-\U0010ffff]")


def plain_words(text: str) -> list[str]:
    """The rules again, over characters: words, and single characters of scripts without spaces."""
    return _WORD.findall(pl.Series([text]).str.to_lowercase().item())


def plain_grams(text: str, n: int) -> list[tuple[str, ...]]:
    words = plain_words(text)
    if len(words) < n:
        return [tuple(words)] if words else []
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


_SIGN = re.compile(
    r"[<>=+%^$]|!(?==)"
    "|[\u2080-\u20bf\u2200-\u22ff\u00a2-\u00a5\u00ac\u00b0-\u00b3\u00b5\u00b9\u00bc-\u00be]"
    # - * / with no other of them, no letter of another script and no word of two letters on either side …
    r"|(?<![-*/\u0080-\U0010ffff])(?<![a-z_]{2})[-*/](?![-*/\u0080-\U0010ffff])(?![a-z_]{2})"
    # … and before something, or between spaces and after something.
    r"(?:(?=[^ \t\r\n\v\f])|(?<=[^ \t\r\n\v\f] [-*/])(?=[ \t\r\n\v\f]|\Z))"
)


def plain_words_and_signs(text: str) -> list[str]:
    lowered = pl.Series([text]).str.normalize("NFC").str.to_lowercase().item()
    found = [*_WORD.finditer(lowered), *_SIGN.finditer(lowered)]
    return [match.group() for match in sorted(found, key=lambda match: match.start())]


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


signed = st.text(st.sampled_from("ab1 _-*/<=!+%é☃−€²中\n"), max_size=12)


@settings(max_examples=300, deadline=None)
@given(texts=st.lists(signed, min_size=1, max_size=6))
def test_signs_are_words_where_the_plain_rules_say_so(texts: list[str]) -> None:
    found = shingle(texts, n=1)
    by_hash: dict[int, str] = {}
    by_word: dict[str, int] = {}
    for i, text in enumerate(texts):
        words = plain_words_and_signs(text)
        hashes = found.hashes[found.offsets[i] : found.offsets[i + 1]].tolist()
        if not words:
            assert len(hashes) == 1
            continue
        for value, word in zip(hashes, words, strict=True):
            assert by_hash.setdefault(value, word) == word
            assert by_word.setdefault(word, value) == value


@given(mask=st.lists(st.sampled_from([False] * 9 + [True]), max_size=40))
def test_few_places_are_those_of_flatnonzero(mask: list[bool]) -> None:
    assert few_places(np.array(mask, dtype=bool)).tolist() == [i for i, true in enumerate(mask) if true]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x = -3", "x = 3"), ("So a < b.", "So a > b."), ("x = 3", "x != 3"), ("It is 5 - 3.", "It is 5 * 3."),
        ("n/3", "n-3"), ("5%", "5"), ("$5", "€5"), ("x²", "x"), ("a ≤ b", "a ≥ b"), ("-3", "3"),
        ("x = −3", "x = 3"), ("[1]\n-2", "[1]\n2"),
    ],
)  # fmt: skip
def test_texts_that_differ_in_a_sign_differ(one: str, other: str) -> None:
    found = shingle([one, other], n=3)
    parts = [set(found.hashes[a:b].tolist()) for a, b in itertools.pairwise(found.offsets.tolist())]
    assert parts[0] != parts[1]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("A well-known fact", "a well known fact"), ("- one\n- two", "one\ntwo"),
        ("**Yes**, it is!", "Yes, it is."), ("and/or", "and or"), ("* a\n* b", "a\nb"), ("---\nEnd", "End"),
        ("“Yes” – he said", "Yes, he said"),
        ("COVID-19", "covid 19"), ("It is 3-", "it is 3"),
    ],
)  # fmt: skip
def test_punctuation_and_marks_separate_words_only(one: str, other: str) -> None:
    found = shingle([one, other], n=3)
    assert found.hashes[: found.offsets[1]].tolist() == found.hashes[found.offsets[1] :].tolist()


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


def test_only_characters_that_are_looked_for_change_in_nfc() -> None:
    every = pl.Series([chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000])
    spared = every.filter(~every.str.contains(_MAY_CHANGE_IN_NFC)).to_list()
    assert len(spared) > 40_000
    assert all(unicodedata.is_normalized("NFC", character) for character in spared)
    assert not any(unicodedata.combining(character) for character in spared)
    letters = "aeiouAcnEsÄ\u0438\u0627\u304b\u1100\uac00"
    assert all(unicodedata.is_normalized("NFC", letters + character) for character in spared)


_COMPOSED: Final = (
    "ae\u0301\u0323-\u2212\u2126\u2001\u1100\u1161\uac00\u11a8\u0438\u0306\u0627\u0653\u304b\u3099 \u2019中"
)


@given(st.lists(st.text(alphabet=_COMPOSED, max_size=12), max_size=6))
def test_texts_that_nfc_makes_equal_have_equal_shingles(texts: list[str]) -> None:
    composed = [unicodedata.normalize("NFC", text) for text in texts]
    assert shingle(texts, n=2).hashes.tolist() == shingle(composed, n=2).hashes.tolist()

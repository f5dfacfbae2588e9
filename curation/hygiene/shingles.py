"""Texts as hashed word n-grams, fast enough for millions of them. What is done with them is elsewhere.

Words are runs of letters and digits, in lower case; punctuation and white space only separate them. In
scripts that are written without spaces (Chinese, Japanese, Thai, …) each character is a word. Where duplicates are
looked for, signs that change what is said are words, too (``signs``). Text is compared in Unicode NFC, so that an
accent of its own and a letter with one are the same. All is done on the UTF-8 bytes with numpy: a word's hash is a
polynomial over its bytes modulo 2^64, an n-gram's a linear form of its words' hashes, mixed (the finaliser of
splitmix64). Two n-grams collide by chance with probability 2^-64.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from curation.hygiene.signs import MAYBE_SIGNS, ascii_signs, few_places, wide_signs
from curation.negatives.threads import default_threads

__all__ = [
    "Shingles",
    "UInt64",
    "Words",
    "chunks",
    "find_words",
    "mix",
    "ngrams",
    "odd_numbers",
    "shingle",
    "text_bytes",
    "words_of",
]

UInt64 = npt.NDArray[np.uint64]
Int64 = npt.NDArray[np.int64]

_CHUNK_BYTES: Final = 1 << 19  # the tables of powers stay in the processor's cache
_BASE: Final = 0x9E3779B97F4A7C15
_INVERSE: Final = pow(_BASE, -1, 2**64)
_SEPARATOR, _WORD, _SOLO, _CONTINUED = range(4)
# No other character is changed by NFC or composes with one before it: Latin, Greek, Cyrillic, Hebrew and Arabic
# letters, punctuation, symbols, kana, CJK, Hangul, full-width forms, emoji. To look is faster than to normalise.
_MAY_CHANGE_IN_NFC: Final = (
    "[^\u0000-\u02ff\u03a3-\u0482\u048a-\u052f\u05d0-\u05ea\u0621-\u064a\u0660-\u066f\u0671-\u06d5"
    "\u2002-\u20cf\u2190-\u2328\u2460-\u27ff\u3001-\u3029\u3041-\u3096\u30a1-\u30ff\u3400-\u9fff"
    "\uac00-\ud7a3\uff01-\uff9d\U0001f300-\U0001faff]"
)


class Words(NamedTuple):
    """The words of n texts, one after the other."""

    hashes: UInt64
    offsets: Int64
    """(n + 1,): the words of text i are ``hashes[offsets[i] : offsets[i + 1]]``."""
    starts: Int64
    """Where each word begins, in bytes from the beginning of its text."""


class Shingles(NamedTuple):
    """The n-grams of n texts, one after the other, repeats included."""

    hashes: UInt64
    offsets: Int64


def shingle(texts: pl.Series | Sequence[str], *, n: int, threads: int | None = None) -> Shingles:
    """The hashed n-grams of the words and signs of texts.

    A text with fewer than ``n`` of them has one shingle, of all; one without any has one, of its bytes. So every
    text has at least one.

    Args:
        texts: no nulls.
        n: words of an n-gram, at least 1.
        threads: how many chunks are worked on at once; by default as many as there are cores.
    """
    series = pl.Series("text", texts, dtype=pl.String) if not isinstance(texts, pl.Series) else texts
    with ThreadPoolExecutor(threads or default_threads()) as pool:
        parts = list(pool.map(lambda piece: _shingle_chunk(piece, n), chunks(series)))
    return Shingles(*_joined([part.hashes for part in parts], [part.offsets for part in parts]))


def find_words(texts: pl.Series | Sequence[str]) -> Words:
    """The hashed words of texts and where they begin in the bytes of :func:`text_bytes`."""
    series = pl.Series("text", texts, dtype=pl.String) if not isinstance(texts, pl.Series) else texts
    parts = [words_of(*text_bytes(piece)) for piece in chunks(series)]
    starts = [part.starts for part in parts] or [np.empty(0, np.int64)]
    return Words(*_joined([p.hashes for p in parts], [p.offsets for p in parts]), np.concatenate(starts))


def ngrams(words: Words, n: int) -> Shingles:
    """The n-grams of words, with one shorter gram for a text of 1 to n - 1 words and none for no words."""
    counts = np.diff(words.offsets)
    starts = words.offsets[:-1]
    mixed = _long_grams(words.hashes, n)
    valid = np.ones(len(words.hashes), dtype=bool)
    long = counts >= n
    for back in range(1, n):
        valid[words.offsets[1:][long] - back] = False
    short = (counts > 0) & ~long
    if short.any():
        sizes = counts[short]
        inner = np.repeat(starts[short], sizes) + _ranges(sizes)
        valid[inner] = False
        valid[starts[short]] = True
        mixed[starts[short]] = _short_grams(words.hashes, starts[short], sizes, n)
    kept = np.where(long, counts - n + 1, np.minimum(counts, 1))
    return Shingles(mixed[valid], np.concatenate(([0], np.cumsum(kept))))


def chunks(texts: pl.Series) -> list[pl.Series]:
    """The texts in pieces of about half a megabyte, for :func:`text_bytes`."""
    ends = texts.str.len_bytes().cast(pl.Int64).cum_sum().to_numpy()
    first, pieces = 0, []
    while first < len(texts):
        before = int(ends[first - 1]) if first else 0
        last = max(first + 1, int(np.searchsorted(ends, before + _CHUNK_BYTES, side="right")))
        pieces.append(texts[first:last])
        first = last
    return pieces


def text_bytes(texts: pl.Series) -> tuple[npt.NDArray[np.uint8], Int64]:
    """The bytes of texts in NFC and lower case, and where each text begins among them."""
    texts = _in_nfc(texts)
    array = texts.str.to_lowercase().rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
    _, offset_buffer, data_buffer = array.buffers()
    offsets = np.frombuffer(offset_buffer, dtype=np.int64)[array.offset : array.offset + len(array) + 1]
    data = np.frombuffer(data_buffer or b"", dtype=np.uint8)
    return data[offsets[0] : offsets[-1]], offsets - offsets[0]


def _in_nfc(texts: pl.Series) -> pl.Series:
    beyond_ascii = (texts.str.len_bytes() != texts.str.len_chars()).arg_true()
    some = texts.gather(beyond_ascii)
    unsure = some.str.contains(_MAY_CHANGE_IN_NFC)
    if not unsure.any():
        return texts
    return texts.clone().scatter(beyond_ascii.filter(unsure), some.filter(unsure).str.normalize("NFC"))


def _shingle_chunk(texts: pl.Series, n: int) -> Shingles:
    data, offsets = text_bytes(texts)
    grams = ngrams(words_of(data, offsets, signs=True), n)
    bare = np.flatnonzero(np.diff(grams.offsets) == 0)
    if not len(bare):
        return grams
    hashes = [_digest(data[offsets[i] : offsets[i + 1]].tobytes()) for i in bare]
    return Shingles(
        np.insert(grams.hashes, grams.offsets[bare], np.array(hashes, dtype=np.uint64)),
        grams.offsets + np.concatenate(([0], np.cumsum(np.diff(grams.offsets) == 0))),
    )


def words_of(data: npt.NDArray[np.uint8], offsets: Int64, *, signs: bool = False) -> Words:
    """The words in what :func:`text_bytes` gave, and with ``signs`` those signs that are words of their own."""
    raw = data.tobytes()
    # bytes.translate is the fastest look-up of bytes there is; separators become 0.
    values = np.frombuffer(bytearray(raw.translate(_VALUES_OR_SIGNS if signs else _VALUES)), dtype=np.uint8)
    alone = np.empty(0, np.int64)
    if signs:
        maybe = few_places(values == _MAYBE_SIGN)
        alone = ascii_signs(data, offsets, maybe)
        values[maybe] = 0
    content = values != 0
    begins = content.copy()
    values[alone] = data[alone]
    content[alone] = True
    if raw.isascii():
        begins[1:] &= ~begins[:-1]
    else:
        wide = few_places(data >= 0x80)
        kind = np.frombuffer(bytearray(data[wide].tobytes().translate(_KINDS)), dtype=np.uint8)
        if signs:
            kind[wide_signs(data, wide)] = _SOLO
        # The bytes inside a character are of the kind of its first one.
        lead = np.maximum.accumulate(np.where(kind == _CONTINUED, 0, np.arange(len(wide))))
        inherited = kind[lead]
        apart = wide[inherited == _SEPARATOR]
        values[apart] = 0
        content[apart] = False
        begins[wide] = inherited == _WORD
        begins[1:] &= ~begins[:-1]
        begins[wide[kind == _SOLO]] = True
    begins[alone] = True
    filled = offsets[:-1][np.diff(offsets) > 0]
    begins[filled] |= content[filled]
    starts = np.flatnonzero(begins)
    word_offsets = np.searchsorted(starts, offsets)
    if not len(starts):
        return Words(np.empty(0, np.uint64), word_offsets, starts)
    powers, inverses = _powers(len(data))
    weighted = values.astype(np.uint64)
    weighted *= powers
    sums = np.cumsum(weighted, out=weighted)
    # Up to the next word there are only separators, which add nothing.
    hashes = np.append(sums[starts[1:] - 1], sums[-1])
    hashes[1:] -= hashes[:-1].copy()
    hashes *= inverses[starts]
    return Words(hashes, word_offsets, starts - np.repeat(offsets[:-1], np.diff(word_offsets)))


def _long_grams(hashes: UInt64, n: int) -> UInt64:
    padded = np.concatenate((hashes, np.zeros(n - 1, np.uint64)))
    total = padded[: len(hashes)] * _coefficient(0)
    for place in range(1, n):
        total += padded[place : place + len(hashes)] * _coefficient(place)
    return mix(total)


def _short_grams(hashes: UInt64, starts: Int64, sizes: Int64, n: int) -> UInt64:
    """Grams of fewer than n words; their length is hashed, too."""
    total = sizes.astype(np.uint64) * _coefficient(n)
    for place in range(n - 1):
        longer = sizes > place
        total[longer] += hashes[starts[longer] + place] * _coefficient(place)
    return mix(total)


def mix(values: UInt64) -> UInt64:
    """Spreads each bit over all others (the finaliser of splitmix64), in place."""
    values ^= values >> np.uint64(30)
    values *= np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(27)
    values *= np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    return values


def _coefficient(place: int) -> np.uint64:
    return np.uint64(pow(0xD6E8FEB86659FD93, place + 1, 2**64))


def odd_numbers(count: int) -> UInt64:
    """Coefficients for linear forms modulo 2^64."""
    return np.array([_coefficient(place) for place in range(count)], dtype=np.uint64)


def _digest(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def _ranges(sizes: Int64) -> Int64:
    """0 … size - 1 for each size, one after the other."""
    ends = np.cumsum(sizes)
    return np.arange(ends[-1]) - np.repeat(ends - sizes, sizes)


def _joined(hashes: list[UInt64], offsets: list[Int64]) -> tuple[UInt64, Int64]:
    if not hashes:
        return np.empty(0, np.uint64), np.zeros(1, np.int64)
    bases = np.cumsum([0, *(int(part[-1]) for part in offsets)])
    moved = [part[1:] + base for part, base in zip(offsets, bases[:-1], strict=True)]
    return np.concatenate(hashes), np.concatenate(([0], *moved))


def _powers(length: int) -> tuple[UInt64, UInt64]:
    """B^i and B^-i modulo 2^64 for i below ``length``, made once for the usual length."""
    if length <= _CHUNK_BYTES:
        return _POWERS[:length], _INVERSES
    return _power_table(_BASE, length), _power_table(_INVERSE, length)


def _power_table(base: int, length: int) -> UInt64:
    table = np.full(length, np.uint64(base), dtype=np.uint64)
    table[0] = 1
    return np.multiply.accumulate(table)


def _kinds() -> npt.NDArray[np.uint8]:
    kind = np.full(256, _SEPARATOR, dtype=np.uint8)
    for byte in b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_":
        kind[byte] = _WORD
    kind[0x80:0xC0] = _CONTINUED
    kind[0xC3:0xE0] = _WORD  # Latin, Greek, Cyrillic, Hebrew, Arabic …; 0xC2 and 0xE2 start punctuation
    kind[0xE1] = _WORD
    kind[0xE0] = _SOLO  # Thai, Lao, scripts of India
    kind[0xE3:0xF5] = _SOLO  # kana, CJK, Hangul, full-width forms, emoji
    return kind


_KINDS: Final = _kinds().tobytes()
_VALUES: Final = bytes(0 if kind == _SEPARATOR else byte for byte, kind in enumerate(_KINDS))
_MAYBE_SIGN: Final = 1  # no byte of a word
_VALUES_OR_SIGNS: Final = bytes(_MAYBE_SIGN if byte in MAYBE_SIGNS else value for byte, value in enumerate(_VALUES))
_POWERS: Final = _power_table(_BASE, _CHUNK_BYTES)
_INVERSES: Final = _power_table(_INVERSE, _CHUNK_BYTES)

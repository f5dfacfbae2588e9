"""Signs that change what a text says: which of its bytes are words of their own when duplicates are looked for.

-3 is not 3, a < b not a > b, 5 % not 5. Hyphens, bullets, slashes between words and Markdown's marks are no signs.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["MAYBE_SIGNS", "ascii_signs", "few_places", "wide_signs"]

Int64 = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]

MAYBE_SIGNS: Final = b"<>=+%^$!-*/"
_OUTSIDE: Final = np.uint8(ord("\n"))


def ascii_signs(data: Bytes, offsets: Int64, places: Int64) -> Int64:
    """Where ASCII signs are: ``< > = + % ^ $`` anywhere, ``!`` before ``=``, and ``- * /`` where they calculate.

    Those three do not calculate where they touch a word of two or more letters or each other, begin a line before
    white space, or end a word.

    Args:
        data: the bytes of texts, one after the other.
        offsets: (n + 1,) where each begins.
        places: where any of ``MAYBE_SIGNS`` is.
    """
    if not len(places):
        return places
    before2, before, own, after, after2 = _around(data, offsets, places)
    in_word = (_IS_LETTER[before] & _IS_LETTER[before2]) | (_IS_LETTER[after] & _IS_LETTER[after2])
    wide = (before >= 0x80) | (after >= 0x80)
    repeated = _IS_CALCULATING[before] | _IS_CALCULATING[after]
    spaced = (before == ord(" ")) & ~_IS_SPACE[before2]
    calculates = ~in_word & ~wide & ~repeated & (~_IS_SPACE[after] | spaced)
    signs = np.where(_IS_CALCULATING[own], calculates, (own != ord("!")) | (after == ord("=")))
    found: Int64 = places[signs]
    return found


def few_places(mask: npt.NDArray[np.bool_]) -> Int64:
    """``np.flatnonzero``, several times as fast where next to nothing is true."""
    whole = len(mask) & ~7
    eights = np.flatnonzero(mask[:whole].view(np.uint64))
    rows, places = np.nonzero(mask[:whole].reshape(-1, 8)[eights])
    return np.concatenate((eights[rows] * 8 + places, np.flatnonzero(mask[whole:]) + whole))


def _around(data: Bytes, offsets: Int64, places: Int64) -> Bytes:
    """(5, places): the bytes from two before to two after each place; outside of its text, line ends."""
    counts = np.diff(np.searchsorted(places, offsets))
    first, last = np.repeat(offsets[:-1], counts), np.repeat(offsets[1:], counts)
    at = places + np.arange(-2, 3)[:, None]
    around: Bytes = np.where((at >= first) & (at < last), data.take(at, mode="clip"), _OUTSIDE)
    return around


def wide_signs(data: Bytes, wide: Int64) -> Int64:
    """Which of the bytes from 0x80 on begin a sign: operators, currencies, degrees, raised and lowered digits."""
    lead = data[wide]
    following = np.append(data, np.uint8(0))[wide + 1]
    operator = (lead == 0xE2) & ((following == 0x82) | ((following >= 0x88) & (following <= 0x8B)))
    return np.flatnonzero(operator | ((lead == 0xC2) & _IS_LATIN_SIGN[following]))


def _among(characters: bytes) -> npt.NDArray[np.bool_]:
    table = np.zeros(256, dtype=np.bool_)
    table[list(characters)] = True
    return table


_IS_CALCULATING: Final = _among(b"-*/")
_IS_SPACE: Final = _among(b" \t\r\n\v\f")
_IS_LETTER: Final = _among(b"abcdefghijklmnopqrstuvwxyz_")
_IS_LATIN_SIGN: Final = _among("¢£¤¥¬°±²³µ¹¼½¾".encode("latin-1"))

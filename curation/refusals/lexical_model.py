"""The lexical part of the bundled refusal detector: features to logits. No text cleaning, no cascade."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from itertools import repeat
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from curation.errors import ModelError
from curation.refusals.languages import opening_words, what_is_said
from curation.refusals.lexical import Reading, cue_names, cues, grams, load_lexicon, phrases_in
from curation.refusals.terse import refuses_or_answers, refuses_outright, says_little

__all__ = ["LEXICAL_WEIGHTS", "LEXICON", "VOCABULARY", "LexicalModel", "LexicalScores", "sparse_row"]

LEXICON: Final = "lexicon.json"
VOCABULARY: Final = "vocabulary.json"
LEXICAL_WEIGHTS: Final = "lexical.safetensors"

_LOGS: Final = [0.0, *(1 + math.log(count) for count in range(1, 256))]

_SAYS_NO: Final = "inability:first"
_EXCUSES: Final = ("identity:first", "opinion:first", "ignorance:first")
_DECLINING: Final = frozenset({
    "inability", "apology", "identity", "opinion", "ignorance", "capability", "deflection",
    "foreign_refusal", "foreign_ignorance", "foreign_deflection",
})  # fmt: skip
_REFUSING: Final = _DECLINING | {"policy", "moral", "contradiction"}
_KNOWN_SHARE: Final = 1 / 3
"""Of a text's words so many are the model's, and it is English. Of "Won't write malware." all are; of ordinary
sentences in 20 languages at most a quarter, but in French and German, which are known by their common words."""

Floats = npt.NDArray[np.float32]


class LexicalScores(NamedTuple):
    """Logits of n answers."""

    refusal: Floats
    """(n,), partial or full refusal against compliance."""
    partial: Floats
    """(n,), partial against full, given that it is a refusal."""
    kinds: Floats
    """(n, number of kinds), given that it is a refusal."""
    declines_first: npt.NDArray[np.bool_]
    """(n,), the first sentence says "I can't", and not for want of opinions or knowledge."""
    unread: npt.NDArray[np.bool_]
    """(n,), in another script or language, and without a known phrase: only punctuation and single signs spoke."""
    terse: npt.NDArray[np.bool_]
    """(n,), a few words of which only the request could tell; see ``curation.refusals.terse``. Or words of which
    none is known to be English: what the English model makes of them is no reason to call them a refusal."""
    either: npt.NDArray[np.bool_]
    """(n,), one or two words that refuse some requests and answer others."""
    outright: npt.NDArray[np.bool_]
    """(n,), a few words that refuse, whatever was asked."""
    ignorant: npt.NDArray[np.bool_]
    """(n,), the first sentence does not know, and declines in no other way."""
    incapable: npt.NDArray[np.bool_]
    """(n,), the first sentence lacks the means, and no rule or principle is named."""
    contradicts: npt.NDArray[np.bool_]
    """(n,), the first sentence contradicts, and neither declines nor apologises."""
    refuses_abroad: npt.NDArray[np.bool_]
    """(n,), in another script or language, and refuses; see ``curation.refusals.languages``."""
    agrees_abroad: npt.NDArray[np.bool_]
    """(n,), likewise, and agrees."""


class LexicalModel:
    """Linear heads over weighted n-grams and cues."""

    def __init__(
        self,
        *,
        lexicon: Mapping[str, tuple[str, ...]],
        vocabulary: Sequence[str],
        idf: Floats,
        ngram_weights: Floats,
        cue_weights: Floats,
        bias: Floats,
    ) -> None:
        """Shapes: idf (v,), ngram_weights (v, h), cue_weights (c, h), bias (h,).

        The h heads are refusal, partial, and the kinds.

        Raises:
            ModelError: when the shapes do not fit together.
        """
        expected = {"idf": (len(vocabulary),), "ngram_weights": (len(vocabulary), len(bias))}
        expected["cue_weights"] = (len(cue_names(lexicon)), len(bias))
        found = {"idf": idf.shape, "ngram_weights": ngram_weights.shape, "cue_weights": cue_weights.shape}
        for name, shape in expected.items():
            if found[name] != shape:
                raise ModelError(
                    f"refusal detector: {name} has shape {found[name]}, expected {shape}; make it again"
                )
        self._lexicon = dict(lexicon)
        names = cue_names(lexicon)
        wanted = (_SAYS_NO, *_EXCUSES, *(f"{group}:first" for group in sorted(_REFUSING)))
        missing = [name for name in wanted if name not in names]
        if missing:
            raise ModelError(f"refusal detector: {LEXICON} has no group {missing[0].split(':')[0]!r}")
        self._says_no = names.index(_SAYS_NO)
        self._excuses = [names.index(name) for name in _EXCUSES]
        groups = [name.rpartition(":")[0] for name in names]
        self._declining = [n for n, group in enumerate(groups) if group in _DECLINING]
        self._refusing = [n for n, group in enumerate(groups) if group in _REFUSING]
        self._not_ignorant = [names.index(f"{group}:first") for group in ("inability", "apology")]
        self._not_ignorant += [n for n, group in enumerate(groups) if group in ("policy", "capability")]
        self._not_incapable = [n for n, group in enumerate(groups) if group in ("policy", "moral")]
        self._contradiction = names.index("contradiction:first")
        self._not_contradicting = [names.index(f"{group}:first") for group in ("inability", "apology")]
        self._ignorance, self._capability = names.index("ignorance:first"), names.index("capability:first")
        self._row = {gram: row for row, gram in enumerate(vocabulary)}
        self._idf = idf
        self._ngram_weights = ngram_weights
        self._cue_weights = cue_weights
        self._bias = bias

    @classmethod
    def load(cls, folder: Path) -> LexicalModel:
        """Read the three files of a model folder.

        Raises:
            ModelError: when one is missing or not what it should be.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            weights = load_file(folder / LEXICAL_WEIGHTS)
            vocabulary = json.loads((folder / VOCABULARY).read_text(encoding="utf-8"))
            return cls(lexicon=load_lexicon(folder / LEXICON), vocabulary=vocabulary, **weights)
        except (OSError, ValueError, TypeError, SafetensorError) as error:
            raise ModelError(
                f"refusal detector in {folder} cannot be read ({type(error).__name__}): expected "
                f"{LEXICON}, {VOCABULARY} and {LEXICAL_WEIGHTS} as "
                f"`python -m curation.embedded.make_refusals` writes them"
            ) from error

    def state(self) -> tuple[list[str], dict[str, Floats]]:
        """The vocabulary and the arrays, as ``load`` reads them."""
        arrays = {"idf": self._idf, "ngram_weights": self._ngram_weights}
        return list(self._row), arrays | {"cue_weights": self._cue_weights, "bias": self._bias}

    def score(self, readings: Sequence[Reading]) -> LexicalScores:
        """The logits of n answers."""
        out = np.empty((len(readings), len(self._bias)), dtype=np.float32)
        declines = np.zeros(len(readings), dtype=bool)
        terse = np.zeros(len(readings), dtype=bool)
        either = np.zeros(len(readings), dtype=bool)
        outright = np.zeros(len(readings), dtype=bool)
        ignorant = np.zeros(len(readings), dtype=bool)
        incapable = np.zeros(len(readings), dtype=bool)
        contradicts = np.zeros(len(readings), dtype=bool)
        strange = np.array([r.maybe_foreign and not self._is_known(r) for r in readings], dtype=bool)
        present = phrases_in(readings, self._lexicon)
        words = self._words(readings)
        for position, (reading, (rows, values)) in enumerate(zip(readings, words, strict=True)):
            cue_values = cues(reading, self._lexicon, present[position])
            declines[position] = cue_values[self._says_no] > 0 and not cue_values[self._excuses].any()
            declining, refusing = cue_values[self._declining].any(), cue_values[self._refusing].any()
            terse[position] = says_little(reading, declines=bool(declining), refuses=bool(refusing))
            either[position] = refuses_or_answers(reading)
            outright[position] = refuses_outright(reading)
            ignorant[position] = cue_values[self._ignorance] > 0 and not cue_values[self._not_ignorant].any()
            incapable[position] = cue_values[self._capability] > 0 and not cue_values[self._not_incapable].any()
            denied = cue_values[self._contradiction] > 0
            contradicts[position] = denied and not cue_values[self._not_contradicting].any()
            out[position] = self._bias + cue_values @ self._cue_weights
            if len(rows):
                out[position] += values @ self._ngram_weights[rows]
        refuses, agrees = np.zeros(len(readings), dtype=bool), np.zeros(len(readings), dtype=bool)
        foreign = np.array([reading.foreign for reading in readings], dtype=bool)
        abroad = np.flatnonzero(foreign | strange)
        if len(abroad):
            refuses[abroad], agrees[abroad] = what_is_said([readings[row].sentences for row in abroad.tolist()])
        unread = foreign & ~refuses & ~agrees
        terse |= strange
        said = (declines, unread, terse, either, outright, ignorant, incapable, contradicts, refuses, agrees)
        return LexicalScores(out[:, 0], out[:, 1], out[:, 2:], *said)

    def _is_known(self, reading: Reading) -> bool:
        words = opening_words("\n".join(reading.sentences))
        return sum(word in self._row for word in words) >= _KNOWN_SHARE * len(words)

    def _words(self, readings: Sequence[Reading]) -> list[tuple[npt.NDArray[np.int64], Floats]]:
        """``sparse_row`` of each answer's n-grams; all answers at once, and none changes another's."""
        width = len(self._row)
        if not width or not readings:
            return [(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32)) for _ in readings]
        flat: list[int] = []
        ends = []
        for reading in readings:
            flat.extend(map(self._row.get, grams(reading), repeat(-1)))
            ends.append(len(flat))
        found = np.array(flat, dtype=np.int64)
        answer = np.repeat(np.arange(len(readings)), np.diff(ends, prepend=0))
        known = found >= 0
        keys, counts = np.unique(answer[known] * width + found[known], return_counts=True)
        rows, answer = keys % width, keys // width
        weighted = (1 + np.log(counts)) * self._idf[rows]
        square = np.bincount(answer, weighted * weighted, minlength=len(readings))
        values = (weighted / np.sqrt(square[answer])).astype(np.float32)
        cuts = np.searchsorted(answer, np.arange(1, len(readings)))
        return list(zip(np.split(rows, cuts), np.split(values, cuts), strict=True))


def sparse_row(
    counts: Mapping[str, int], rows_of: Mapping[str, int], idf: Floats
) -> tuple[npt.NDArray[np.int64], Floats]:
    """Row numbers and weights (1 + log count) · idf, of length 1; unknown n-grams are left out."""
    known = sorted((rows_of[gram], count) for gram, count in counts.items() if gram in rows_of)
    if not known:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32)
    rows = np.array([row for row, _ in known], dtype=np.int64)
    values = np.array([_LOGS[count] if count < len(_LOGS) else 1 + math.log(count) for _, count in known])
    weighted = values * idf[rows]
    return rows, (weighted / np.sqrt(weighted @ weighted)).astype(np.float32)

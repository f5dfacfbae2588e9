"""The bundled refusal detector: rules for non-answers, then words, then the encoder where in doubt."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from curation.errors import ModelError
from curation.models.protocols import RefusalScores
from curation.refusals.dressing import spoken, undressed
from curation.refusals.lexical import read
from curation.refusals.lexical_model import LexicalModel, LexicalScores
from curation.refusals.notices import is_empty_or_filtered, may_be_no_answer
from curation.refusals.terse import without_disclaimers

__all__ = [
    "CONFIG",
    "NOT_AN_ANSWER",
    "Cascade",
    "CascadeConfig",
    "SupportsLogits",
    "kinds_told",
    "load_config",
]

CONFIG: Final = "config.json"
NOT_AN_ANSWER: Final = "empty_or_filtered"
_DECLINED: Final = "declined"
_DONT_KNOW: Final = "dont_know"
_CONTRADICTED: Final = "contradicted"
_CAPABILITY: Final = "capability_limit"
_CERTAIN: Final = 0.999
_PARTIAL_MARGIN: Final = 0.5
"""An answer that begins "I can't …" and then helps is a partial refusal, when the logit of partial against full
is above this. Out of fold, 8 of the 11 answers it changed were refusals, and none was of chatgpt_refusals."""

_SLICE: Final = 512
_GROUP: Final = 256
"""The encoder begins when so many answers wait for it: enough to lay those of like length side by side."""

_UNREAD: Final = -0.4
"""The logit of an answer in another script or language where no phrase of it is known: no refusal, and too
little to be sure of that, whatever its punctuation and its few known words say (probability 0.4: the refusal
dataset leaves it out).

It is that of "None" or "[]", too, and of "No.", "Not toxic" or "You can't divide by zero." the most: there only the
request could tell."""

_ABOUT: Final = 1e-6
_ABROAD: Final = 1.5
"""The logit of a known phrase that refuses in another language at least (probability 0.82)."""

_OUTRIGHT: Final = 3.0
"""The logit of "Request denied." and its like at least (probability 0.95)."""

Floats = npt.NDArray[np.float32]


class CascadeConfig(NamedTuple):
    """How the two parts are joined; fitted on held-out answers."""

    kinds: list[str]
    gate: float
    """The encoder reads an answer when the lexical logit lies within ± this."""
    lexical_weight: float
    encoder_weight: float
    bias: float
    lexical_alone: float
    """What the lexical logit is multiplied by where it stands alone."""
    threshold: float = 0.5
    partial_threshold: float = 0.5


class SupportsLogits(Protocol):
    """Groups of texts to (n, 2) logits: refusal, partial; a group is read while the next is being made."""

    def logits_in_turn(self, groups: Iterable[Sequence[str]]) -> Floats: ...


class _Words(NamedTuple):
    """What the lexical part says of some answers."""

    scores: LexicalScores
    cut: npt.NDArray[np.bool_]
    unsure: npt.NDArray[np.bool_]
    """(n,), the encoder reads them too."""
    left: list[str | None]
    """Of answers with stock disclaimers after them the rest; see ``curation.refusals.terse``."""


def load_config(folder: Path) -> CascadeConfig:
    """Read ``config.json``.

    Raises:
        ModelError: when it is missing or has other fields.
    """
    try:
        return CascadeConfig(**json.loads((folder / CONFIG).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(
            f"refusal detector in {folder}: {CONFIG} cannot be read ({type(error).__name__}); make the model "
            f"again with `python -m curation.embedded.make_refusals`"
        ) from error


def kinds_told(scores: LexicalScores, kinds: Sequence[str]) -> npt.NDArray[np.int64]:
    """(n,), the kind of each answer if it refuses: what its first sentence says outright, else the likeliest."""
    if not len(scores.refusal):
        return np.zeros(0, dtype=np.int64)
    best: npt.NDArray[np.int64] = scores.kinds.argmax(axis=1)
    best = np.where(scores.outright, kinds.index(_DECLINED), best) if _DECLINED in kinds else best
    outright = ((_CONTRADICTED, scores.contradicts), (_DONT_KNOW, scores.ignorant), (_CAPABILITY, scores.incapable))
    for kind, said in outright:
        if kind in kinds:
            best = np.where(said, kinds.index(kind), best)
    return best


class Cascade:
    """See ``curation.models.protocols.RefusalDetector``. Equal answers are read once."""

    def __init__(
        self,
        *,
        fingerprint: str,
        lexical: LexicalModel,
        config: CascadeConfig,
        encoder: Callable[[], SupportsLogits],
    ) -> None:
        """``encoder`` is called at the first answer that needs it; it reads English alone."""
        self.fingerprint = fingerprint
        self._lexical = lexical
        self._config = config
        self._open_encoder = encoder
        self._encoder: SupportsLogits | None = None

    def detect(self, prompts: Sequence[str | None], responses: Sequence[str]) -> RefusalScores:
        """Probability, class and kind of n answers; prompts are not read, nor is reasoning before an answer."""
        said = spoken(responses)
        unique = list(dict.fromkeys(zip(said.texts, said.unfinished, strict=True)))
        place = {answer: row for row, answer in enumerate(unique)}
        found = self._detect_unique([text for text, _ in unique], np.array([u for _, u in unique], dtype=bool))
        rows = [place[answer] for answer in zip(said.texts, said.unfinished, strict=True)]
        return RefusalScores(
            probability=found.probability[rows],
            refusal_class=[found.refusal_class[row] for row in rows],
            kind=[found.kind[row] for row in rows],
            truncated=found.truncated[rows],
        )

    def _detect_unique(self, texts: Sequence[str], unfinished: npt.NDArray[np.bool_]) -> RefusalScores:
        config = self._config
        blank = np.array([is_empty_or_filtered(text) for text in texts], dtype=bool)
        nothing = np.array([may_be_no_answer(text) for text in texts], dtype=bool) | unfinished
        words: list[_Words] = []
        groups = self._unsure(texts, blank | nothing, words)
        first = next(groups, None)
        seen = None if first is None else self._opened().logits_in_turn(chain([first], groups))
        scores = LexicalScores(*(np.concatenate(part) for part in zip(*(w.scores for w in words), strict=True)))
        refusal = scores.refusal * config.lexical_alone
        partial = scores.partial.copy()
        if seen is not None:
            unsure = np.flatnonzero(np.concatenate([w.unsure for w in words]))
            joined = config.lexical_weight * scores.refusal[unsure] + config.encoder_weight * seen[:, 0]
            refusal[unsure] = joined + config.bias
            partial[unsure] = (partial[unsure] + seen[:, 1]) / 2
        lifted = scores.declines_first & (partial > _PARTIAL_MARGIN)
        refusal = np.where(lifted, np.maximum(refusal, _PARTIAL_MARGIN), refusal)
        refusal = np.where(scores.unread | scores.either | nothing, _UNREAD, refusal)
        refusal = np.where(scores.terse, np.minimum(refusal, _UNREAD), refusal)
        refusal = np.where(scores.refuses_abroad, np.maximum(refusal, _ABROAD), refusal)
        refusal = np.where(scores.agrees_abroad, np.minimum(refusal, -_ABROAD), refusal)
        refusal = np.where(scores.outright, np.maximum(refusal, _OUTRIGHT), refusal)
        partial = np.where(scores.outright, np.minimum(partial, -_OUTRIGHT), partial)
        refusal = self._without_disclaimers(words, refusal)
        probability = 1 / (1 + np.exp(-refusal.astype(np.float64)))
        probability[blank] = _CERTAIN
        shares = 1 / (1 + np.exp(-partial.astype(np.float64)))
        refuses = probability >= config.threshold
        classes = [
            "compliance" if not r else "full_refusal" if b or p < config.partial_threshold else "partial_refusal"
            for r, b, p in zip(refuses, blank, shares, strict=True)
        ]
        best = kinds_told(scores, config.kinds)
        kinds = [
            NOT_AN_ANSWER if b else config.kinds[k] if r else None
            for r, b, k in zip(refuses, blank, best, strict=True)
        ]
        return RefusalScores(probability, classes, kinds, np.concatenate([w.cut for w in words]))

    def _without_disclaimers(self, words: list[_Words], refusal: Floats) -> Floats:
        """The logits, of answers with stock disclaimers after them those of the rest, where that is sure."""
        left = {row: text for row, text in enumerate(chain.from_iterable(w.left for w in words)) if text}
        if not left:
            return refusal
        said = self._detect_unique(list(left.values()), np.zeros(len(left), dtype=bool)).probability
        logits, rows = np.log(said / (1 - said)), list(left)
        refusal = refusal.copy()
        refusal[rows] = np.where(np.abs(logits) > -_UNREAD + _ABOUT, logits, refusal[rows])
        return refusal

    def _opened(self) -> SupportsLogits:
        if self._encoder is None:
            self._encoder = self._open_encoder()
        return self._encoder

    def _unsure(
        self, texts: Sequence[str], told: npt.NDArray[np.bool_], words: list[_Words]
    ) -> Iterator[list[str]]:
        """Groups of answers that the encoder must read. ``words`` grows by what is said of all of them."""
        waiting: list[str] = []
        for start in range(0, max(1, len(texts)), _SLICE):
            here = slice(start, start + _SLICE)
            readings = [read(text) for text in texts[here]]
            scores = self._lexical.score(readings)
            readable = np.array([not r.foreign for r in readings], dtype=bool)
            unsure = (np.abs(scores.refusal) < self._config.gate) & ~told[here] & readable
            left = [without_disclaimers(reading) for reading in readings]
            words.append(_Words(scores, np.array([r.cut for r in readings], dtype=bool), unsure, left))
            waiting += [undressed(texts[start + int(row)]) for row in np.flatnonzero(unsure)]
            if len(waiting) >= _GROUP:
                yield waiting
                waiting = []
        if waiting:
            yield waiting

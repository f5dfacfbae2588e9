"""The prompt side: should a request be refused, why, and is it a look-alike. What an answer does is elsewhere.

A fine-tuned MiniLM tells three classes: to refuse, look-alike, ordinary. A look-alike is a request that resembles
one to refuse and deserves an answer (CoCoNot's contrast set, XSTest's safe prompts), so that it is called one only
where refusing is the less probable: the three probabilities sum to one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from curation.errors import InputError, ModelError
from curation.models.identity import EMBEDDED_DIR, folder_fingerprint
from curation.refusals.languages import is_other_language

__all__ = [
    "CLASSES",
    "REASONS",
    "REQUEST_WEIGHTS",
    "RequestModel",
    "RequestScores",
    "SupportsRequestLogits",
    "can_be_read",
    "detect_requests",
    "open_request_model",
    "request_fingerprint",
]

CLASSES: Final = ("refuse", "look_alike", "ordinary")
REASONS: Final = ("humanizing", "incomplete", "indeterminate", "safety", "unsupported")
"""CoCoNot's five reasons not to comply. Both in the order of the head."""
REQUEST_WEIGHTS: Final = "requests.safetensors"
_FOLDER: Final = EMBEDDED_DIR / "requests"
_CODE_VERSION: Final = 2  # raised when the reading of requests changes

_TEMPERATURE: Final = 1.5
"""Of questions like none that it learned from it is too sure: with XSTest left out of the fit, its labels are
likeliest from 1.5 to 2, and 3.6 % of Dolly's closed questions have 0.9 or more of a refusal (8.9 % without)."""
_LETTER: Final = re.compile(r"[^\W\d_]")
_LATIN: Final = re.compile(r"[A-Za-z\u00aa\u00ba\u00c0-\u024f]")

Floats = npt.NDArray[np.float64]


class SupportsRequestLogits(Protocol):
    """Texts to (n, 8) logits, of ``CLASSES`` and ``REASONS``."""

    def logits(self, texts: Sequence[str]) -> npt.NDArray[np.float32]: ...


class RequestScores(NamedTuple):
    """What is thought of n requests."""

    refuse: Floats
    """(n,), the probability that a request should not be complied with."""
    look_alike: Floats
    """(n,), the probability that it resembles one to refuse and deserves an answer."""
    reasons: Floats
    """(n, 5), the probability of each of ``REASONS``, given that it should not be complied with."""


class RequestModel:
    """Logits to probabilities. Equal requests are read once.

    Of a request without Latin letters nothing is known: its classes, and its reasons, are all equally probable.
    """

    def __init__(self, encoder: SupportsRequestLogits) -> None:
        self._encoder = encoder

    def score(self, requests: Sequence[str]) -> RequestScores:
        """Probabilities for n requests.

        Raises:
            ModelError: when the encoder has another number of outputs.
        """
        unique = list(dict.fromkeys(requests))
        place = {text: row for row, text in enumerate(unique)}
        logits = self._encoder.logits(unique).astype(np.float64)
        if logits.shape[1] != len(CLASSES) + len(REASONS):
            raise ModelError(
                f"request model: {logits.shape[1]} outputs, expected {len(CLASSES) + len(REASONS)}; make it again "
                "with `python -m curation.embedded.make_refusals`"
            )
        logits[[row for text, row in place.items() if not _is_latin(text)]] = 0.0
        logits = logits[[place[text] for text in requests]]
        classes, reasons = _shares(logits[:, : len(CLASSES)] / _TEMPERATURE), _shares(logits[:, len(CLASSES) :])
        return RequestScores(classes[:, 0], classes[:, 1], reasons)


def can_be_read(request: str) -> bool:
    """Whether the model knows the language of a request, so that its probabilities may decide anything: English."""
    return _is_latin(request) and not is_other_language(request.lower())


def _is_latin(text: str) -> bool:
    """Whether most letters are Latin ones; the encoder knows no others, and nothing of a text without letters."""
    letters = len(_LETTER.findall(text))
    return letters > 0 and len(_LATIN.findall(text)) * 2 > letters


def _shares(logits: Floats) -> Floats:
    powers: Floats = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: Floats = powers / powers.sum(axis=1, keepdims=True)
    return shares


def request_fingerprint(folder: Path = _FOLDER) -> str:
    """What the numbers depend on: the fine-tuned layers, and MiniLM below them.

    Raises:
        ModelError: when the layers are missing.
    """
    from curation.models.encoder import encoder_fingerprint

    if not (folder / REQUEST_WEIGHTS).is_file():
        raise ModelError(f"request model in {folder}: {REQUEST_WEIGHTS} is missing; make it again")
    return f"requests@{folder_fingerprint(str(folder))}+{encoder_fingerprint()}/v{_CODE_VERSION}"


def open_request_model(folder: Path = _FOLDER) -> RequestModel:
    """The bundled model.

    Raises:
        ModelError: when its file or MiniLM is missing or broken.
    """
    from curation.models.refusal_encoder import RefusalEncoder

    return RequestModel(RefusalEncoder.load(folder, name=REQUEST_WEIGHTS))


def detect_requests(
    frame: pl.DataFrame, *, prompt: str = "prompt", model: RequestModel | None = None
) -> pl.DataFrame:
    """Add what is thought of each request.

    Args:
        frame: one request a row; ``prompt`` holds text.
        prompt: its column.
        model: an open model; None for the bundled one.

    Returns:
        The frame with ``refuse_probability``, ``look_alike_probability`` and ``refuse_reason`` (the likeliest of
        ``REASONS``, null where the request should be answered). Null requests get nulls.

    Raises:
        InputError: when the column is missing or holds no text.
    """
    if prompt not in frame.columns:
        raise InputError(f"column {prompt!r} is missing: found {', '.join(frame.columns)}; name the requests")
    if frame[prompt].dtype not in (pl.String, pl.Null):
        raise InputError(f"column {prompt!r} holds {frame[prompt].dtype}, expected text")
    texts = frame[prompt].cast(pl.String).to_list()
    known = [row for row, text in enumerate(texts) if text is not None]
    refuse: list[float | None] = [None] * len(texts)
    alike: list[float | None] = [None] * len(texts)
    reason: list[str | None] = [None] * len(texts)
    if known:
        scores = (model or open_request_model()).score([texts[row] for row in known])
        best = scores.reasons.argmax(axis=1)
        for place, row in enumerate(known):
            refuse[row] = float(scores.refuse[place])
            alike[row] = float(scores.look_alike[place])
            reason[row] = REASONS[best[place]] if scores.refuse[place] >= 0.5 else None
    return frame.with_columns(
        pl.Series("refuse_probability", refuse, dtype=pl.Float64),
        pl.Series("look_alike_probability", alike, dtype=pl.Float64),
        pl.Series("refuse_reason", reason, dtype=pl.String),
    )

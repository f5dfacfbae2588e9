"""The prompt side: should a request be refused, why, and is it a look-alike. What an answer does is elsewhere.

Linear heads over the bundled encoder's vectors. A look-alike is a request that resembles one to refuse and
deserves an answer (CoCoNot's contrast set, XSTest's safe prompts).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from curation.errors import InputError, ModelError
from curation.models.identity import EMBEDDED_DIR
from curation.models.protocols import Encoder

__all__ = [
    "REASONS",
    "REQUEST_WEIGHTS",
    "RequestModel",
    "RequestScores",
    "detect_requests",
    "open_request_model",
    "request_fingerprint",
]

REASONS: Final = ("humanizing", "incomplete", "indeterminate", "safety", "unsupported")
"""CoCoNot's five reasons not to comply, in the order of the heads."""
REQUEST_WEIGHTS: Final = "requests.safetensors"
_MAX_TOKENS: Final = 64

Floats = npt.NDArray[np.float64]


class RequestScores(NamedTuple):
    """What is thought of n requests."""

    refuse: Floats
    """(n,), the probability that a request should not be complied with."""
    look_alike: Floats
    """(n,), the probability that it resembles one to refuse and deserves an answer."""
    reasons: Floats
    """(n, 5), the probability of each of ``REASONS``, given that it should not be complied with."""


class RequestModel:
    """Heads over encoder vectors."""

    def __init__(self, weights: npt.NDArray[np.float32], bias: npt.NDArray[np.float32], encoder: Encoder) -> None:
        """``weights`` (dimension, 7) and ``bias`` (7,): refuse, look-alike, then the five reasons.

        Raises:
            ModelError: when the shapes do not fit the encoder.
        """
        if weights.shape != (encoder.dimension, 2 + len(REASONS)) or bias.shape != (2 + len(REASONS),):
            raise ModelError(
                f"request model: heads of shape {weights.shape} do not fit an encoder of dimension "
                f"{encoder.dimension}; make them again with `python -m curation.embedded.make_refusals`"
            )
        self._weights = weights
        self._bias = bias
        self._encoder = encoder

    def score(self, requests: Sequence[str]) -> RequestScores:
        """Probabilities for n requests."""
        logits = (self._encoder.encode(requests).vectors @ self._weights + self._bias).astype(np.float64)
        chances = 1 / (1 + np.exp(-logits[:, :2]))
        powers = np.exp(logits[:, 2:] - logits[:, 2:].max(axis=1, keepdims=True))
        return RequestScores(chances[:, 0], chances[:, 1], powers / powers.sum(axis=1, keepdims=True))


def request_fingerprint(folder: Path = EMBEDDED_DIR / "refusals") -> str:
    """What the numbers depend on: the heads and the encoder.

    Raises:
        ModelError: when the heads are missing.
    """
    from curation.models.encoder import encoder_fingerprint

    try:
        digest = hashlib.sha256((folder / REQUEST_WEIGHTS).read_bytes()).hexdigest()[:12]
    except OSError as error:
        raise ModelError(f"request model in {folder}: {REQUEST_WEIGHTS} is missing; make it again") from error
    return f"requests@{digest}+{encoder_fingerprint()}/{_MAX_TOKENS}"


def open_request_model(folder: Path = EMBEDDED_DIR / "refusals") -> RequestModel:
    """The bundled model.

    Raises:
        ModelError: when its file or its encoder is missing.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    from curation.models.encoder import open_encoder

    try:
        heads = load_file(folder / REQUEST_WEIGHTS)
        return RequestModel(heads["weights"], heads["bias"], open_encoder(max_length=_MAX_TOKENS))
    except (OSError, KeyError, SafetensorError) as error:
        raise ModelError(
            f"request model in {folder}: {REQUEST_WEIGHTS} cannot be read ({type(error).__name__}); make it "
            f"again with `python -m curation.embedded.make_refusals`"
        ) from error


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

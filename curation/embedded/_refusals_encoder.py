"""Fine-tunes MiniLM but for its first layer. The network itself is in curation/models/refusal_encoder.py."""

from __future__ import annotations

import math
import random
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from curation.embedded._refusals_data import Answer
from curation.models.refusal_encoder import (
    ENCODER_WEIGHTS,
    Network,
    RefusalEncoder,
    load_embeddings,
    minilm_folder,
    padded,
    tokenise,
)

__all__ = ["fine_tune", "save_encoder"]

_LAYERS: Final = 6
_FROZEN_LAYERS: Final = 1
_BATCH: Final = 16
_RATE: Final = 1e-4
_LAYER_DECAY: Final = 0.9
_WARM_UP: Final = 0.1
_DROPOUT: Final = 0.1
_SMOOTHING: Final = 0.05
_SORTED_TOGETHER: Final = 20


def fine_tune(answers: Sequence[Answer], *, epochs: int = 4, seed: int = 0) -> RefusalEncoder:
    """A network fitted to the answers' labels; those with a class also teach partial against full."""
    import torch
    from safetensors import safe_open
    from tokenizers import Tokenizer
    from torch.nn import functional

    torch.manual_seed(seed)
    rng = random.Random(seed)
    base = minilm_folder()
    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    wanted = tuple(f"encoder.layer.{layer}." for layer in range(_LAYERS))
    with safe_open(base / "model.safetensors", framework="pt") as file:
        weights = {n: file.get_tensor(n).float() for n in file.keys() if n.startswith(wanted)}  # noqa: SIM118
    weights["head.weight"] = torch.randn(2, 768) * 0.02
    weights["head.bias"] = torch.zeros(2)
    network = Network(load_embeddings(base), weights)
    groups = _groups(weights)
    optimiser = torch.optim.AdamW(groups, weight_decay=0.01, fused=True)
    ids = tokenise([answer.text for answer in answers], tokenizer)
    steps = epochs * math.ceil(len(ids) / _BATCH)
    rates = [group["lr"] for group in optimiser.param_groups]
    started = time.monotonic()
    for step, rows in enumerate(row for _ in range(epochs) for row in _batches(ids, rng)):
        scale = min(1.0, (step + 1) / (_WARM_UP * steps)) * max(0.0, 1 - step / steps)
        for group, rate in zip(optimiser.param_groups, rates, strict=True):
            group["lr"] = rate * scale
        with torch.autocast("cpu", dtype=torch.bfloat16):  # three times as fast where the CPU has AMX
            found = network(*padded([ids[row] for row in rows]), dropout=_DROPOUT).float()
        targets, known = _targets([answers[row] for row in rows])
        losses = functional.binary_cross_entropy_with_logits(
            found, targets * (1 - 2 * _SMOOTHING) + _SMOOTHING, reduction="none"
        )
        loss = (losses * known).sum() / len(rows)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for group in groups for p in group["params"]], 1.0)
        optimiser.step()
        if step % 20 == 0:
            line = f"step {step}/{steps} loss {loss.item():.3f} {time.monotonic() - started:.0f} s"
            sys.stderr.write(line + "\n")
    for value in weights.values():
        value.requires_grad_(False)
    return RefusalEncoder(network, tokenizer)


def _groups(weights: dict[str, Any]) -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = []
    for layer in range(_FROZEN_LAYERS, _LAYERS):
        members = [value for name, value in weights.items() if name.startswith(f"encoder.layer.{layer}.")]
        groups.append({"params": members, "lr": _RATE * _LAYER_DECAY ** (_LAYERS - 1 - layer)})
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

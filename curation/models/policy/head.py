"""What needs the output layer: log-probabilities and its gradient's inner products. Imports torch.

Logits never exist whole: they are made for some rows and a stretch of the vocabulary at a time. How a model
gets from final states to logits (scale, soft cap, bias) is read from its config here; the backend checks
the result against the model's own logits before it trusts it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch

__all__ = ["Head", "gradient_gram", "head_of", "make_head", "token_logps"]

_TILE_ROWS = 1024
_GRAM_ROWS = 4096
"""Of (T, T) products of gradients so many rows and columns at once: a prompt's answers may have 50,000 tokens."""
_TILE = {"cpu": 1_000_000, "cuda": 64_000_000}
"""Logits held at once; on a CPU 4 MB, which stays in its cache: with 16 MB the same takes three times as long."""


class Head(NamedTuple):
    """Logits z of a state h: u = scale · (W h + b), then z = cap · tanh(u / cap) where there is a cap."""

    weight: torch.Tensor
    """W, (V, d)."""
    bias: torch.Tensor | None
    """(V,)"""
    scale: float
    softcap: float | None


def head_of(model: Any) -> Head:
    """The output layer of a causal language model of transformers."""
    layer = model.get_output_embeddings()
    return make_head(model.config, layer.weight, getattr(layer, "bias", None))


def make_head(config: Any, weight: torch.Tensor, bias: torch.Tensor | None) -> Head:
    """An output layer with the scale and the soft cap that a model's config names."""
    config = config.get_text_config()
    scale = float(getattr(config, "logit_scale", None) or 1.0)
    scale *= float(getattr(config, "lm_head_multiplier", None) or 1.0)
    scale /= float(getattr(config, "logits_scaling", None) or 1.0)
    softcap = getattr(config, "final_logit_softcapping", None)
    return Head(weight, bias, scale, float(softcap) if softcap else None)


def token_logps(states: torch.Tensor, rows: torch.Tensor, targets: torch.Tensor, head: Head) -> torch.Tensor:
    """log softmax of the logits of ``states[rows]`` at ``targets``, float64.

    Args:
        states: (T, d); each one's normaliser is computed once, however many rows name it.
        rows: (n,) int64 into ``states``.
        targets: (n,) token ids.
    """
    normaliser = torch.cat([_normaliser(part, head) for part in torch.split(states, _TILE_ROWS)])
    target = torch.cat([
        _target_logits(states[r], t, head)
        for r, t in zip(torch.split(rows, _TILE_ROWS), torch.split(targets, _TILE_ROWS), strict=True)
    ])  # fmt: skip
    return target - normaliser[rows]


def gradient_gram(states: list[torch.Tensor], targets: list[torch.Tensor], head: Head) -> torch.Tensor:
    """Inner products of the gradients of k answers' log-probabilities in the output layer's matrix.

    The gradient of log π(y | x) in W is G = Σ_t a_t h_tᵀ with a_t = J_t (e_{y_t} − p_t), where J_t is the
    derivative of the logits in W h (the scale, and the soft cap's slope). So ⟨G_i, G_j⟩ is the sum over
    all t of i and s of j of ⟨a_t, a_s⟩ ⟨h_t, h_s⟩: no backward pass, and no (V, d) matrix. Where the input
    embeddings are tied to W, their part of the gradient is left out.

    Args:
        states: k tensors (|y_i|, d).
        targets: k tensors (|y_i|,) of token ids.

    Returns:
        (k, k) float64.
    """
    every, wanted = torch.cat(states), torch.cat(targets)
    normaliser = torch.cat([_normaliser(part, head) for part in torch.split(every, _TILE_ROWS)])
    owner = torch.repeat_interleave(
        torch.arange(len(states), device=every.device),
        torch.tensor([len(s) for s in states], device=every.device),
    )
    membership = torch.nn.functional.one_hot(owner, len(states)).double()
    total = torch.zeros(len(states), len(states), dtype=torch.float64, device=every.device)
    blocks = torch.split(torch.arange(len(every), device=every.device), _GRAM_ROWS)
    for place, left in enumerate(blocks):
        for right in blocks[place:]:
            rows = left if right is left else torch.cat((left, right))
            inner = _residual_products(every[rows], wanted[rows], normaliser[rows], head, len(left), len(right))
            products = inner.double() * (every[left].float() @ every[right].float().T).double() * head.scale**2
            part = membership[left].T @ products @ membership[right]
            total += part if right is left else part + part.T
    return total


def _residual_products(
    states: torch.Tensor,
    targets: torch.Tensor,
    normaliser: torch.Tensor,
    head: Head,
    left: int,
    right: int,
) -> torch.Tensor:
    """(left, right) ⟨a_t, a_s⟩ / scale² of the first ``left`` states t and the last ``right`` states s."""
    inner = torch.zeros(left, right, dtype=torch.float32, device=states.device)
    for start, logits in _stretches(states, head):
        residual = -torch.exp(logits - normaliser[:, None].to(logits.dtype))
        here = torch.nonzero((targets >= start) & (targets < start + logits.shape[1])).squeeze(1)
        residual[here, targets[here] - start] += 1
        if head.softcap is not None:
            residual *= 1 - (logits / head.softcap) ** 2
        inner += residual[:left] @ residual[-right:].T
    return inner


def _stretches(states: torch.Tensor, head: Head) -> Iterator[tuple[int, torch.Tensor]]:
    """Float32 logits of the states, a stretch of the vocabulary at a time."""
    width = max(1024, _TILE.get(states.device.type, _TILE["cuda"]) // len(states))
    for start in range(0, head.weight.shape[0], width):
        weight = head.weight[start : start + width]
        logits = _product(states, weight)
        if head.bias is not None:
            logits += head.bias[start : start + width].float()
        yield start, _capped(logits, head)


def _product(states: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """states @ weightᵀ in float32, not rounded to the model's own width."""
    if states.dtype != torch.float32 and states.device.type == "cuda":
        return torch.mm(states, weight.T, out_dtype=torch.float32)
    return states.float() @ weight.float().T


def _capped(logits: torch.Tensor, head: Head) -> torch.Tensor:
    if head.scale != 1.0:
        logits = logits.mul_(head.scale)
    if head.softcap is not None:
        logits = logits.div_(head.softcap).tanh_().mul_(head.softcap)
    return logits


def _normaliser(states: torch.Tensor, head: Head) -> torch.Tensor:
    """log Σ exp of the logits, (n,) float64."""
    total: torch.Tensor | None = None
    for _, logits in _stretches(states, head):
        part = torch.logsumexp(logits, dim=1).double()
        total = part if total is None else torch.logaddexp(total, part)
    if total is None:
        raise ValueError("the output layer has no rows")
    return total


def _target_logits(states: torch.Tensor, targets: torch.Tensor, head: Head) -> torch.Tensor:
    logits = (states.float() * head.weight[targets].float()).sum(dim=1)
    if head.bias is not None:
        logits += head.bias[targets].float()
    return _capped(logits, head).double()

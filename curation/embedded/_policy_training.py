"""Trains the bundled policy: a small Llama, next-token loss on the turns it may learn from. No data rules.

Matrices are updated by Muon (Jordan et al., 2024: momentum, orthogonalised by five Newton-Schulz steps)
with the update's size matched to AdamW's (Liu et al., 2025, "Muon is scalable"), everything else by
AdamW.
"""

from __future__ import annotations

import copy
import logging
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from curation.embedded._policy_tokenizer import CONTEXT, Example

__all__ = ["Plan", "build_model", "learned_loss", "train"]

log = logging.getLogger(__name__)

_IGNORED: Final = -100
_MOMENTUM: Final = 0.95
_WEIGHT_DECAY: Final = 0.1


class Plan(NamedTuple):
    """How long and how fast to train.

    Attributes:
        steps: optimiser steps.
        tokens: tokens of a step, padding counted.
        rate: learning rate after the warm-up; it falls linearly to zero over the last ``cooldown``.
        packed: share of the dialogues that are strung together up to ``window`` tokens, so that late
            positions are learned too.
    """

    steps: int
    seed: int
    tokens: int = 3072
    rate: float = 4e-3
    warmup: int = 40
    cooldown: float = 0.5
    window: int = 1024
    packed: float = 0.25


def build_model(tokenizer: Any, *, seed: int) -> Any:
    """An untrained model in float32 for this tokenizer."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    return LlamaForCausalLM(  # type: ignore[no-untyped-call]
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=192,
            intermediate_size=512,
            num_hidden_layers=6,
            num_attention_heads=3,
            num_key_value_heads=1,
            head_dim=64,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            initializer_range=0.02,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def train(
    model: Any,
    examples: Sequence[Example],
    plan: Plan,
    *,
    dev: Callable[[], float] | None = None,
    checkpoint: Callable[[int, Any], None] | None = None,
) -> None:
    """Trains ``model`` in place.

    Args:
        model: from ``build_model``.
        examples: what is learned.
        plan: steps and rates.
        dev: called every 200 steps and at the end; its figure is logged.
        checkpoint: called every 100 steps with their number and a copy of the model whose weights are
            averaged over the last 30 or so, which stands in for the decay that has not happened yet.
    """
    average = None if checkpoint is None else copy.deepcopy(model)
    muon, adam = _optimisers(model)
    model.train()
    started, seen, losses = time.monotonic(), 0, []
    stream = _batches(examples, plan)
    for step in range(plan.steps):
        ids, labels = next(stream)
        rate = plan.rate * _schedule(step, plan)
        loss = learned_loss(model, ids, labels)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in adam.param_groups:
            group["lr"] = rate
        muon.step(rate)
        adam.step()
        model.zero_grad(set_to_none=True)
        seen += int((labels != _IGNORED).sum())
        losses.append(float(loss.detach()))
        if (step + 1) % 20 == 0:
            took = time.monotonic() - started
            log.info("step %d loss %.3f learned %d tokens %.0f s", step + 1, sum(losses) / len(losses), seen, took)
            losses.clear()
        if dev is not None and ((step + 1) % 200 == 0 or step + 1 == plan.steps):
            model.eval()
            log.info("step %d held-out %.4f bits per byte", step + 1, dev())
            model.train()
        if average is not None and checkpoint is not None:
            _follow(average, model, step)
            if (step + 1) % 100 == 0:
                checkpoint(step + 1, copy.deepcopy(average))
    model.eval()


@torch.no_grad()
def _follow(average: Any, model: Any, step: int) -> None:
    share = max(1 / 30, 1 / (step / 4 + 1))
    for mean, now in zip(average.parameters(), model.parameters(), strict=True):
        mean.lerp_(now, share)


def learned_loss(model: Any, ids: Tensor, labels: Tensor, *, reduction: str = "mean") -> Tensor:
    """Cross-entropy (nats) of the learned tokens, for ids and labels of shape (rows, tokens).

    Padding stands on the right, where causal attention keeps it from the tokens before, so no mask is
    needed; logits are computed only where they are used.
    """
    states = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    wanted = labels[:, 1:]
    where = wanted != _IGNORED
    logits = functional.linear(states[where], model.lm_head.weight)
    return functional.cross_entropy(logits, wanted[where], reduction=reduction)


def _schedule(step: int, plan: Plan) -> float:
    warm = (step + 1) / plan.warmup
    cool = (plan.steps - step) / (plan.cooldown * plan.steps)
    return min(1.0, warm, cool)


def _optimisers(model: Any) -> tuple[_Muon, torch.optim.AdamW]:
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    return _Muon(matrices), torch.optim.AdamW(others, lr=1e-3, betas=(0.9, 0.95), weight_decay=0.0)


class _Muon:
    """Muon in float32: torch's own works in bfloat16, which is four times slower on a CPU without AMX."""

    def __init__(self, matrices: list[Tensor]) -> None:
        self._state = [(p, torch.zeros_like(p)) for p in matrices]

    @torch.no_grad()
    def step(self, rate: float) -> None:
        for weight, momentum in self._state:
            if weight.grad is None:
                continue
            momentum.lerp_(weight.grad, 1 - _MOMENTUM)
            update = _orthogonal(weight.grad.lerp(momentum, _MOMENTUM))
            weight.mul_(1 - rate * _WEIGHT_DECAY)
            weight.add_(update, alpha=-rate * 0.2 * math.sqrt(max(weight.shape)))


def _orthogonal(matrix: Tensor) -> Tensor:
    """The nearest semi-orthogonal matrix, about: the quintic Newton-Schulz iteration of Muon."""
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    found: torch.Tensor = x.T if tall else x
    return found


def _batches(examples: Sequence[Example], plan: Plan) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless batches: ids and labels (rows, tokens), rows of about one length, padded on the right."""
    rng = random.Random(plan.seed)
    while True:
        rows = _rows(examples, plan, rng)
        batches: list[list[tuple[list[int], list[int]]]] = [[]]
        for row in sorted(rows, key=lambda r: len(r[0])):
            if batches[-1] and len(row[0]) * (len(batches[-1]) + 1) > plan.tokens:
                batches.append([])
            batches[-1].append(row)
        rng.shuffle(batches)
        yield from map(_pad, batches)


def _rows(examples: Sequence[Example], plan: Plan, rng: random.Random) -> list[tuple[list[int], list[int]]]:
    """One epoch: dialogues on their own, cut into windows, and some strung together up to the window."""
    order = list(examples)
    rng.shuffle(order)
    strung = int(len(order) * plan.packed)
    rows: list[tuple[list[int], list[int]]] = []
    ids: list[int] = []
    labels: list[int] = []
    for place, example in enumerate(order):
        wanted = [i if keep else _IGNORED for i, keep in zip(example.ids, example.learned, strict=True)]
        ids, labels = [*ids, *example.ids], [*labels, *wanted]
        if place >= strung or len(ids) >= plan.window:
            rows += _windows(ids, labels, plan.window)
            ids, labels = [], []
    return rows


def _windows(ids: list[int], labels: list[int], width: int) -> Iterator[tuple[list[int], list[int]]]:
    for start in range(0, len(ids), width):
        part = labels[start : start + width]
        if any(label != _IGNORED for label in part[1:]):
            yield ids[start : start + width], part


def _pad(rows: list[tuple[list[int], list[int]]]) -> tuple[Tensor, Tensor]:
    width = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([ids + [0] * (width - len(ids)) for ids, _ in rows])
    labels = torch.tensor([labels + [_IGNORED] * (width - len(labels)) for _, labels in rows])
    return ids, labels

"""The inner loop of sampling from a causal language model: a batch in its cache, and the choice of a token.

Prompts, templates and faults are the business of ``generator``. Imports torch.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch

from curation.errors import ModelError
from curation.text import content_hash

__all__ = ["Rows", "draw", "rng_for"]


class Rows:
    """Prompts in a model's cache, padded on the left, and the logits of what follows each.

    Attributes:
        logits: (rows, vocabulary), float32.
    """

    def __init__(self, model: Any, cache: Any, mask: torch.Tensor, logits: torch.Tensor) -> None:
        self._model = model
        self._cache = cache
        self._mask = mask
        self.logits = logits

    @classmethod
    def prefill(cls, model: Any, prompts: Sequence[tuple[int, ...]]) -> Rows:
        """Read each distinct prompt once; several samples of one prompt copy what was read."""
        distinct = {ids: row for row, ids in enumerate(dict.fromkeys(prompts))}
        width = max(map(len, distinct))
        device = model.device
        # What stands in the padding is never looked at, so a model without a pad token needs none.
        ids = torch.tensor([[0] * (width - len(p)) + list(p) for p in distinct], device=device)
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in distinct], device=device)
        out = model(
            input_ids=ids,
            attention_mask=mask,
            use_cache=True,
            **_known(model, position_ids=(mask.cumsum(1) - 1).clamp(min=0), logits_to_keep=1),
        )
        if not hasattr(getattr(out, "past_key_values", None), "batch_select_indices"):
            raise ModelError(f"{type(model).__name__} keeps no cache of keys and values: sample from another model")
        order = torch.tensor([distinct[p] for p in prompts], device=device)
        out.past_key_values.batch_select_indices(order)
        return cls(model, out.past_key_values, mask[order], out.logits[order, -1].float())

    def advance(self, tokens: list[int], *, keep: list[int]) -> None:
        """Append one token to each row of ``keep``, and drop the others."""
        device = self._mask.device
        if len(keep) < len(self._mask):
            order = torch.tensor(keep, device=device)
            self._cache.batch_select_indices(order)
            self._mask = self._mask[order]
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(keep), 1)], dim=1)
        out = self._model(
            input_ids=torch.tensor(tokens, device=device)[:, None],
            attention_mask=self._mask,
            past_key_values=self._cache,
            use_cache=True,
            **_known(self._model, position_ids=self._mask.sum(1, keepdim=True) - 1),
        )
        self.logits = out.logits[:, -1].float()


def _known(model: Any, **arguments: Any) -> dict[str, Any]:
    """The arguments that this architecture takes: one with neither rotary nor learned positions has none."""
    parameters = inspect.signature(model.forward).parameters
    return {name: value for name, value in arguments.items() if name in parameters}


def draw(logits: torch.Tensor, *, temperature: float, top_p: float, rng: torch.Generator) -> int:
    """One token: the largest of p_i / E_i with E_i exponential (the Gumbel-max trick) among the top p.

    Every token has a random number of its own, so a change in one token's last bits moves no other token.

    Args:
        logits: (vocabulary,).
        temperature: 0 takes the likeliest token.
        top_p: the probability that the smallest set of likeliest tokens must reach.
        rng: moved on by one number per token of the vocabulary.

    Raises:
        ModelError: when a logit is NaN or infinite.
    """
    if not torch.isfinite(logits.max()):
        raise ModelError("the generator gave a logit that is not a number: its weights are broken")
    if temperature == 0:
        return int(logits.argmax())
    scores = torch.log_softmax(logits.double().cpu() / temperature, dim=-1)
    noise = torch.empty_like(scores).exponential_(generator=rng)
    if top_p < 1:
        ordered, order = scores.exp().sort(descending=True, stable=True)
        before = ordered.cumsum(0) - ordered
        scores[order[before >= top_p]] = -torch.inf
    return int((scores - noise.log()).argmax())


def rng_for(seed: int, ids: Sequence[int], sample_index: int) -> torch.Generator:
    """The random numbers of one answer, by what was asked alone."""
    digest = content_hash("sample", str(seed), " ".join(map(str, ids)), str(sample_index))
    return torch.Generator().manual_seed(int(digest[:15], 16))

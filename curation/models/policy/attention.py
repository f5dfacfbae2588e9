"""Attention over a packed token tree, as an attention implementation of transformers. Imports torch.

A *segment* is a run of tokens in the packed row. It sees, causally, its own tokens and those of the
segments above it in the tree, which are the shared prefixes of the sequences it belongs to. Attention is
computed one segment at a time, so no token looks at padding and no product is wasted on a pair of
segments that do not see each other. What the packed row holds is not decided here: see ``packing``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

import torch
from torch.nn import functional

from curation.models.policy.packing import Packed, Segment

__all__ = ["TREE_ATTENTION", "TreeLayout", "UnsupportedAttentionError", "register", "tree_attention", "use_layout"]

TREE_ATTENTION: Final = "curation_tree"

_HARMLESS: Final = frozenset({
    "position_ids", "cache_position", "use_cache", "output_attentions", "output_hidden_states",
    "cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k", "return_dict", "layer_idx",
    "is_causal", "dropout", "head_mask", "target_dtype", "past_key_values", "logits_to_keep", "cache",
})  # fmt: skip


class UnsupportedAttentionError(Exception):
    """The model hands its attention something that the packed form does not know how to honour."""


class TreeLayout:
    """The segments of one packed row, with the masks that its layers share.

    Attributes:
        windows: every sliding window that a layer has asked for, None for full attention.
    """

    def __init__(self, packed: Packed) -> None:
        self.segments = packed.segments
        self.windows: set[int | None] = set()
        self._masks: dict[tuple[int, int, int | None], torch.Tensor] = {}

    def mask(self, segment: Segment, window: int | None, like: torch.Tensor) -> torch.Tensor | None:
        """(queries, keys) to add to scores: 0 or −∞; None where plain causality says it all.

        Numbers, not truth values: those would be turned into numbers again in every layer.
        """
        queries, above = segment.stop - segment.start, segment.depth
        if window is not None and above + queries <= window:
            window = None
        if above == 0 and window is None:
            return None
        mask = self._masks.get((queries, above, window))
        if mask is None:
            query = torch.arange(above, above + queries, device=like.device)[:, None]
            key = torch.arange(above + queries, device=like.device)[None, :]
            hidden = key > query
            if window is not None:
                hidden |= key <= query - window
            mask = torch.zeros(hidden.shape, dtype=like.dtype, device=like.device)
            mask = self._masks[queries, above, window] = mask.masked_fill_(hidden, float("-inf"))
        return mask


_LAYOUT: ContextVar[TreeLayout | None] = ContextVar("curation_tree_layout", default=None)


@contextmanager
def use_layout(layout: TreeLayout) -> Iterator[None]:
    """The layout that attention follows inside the block."""
    token = _LAYOUT.set(layout)
    try:
        yield
    finally:
        _LAYOUT.reset(token)


def register() -> None:
    """Tell transformers of this implementation, under the name ``TREE_ATTENTION``."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    AttentionInterface.register(TREE_ATTENTION, tree_attention)
    AttentionMaskInterface.register(TREE_ATTENTION, _no_mask)


def _no_mask(*_args: Any, **_kwargs: Any) -> None:
    """A T by T mask is never made: the layout says who sees whom."""


def tree_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of (1, heads, T, d) queries to the keys that each one's segment sees: (1, T, heads, d_v)."""
    layout = _LAYOUT.get()
    unknown = sorted(name for name, given in kwargs.items() if given is not None and name not in _HARMLESS)
    if layout is None or attention_mask is not None or unknown:
        raise UnsupportedAttentionError(f"attention of {type(module).__name__} was given {unknown or 'a mask'}")
    layout.windows.add(sliding_window)
    repeats = query.shape[1] // key.shape[1]
    out = query.new_empty((1, query.shape[2], query.shape[1], value.shape[-1]))
    for segment in layout.segments:
        queries = query[:, :, segment.start : segment.stop]
        keys, values = _seen(key, segment), _seen(value, segment)
        if repeats > 1:
            keys, values = _repeated(keys, repeats), _repeated(values, repeats)
        mask = layout.mask(segment, sliding_window, query)
        if softcap is None and s_aux is None:
            attended = functional.scaled_dot_product_attention(
                queries, keys, values, attn_mask=mask, is_causal=mask is None, scale=scaling
            )
        else:
            attended = _eager(queries, keys, values, mask=mask, scaling=scaling, softcap=softcap, sinks=s_aux)
        out[:, segment.start : segment.stop] = attended.transpose(1, 2)
    return out, None


def _seen(tensor: torch.Tensor, segment: Segment) -> torch.Tensor:
    own = tensor[:, :, segment.start : segment.stop]
    if not segment.above:
        return own
    return torch.cat([*(tensor[:, :, start:stop] for start, stop in segment.above), own], dim=2)


def _repeated(tensor: torch.Tensor, times: int) -> torch.Tensor:
    """Each head ``times`` times: without a copy where there is only one."""
    batch, heads, length, width = tensor.shape
    return tensor[:, :, None].expand(batch, heads, times, length, width).reshape(batch, -1, length, width)


def _eager(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    mask: torch.Tensor | None,
    scaling: float | None,
    softcap: float | None,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """What scaled_dot_product_attention cannot do: capped scores and attention sinks."""
    scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if mask is None:
        hidden = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(hidden, float("-inf"))
    else:
        scores = scores + mask
    if sinks is not None:
        column = sinks.reshape(1, -1, 1, 1).expand(*scores.shape[:-1], 1)
        scores = torch.cat([scores, column.to(scores.dtype)], dim=-1)
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    return weights[..., : key.shape[2]] @ value

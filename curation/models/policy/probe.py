"""The check that a model passes before its numbers are believed. Imports torch.

A few made-up sequences are read as the model itself reads them, one by one, and as we would. States and
log-probabilities have to agree.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import torch

from curation.errors import ModelError
from curation.models.policy.attention import TREE_ATTENTION, UnsupportedAttentionError, register
from curation.models.policy.forward import METHODS, States
from curation.models.policy.head import Head, token_logps
from curation.models.policy.rendering import Rendered

__all__ = ["choose_method"]

_LOG = logging.getLogger(__name__)

_STATE_TOLERANCE: Final = {torch.float32: 1e-4, torch.float64: 1e-8}
"""Largest error of a state relative to its norm; half-precision types get ``_HALF_TOLERANCE``."""
_HALF_TOLERANCE: Final = 5e-2
_LAYER_TYPES: Final = frozenset({"full_attention", "sliding_attention"})


def choose_method(model: Any, head: Head, *, avoid: Iterable[int], only: str | None = None) -> str:
    """The cheapest way of reading this model that gives the model's own numbers.

    Args:
        model: a causal language model of transformers, in evaluation mode.
        head: its output layer, as we understand it.
        avoid: token ids that the made-up sequences should not hold (special tokens).
        only: the one way to try, None for all.

    Raises:
        ModelError: when no way does, the output layer is not what ``head`` says, or the model looks ahead.
    """
    groups = _sequences(model, set(avoid))
    expected = METHODS["separate"](model, groups, 1)
    _check_head(model, head, groups, expected)
    _check_causal(model, expected)
    wanted = [only] if only else ["packed", "shared_cache", "separate"]
    reasons: list[str] = []
    for method in wanted:
        reason = _objection(model, method, groups, expected)
        if reason is None:
            if reasons:
                _LOG.warning("policy is read by %s, which costs more: %s", method, "; ".join(reasons))
            return method
        reasons.append(f"not {method} ({reason})")
    raise ModelError(f"policy {model.config.model_type!r} cannot be read: {'; '.join(reasons)}")


def _sequences(model: Any, avoid: set[int]) -> list[Rendered]:
    config = model.config.get_text_config()
    allowed = np.setdiff1d(np.arange(min(config.vocab_size, 50_000)), np.fromiter(avoid, dtype=np.int64))
    draw = np.random.default_rng(0)
    ids = draw.choice(allowed, size=64).astype(np.int64)
    branch = ids[9:12]
    answers = [np.r_[branch, ids[12:15]], np.r_[branch, ids[15:17]], ids[17:21], ids[21:22]]
    return [
        Rendered(ids[:9], answers, [0, 1, 2, 3], {}, 4),
        Rendered(np.r_[ids[:4], ids[30:33]], [ids[33:38]], [0], {}, 1),
    ]


def _objection(model: Any, method: str, groups: list[Rendered], expected: States) -> str | None:
    """Why a method cannot be used with this model, or None."""
    if method == "separate":
        return None
    kinds = set(getattr(model.config.get_text_config(), "layer_types", None) or ())
    if any("chunked" in kind for kind in kinds):
        return "chunked attention"
    try:
        if method == "packed":
            return _packed_objection(model, kinds, groups, expected)
        states = METHODS[method](model, groups, 1)
    except (UnsupportedAttentionError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    return _difference(states, expected)


def _packed_objection(model: Any, kinds: set[str], groups: list[Rendered], expected: States) -> str | None:
    if kinds - _LAYER_TYPES:
        return f"layers of type {', '.join(sorted(kinds - _LAYER_TYPES))}"
    own = model.config._attn_implementation
    register()
    reason: str | None = "unknown"
    try:
        model.set_attn_implementation(TREE_ATTENTION)
        states = METHODS["packed"](model, groups, 1)
        reason = _window_objection(model, kinds, states) or _difference(states, expected)
    finally:
        if reason is not None:
            model.set_attn_implementation(own)
    return reason


def _window_objection(model: Any, kinds: set[str], states: States) -> str | None:
    window = getattr(model.config.get_text_config(), "sliding_window", None)
    slides = "sliding_attention" in kinds or (not kinds and window is not None)
    if slides and states.windows == {None}:
        return "a sliding window that its attention layers do not pass on"
    return None


def _difference(states: States, expected: States) -> str | None:
    ours = torch.cat([states.rows[index] for rows in states.where for index in rows]).double()
    theirs = torch.cat([expected.rows[index] for rows in expected.where for index in rows]).double()
    error = float(((ours - theirs).norm(dim=1) / theirs.norm(dim=1).clamp_min(1e-30)).max())
    tolerance = _STATE_TOLERANCE.get(states.rows.dtype, _HALF_TOLERANCE)
    # Written so that NaN objects too.
    return None if error <= tolerance else f"states differ by {error:.1e} of their norm"


def _check_causal(model: Any, expected: States) -> None:
    """One prompt was read before several answers: its last state may not depend on what follows it."""
    last = torch.stack([expected.rows[index[0]] for index in expected.where[0]]).double()
    error = float(((last - last[0]).norm(dim=1) / last[0].norm().clamp_min(1e-30)).max())
    if not error <= _STATE_TOLERANCE.get(expected.rows.dtype, _HALF_TOLERANCE):
        raise ModelError(
            f"policy {model.config.model_type!r} is no causal language model: the state of a prompt's last token "
            f"changes by {error:.1e} of its norm with the answer after it"
        )


def _check_head(model: Any, head: Head, groups: list[Rendered], expected: States) -> None:
    tolerance = 1e-3 if expected.rows.dtype in _STATE_TOLERANCE else 0.3
    for group, rows in zip(groups, expected.where, strict=True):
        for answer, index in zip(group.answers, rows, strict=True):
            ids = torch.from_numpy(np.concatenate([group.prompt, answer[:-1]]))[None].to(model.device)
            logits = model(input_ids=ids, use_cache=False).logits[0, len(group.prompt) - 1 :].double()
            targets = torch.from_numpy(answer).to(model.device)
            theirs = logits.log_softmax(1).gather(1, targets[:, None]).squeeze(1)
            ours = token_logps(expected.rows, index, targets, head)
            error = float((ours - theirs).abs().max())
            if not error <= tolerance:
                raise ModelError(
                    f"policy {model.config.model_type!r} is not supported: its log-probabilities differ from "
                    f"those of its output layer by {error:.1e} nats, so its logits hold a step that is not "
                    "known here"
                )

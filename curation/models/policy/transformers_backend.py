"""The policy through transformers: loading, batching by a token budget, running out of memory.

A model is trusted only after the check in ``probe``. One whose attention takes no layout, or that mixes
tokens outside attention, is read with a shared cache or one sequence at a time, and says so. Imports torch.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from curation.errors import InputError, ModelError
from curation.models.adapters import refuse_adapter
from curation.models.attention import honour_soft_cap
from curation.models.identity import ModelRef
from curation.models.policy.forward import METHODS, States, is_out_of_memory, packed_alone, separate
from curation.models.policy.head import head_of
from curation.models.policy.precision import DoubleCopy, cancels
from curation.models.policy.probe import choose_method
from curation.models.policy.rendering import Rendered, Renderer
from curation.models.policy.stats import PolicyStats
from curation.models.policy.summary import summarise
from curation.models.protocols import Fault
from curation.models.quiet import no_progress_bar
from curation.models.tokenizers import open_tokenizer
from curation.models.weights import LOADING_ERRORS, require_all_weights
from curation.text import Message

__all__ = ["TransformersPolicy", "cannot_load", "load_model", "load_tokenizer", "same_rope_up_to"]

_LOG = logging.getLogger(__name__)

_PROMPTS_AT_ONCE = 64
"""Prompts that are tokenised together."""
_LEAST_BUDGET = 256
_OUT_OF_MEMORY = "the answer alone, with its prompt, does not fit into memory"
_NOT_TOGETHER = "what is computed from the prompt's answers together does not fit into memory"

Result = PolicyStats | Fault


class TransformersPolicy:
    """A causal language model of transformers; see ``curation.models.policy.open_policy``.

    Attributes:
        method: ``packed``, ``shared_cache`` or ``separate``.
        batch_tokens: the budget now; it halves when memory runs out.
        forwarded: tokens that went through the model so far.
        forwarded_twice: those of them that went through its float64 copy as well (see ``precision``).
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        fingerprint: str,
        raw: bool,
        max_length: int | None,
        batch_tokens: int,
        output_gradients: bool,
        method: str | None = None,
        template_options: Mapping[str, Any] | None = None,
    ) -> None:
        self.fingerprint = fingerprint
        self.model = model
        self.raw = raw
        self.batch_tokens = batch_tokens
        self.forwarded = self.forwarded_twice = 0
        self.head = head_of(model)
        self.hidden_size = int(self.head.weight.shape[1])
        self.output_gradients = output_gradients
        config = model.config.get_text_config()
        context = getattr(config, "max_position_embeddings", None)
        limits = [n for n in (context, max_length) if n is not None]
        limit = min(limits, default=None)
        self.renderer = Renderer(tokenizer, raw=raw, max_length=limit, template_options=template_options)
        self._min_shared = 1 if model.device.type == "cpu" else 16
        self._same_rope_up_to = same_rope_up_to(config)
        with torch.inference_mode():
            self.method = choose_method(model, self.head, avoid=tokenizer.all_special_ids, only=method)
        self._double = DoubleCopy(model) if DoubleCopy.fits(model) else None

    def stats(
        self, prompts: Sequence[Sequence[Message] | str], responses: Sequence[Sequence[str]]
    ) -> Iterator[Result]:
        """One entry per prompt, in order: statistics, or a Fault where the prompt cannot be used.

        A prompt of which every candidate has a fault still gets a PolicyStats, with the reasons in it.
        """
        waiting: deque[Result | None] = deque()
        batch: list[Rendered] = []
        held = 0
        for rendered in self._rendered(prompts, responses):
            if isinstance(rendered, Fault):
                waiting.append(rendered)
                continue
            size = _tokens(rendered)
            full = held + size > self.batch_tokens
            if batch and (full or self._is_odd(rendered) or self._is_odd(batch[0])):
                yield from _in_order(waiting, self._run(batch))
                batch, held = [], 0
            waiting.append(None)
            batch.append(rendered)
            held += size
        yield from _in_order(waiting, self._run(batch))

    def _rendered(
        self, prompts: Sequence[Sequence[Message] | str], responses: Sequence[Sequence[str]]
    ) -> Iterator[Rendered | Fault]:
        if len(prompts) != len(responses):
            raise InputError(f"found {len(prompts)} prompts and {len(responses)} lists of answers")
        for start in range(0, len(prompts), _PROMPTS_AT_ONCE):
            some = slice(start, start + _PROMPTS_AT_ONCE)
            yield from self.renderer.render(prompts[some], responses[some])

    def _run(self, groups: list[Rendered]) -> list[PolicyStats]:
        """The statistics of a batch, whatever memory there is."""
        if not groups:
            return []
        try:
            return self._refined(groups, self._summaries(groups, self._states(groups)))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if len(groups) == 1:
            return [self._one_by_one(groups[0])]
        self.batch_tokens = max(_LEAST_BUDGET, self.batch_tokens // 2)
        _LOG.warning("out of memory: going on with %d tokens a batch", self.batch_tokens)
        middle = len(groups) // 2
        return self._run(groups[:middle]) + self._run(groups[middle:])

    def _refined(self, groups: Sequence[Rendered], stats: list[PolicyStats]) -> list[PolicyStats]:
        """The same, with the matrices of prompts that float32 is too coarse for taken from float64 states."""
        if self._double is None:
            return stats
        refined = []
        for group, one in zip(groups, stats, strict=True):
            if not group.answers or not cancels(one.gram, one.tokens):
                refined.append(one)
                continue
            again = self._states([group], model=self._double.model())
            exact = summarise([group], again.rows, again.where, None, output_gradients=False)[0]
            usable = np.isfinite(one.gram)
            gram, last_gram = (np.where(usable, found, np.nan) for found in (exact.gram, exact.last_gram))
            refined.append(one._replace(gram=gram, last_gram=last_gram))
        return refined

    @torch.inference_mode()
    def _states(self, groups: Sequence[Rendered], model: Any = None) -> States:
        filled = [group for group in groups if group.answers]
        if not filled:
            nothing = torch.empty(0, self.hidden_size, device=self.model.device)
            return States(nothing, [[] for _ in groups], 0)
        forward = METHODS[self.method]
        if any(self._is_odd(group) for group in filled):
            forward = packed_alone if self.method == "packed" else separate
        states = forward(self.model if model is None else model, filled, self._min_shared)
        if model is None:
            self.forwarded += states.forwarded
        else:
            self.forwarded_twice += states.forwarded
        found = iter(states.where)
        return states._replace(where=[next(found) if group.answers else [] for group in groups])

    @torch.inference_mode()
    def _summaries(self, groups: Sequence[Rendered], states: States) -> list[PolicyStats]:
        return summarise(groups, states.rows, states.where, self.head, output_gradients=self.output_gradients)

    def _one_by_one(self, group: Rendered) -> PolicyStats:
        """A prompt too big for memory: its candidates one at a time, those that still do not fit left out."""
        pieces, where, answers, candidates, faults, rows = [], [], [], [], dict(group.faults), 0
        for answer, candidate in zip(group.answers, group.candidates, strict=True):
            try:
                states = self._states([group._replace(answers=[answer], candidates=[candidate])])
                own = states.rows[states.where[0][0]]
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                length = len(group.prompt) + len(answer)
                faults[candidate] = Fault("out_of_memory", str(length), _OUT_OF_MEMORY)
                continue
            pieces.append(own)
            where.append(torch.arange(rows, rows + len(own), device=own.device))
            rows += len(own)
            answers.append(answer)
            candidates.append(candidate)
        left = group._replace(answers=answers, candidates=candidates, faults=faults)
        together = torch.cat(pieces) if pieces else torch.empty(0, self.hidden_size)
        try:
            return self._summaries([left], States(together, [where], 0))[0]
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        length = len(group.prompt) + sum(map(len, answers))
        none = faults | dict.fromkeys(candidates, Fault("out_of_memory", str(length), _NOT_TOGETHER))
        nothing = States(torch.empty(0, self.hidden_size), [[]], 0)
        return self._summaries([left._replace(answers=[], candidates=[], faults=none)], nothing)[0]

    def _is_odd(self, group: Rendered) -> bool:
        """Whether a prompt is too long for rotary frequencies that do not depend on what it is read with."""
        limit = self._same_rope_up_to
        return limit is not None and any(len(group.prompt) + len(a) > limit for a in group.answers)


def load_tokenizer(ref: ModelRef) -> Any:
    """The policy's tokenizer.

    Raises:
        InputError: when the model is an adapter.
        ModelError: when it cannot be loaded.
    """
    refuse_adapter(ref)
    try:
        return open_tokenizer(ref)
    except LOADING_ERRORS as error:
        raise cannot_load(ref, "tokenizer", error) from error


def load_model(ref: ModelRef, *, dtype: str) -> Any:
    """The policy's weights, safetensors only, on the GPU where there is one, in evaluation mode.

    Raises:
        InputError: when it is an adapter, which is no model by itself.
        ModelError: when they cannot be loaded, or the files hold only some of them.
    """
    from safetensors import SafetensorError

    refuse_adapter(ref)
    try:
        with no_progress_bar():
            model, loading = _loaded(ref, dtype)
        require_all_weights(model, loading)
        # Quantised weights lie where they were loaded to, and may not be moved.
        if getattr(model, "quantization_method", None) is None:
            model = model.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    except (*LOADING_ERRORS, RuntimeError, SafetensorError) as error:
        if is_out_of_memory(error):
            raise
        raise cannot_load(ref, "weights", error) from error
    return honour_soft_cap(model).eval()


def _loaded(ref: ModelRef, dtype: str) -> tuple[Any, Any]:
    """The model, and what was missing in its files. Of one that sees as well (Mistral Small 3) what reads text."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    def load(kind: Any) -> Any:
        return kind.from_pretrained(
            ref.location, revision=ref.commit, dtype=getattr(torch, dtype),
            use_safetensors=True, trust_remote_code=False, output_loading_info=True,
        )  # fmt: skip

    try:
        found = load(AutoModelForCausalLM)
    except ValueError as error:
        if "Unrecognized configuration class" not in str(error):
            raise
        found = load(AutoModelForImageTextToText)
    return found[0], found[1]


def cannot_load(ref: ModelRef, what: str, error: Exception) -> ModelError:
    """One line for whatever a library says of a part of a model."""
    first = (str(error).splitlines() or [""])[0]
    return ModelError(f"policy {ref.given!r}: its {what} cannot be loaded: {first}")


def _tokens(group: Rendered) -> int:
    return len(group.prompt) + sum(len(answer) - 1 for answer in group.answers)


def _in_order(waiting: deque[Result | None], done: Sequence[PolicyStats]) -> Iterator[Result]:
    """Results in the order of the prompts: faults were known before their neighbours' numbers."""
    numbers = iter(done)
    while waiting:
        fault = waiting.popleft()
        yield next(numbers) if fault is None else fault


def same_rope_up_to(config: Any) -> int | None:
    """The longest sequence whose rotary frequencies are the same in any batch; None where all are.

    "dynamic" and "longrope" scaling choose frequencies by the longest position in the batch.
    """
    parameters = getattr(config, "rope_parameters", None) or {}
    nested = [parameters, *(p for p in parameters.values() if isinstance(p, dict))]
    if not any(p.get("rope_type") in {"dynamic", "longrope"} for p in nested):
        return None
    original = [p.get("original_max_position_embeddings") for p in nested]
    limits = [n for n in [*original, getattr(config, "original_max_position_embeddings", None)] if n]
    return int(min(limits, default=config.max_position_embeddings))

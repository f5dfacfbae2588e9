"""The policy whose view of the answers is scored: states, log-probabilities, and nothing else of it.

``open_policy`` loads; ``policy_fingerprint`` says what a run's numbers depend on without loading anything.
What the numbers mean for pairs is in ``curation.scores``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from curation.errors import InputError
from curation.models.identity import resolve_model
from curation.models.policy.stats import Policy, PolicyStats
from curation.models.template_options import check_template_options, template_options_key
from curation.models.vllm_engine import EngineOptions

__all__ = ["DEFAULT_BATCH_TOKENS", "Backend", "Policy", "PolicyStats", "open_policy", "policy_fingerprint"]

DEFAULT_BATCH_TOKENS = 2048

Backend = Literal["transformers", "vllm"]
_DTYPES = ("float32", "bfloat16")


def policy_fingerprint(
    model: str,
    *,
    raw: bool = False,
    dtype: str = "float32",
    max_length: int | None = None,
    output_gradients: bool = False,
    template_options: Mapping[str, Any] | None = None,
) -> str:
    """What the statistics depend on: weights and revision, template or raw, width, cut-off, what is computed.

    The batch size, the backend and the device are not in it: they change numbers by rounding only.

    Raises:
        InputError: when ``model`` is no model or an argument is wrong.
    """
    _check(dtype, max_length, raw, template_options)
    name = resolve_model(model, embedded="policy").fingerprint
    parts = [name, "raw" if raw else "chat", dtype]
    parts += [f"max{max_length}"] if max_length is not None else []
    parts += ["gradients"] if output_gradients else []
    parts += template_options_key(template_options)
    return "/".join(parts)


def open_policy(
    model: str,
    *,
    raw: bool = False,
    dtype: str = "float32",
    batch_tokens: int = DEFAULT_BATCH_TOKENS,
    backend: Backend = "transformers",
    max_length: int | None = None,
    output_gradients: bool = False,
    template_options: Mapping[str, Any] | None = None,
    tensor_parallel_size: int | None = None,
    gpu_memory_utilization: float | None = None,
) -> Policy:
    """Load a causal language model to score answers with.

    Args:
        model: a folder, a Hub id, or ``embedded``.
        raw: token ids are tok(prompt), then tok(answer, add_special_tokens=False); else the model's chat
            template decides, and the answer's tokens include what the template writes after the answer.
        dtype: the width of weights and states; sums and Gram matrices are float64 either way.
        batch_tokens: tokens forwarded at once. A prompt with more goes alone.
        backend: ``transformers``, or ``vllm`` for a GPU server's throughput.
        max_length: prompts and answers longer than this together get the fault ``context_overflow``; the
            model's own context is a limit in any case. Nothing is ever truncated.
        output_gradients: also compute ``PolicyStats.grad_gram`` (about doubles the output layer's cost).
        template_options: variables of the chat template, such as ``{"enable_thinking": False}``.
        tensor_parallel_size, gpu_memory_utilization: of ``vllm``; the GPUs that the model is split over, and the
            share of their memory that it takes.

    Raises:
        InputError: when an argument is wrong, or ``raw`` is off and the model has no chat template.
        ModelError: when the model cannot be loaded, or is of a kind that would give wrong numbers.
        MissingExtraError: when the backend is not installed.
    """
    _check(dtype, max_length, raw, template_options)
    if batch_tokens < 1:
        raise InputError(f"batch_tokens is {batch_tokens}, expected at least 1")
    ref = resolve_model(model, embedded="policy")
    fingerprint = policy_fingerprint(
        model, raw=raw, dtype=dtype, max_length=max_length, output_gradients=output_gradients,
        template_options=template_options,
    )  # fmt: skip
    if backend == "vllm":
        from curation.models.policy.vllm_backend import open_vllm_policy

        return open_vllm_policy(
            ref, fingerprint=fingerprint, raw=raw, dtype=dtype, batch_tokens=batch_tokens,
            max_length=max_length, output_gradients=output_gradients, template_options=template_options,
            place=EngineOptions(tensor_parallel_size, gpu_memory_utilization),
        )  # fmt: skip
    from curation.models.policy.transformers_backend import TransformersPolicy, load_model, load_tokenizer

    return TransformersPolicy(
        load_model(ref, dtype=dtype), load_tokenizer(ref), fingerprint=fingerprint, raw=raw,
        max_length=max_length, batch_tokens=batch_tokens, output_gradients=output_gradients,
        template_options=template_options,
    )  # fmt: skip


def _check(dtype: str, max_length: int | None, raw: bool, template_options: Mapping[str, Any] | None) -> None:
    if dtype not in _DTYPES:
        raise InputError(f"dtype is {dtype!r}, expected one of {', '.join(_DTYPES)}")
    if max_length is not None and max_length < 2:
        raise InputError(f"max_length is {max_length}, expected at least 2")
    if raw and template_options:
        raise InputError("template_options are of no use with raw: no chat template is read")
    check_template_options(template_options)

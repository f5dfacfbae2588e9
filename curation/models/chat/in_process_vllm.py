"""Chat through vLLM, in this process: its scheduler is fed as room comes free, and gives each answer as it ends.

Prompts are rendered here, so that one that cannot be read is a fault of its own and not an exception in the
middle of a batch. Imports vLLM.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

from curation.errors import InputError, MissingExtraError
from curation.models.chat.protocol import ChatAnswer, ChatOptions, ChatReply, ChatRequest, TokenProbabilities
from curation.models.chat.request_body import request_seed
from curation.models.generator import end_tokens
from curation.models.identity import ModelRef, resolve_model
from curation.models.prompt_encoding import PromptEncoder
from curation.models.protocols import Fault
from curation.models.vllm_engine import EngineOptions, engine_alive, require_vllm, start_vllm
from curation.models.weights import LOADING_ERRORS

__all__ = ["VllmChat", "open_vllm_chat"]

_LOG = logging.getLogger(__name__)

_UNDER_WAY: Final = 512
"""Requests that vLLM has at once: twice what it runs at a time, so that it never waits for us."""
_WHAT_FITS: Final = -1
"""The model's own context, or as much of it as memory holds: else vLLM does not start where 128 k do not fit."""


class VllmChat:
    """See ``curation.models.chat.protocol.ChatModel``.

    Each request has a seed of its own, from the run's seed, the messages and the sample index. What other
    requests it is batched with can still move the last bits of the logits.
    """

    def __init__(
        self,
        engine: Any,
        prompts: PromptEncoder,
        options: ChatOptions,
        *,
        ends: list[int],
        lora: Any,
        fingerprint: str,
    ) -> None:
        self.fingerprint = fingerprint
        self._engine = engine
        self._prompts = prompts
        self._options = options
        self._ends = ends
        self._lora = lora

    def chat(self, requests: Iterable[ChatRequest]) -> Iterator[ChatReply]:
        """One reply for each request, when it is finished."""
        waiting = iter(requests)
        keys: dict[str, str] = {}
        more = True
        try:
            while more or keys:
                while more and len(keys) < _UNDER_WAY:
                    request = next(waiting, None)
                    if request is None:
                        more = False
                        break
                    ids = self._prompts.encode(request.messages)
                    if isinstance(ids, Fault):
                        yield ChatReply(request.key, ids)
                    else:
                        keys[self._add(ids, request)] = request.key
                for output in self._step() if keys else ():
                    key = keys.pop(_plain(output.request_id), None) if output.finished else None
                    if key is not None:
                        yield ChatReply(key, self._answer(output))
        finally:
            # An engine that has ended is not told, by vLLM itself.
            if keys:
                self._engine.llm_engine.abort_request(list(keys))

    def _step(self) -> Any:
        with engine_alive():
            return self._engine.llm_engine.step()

    def _add(self, ids: tuple[int, ...], request: ChatRequest) -> str:
        name: str
        with engine_alive():
            (name,) = self._engine.enqueue(
                [{"prompt_token_ids": list(ids)}], [self._parameters(request)], lora_request=self._lora,
                use_tqdm=False,
            )  # fmt: skip
        return _plain(name)

    def _parameters(self, request: ChatRequest) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import StructuredOutputsParams

        o = self._options
        schema = None if o.json_schema is None else StructuredOutputsParams(json=dict(o.json_schema))
        return SamplingParams(
            max_tokens=o.max_new_tokens,
            temperature=o.temperature,
            top_p=o.top_p,
            seed=request_seed(o.seed, request),
            logprobs=o.top_logprobs or None,
            stop_token_ids=self._ends,
            skip_special_tokens=False,
            structured_outputs=schema,
        )

    def _answer(self, output: Any) -> ChatAnswer | Fault:
        made = output.outputs[0]
        if made.finish_reason not in ("stop", "length"):
            return Fault("generation_failed", str(made.finish_reason), "vLLM gave the request up")
        # Structured output is all that there is: no thought goes before it.
        free = self._options.json_schema is None
        opened = self._prompts.opened_thought(output.prompt_token_ids) if free else ""
        return ChatAnswer(
            text=opened + made.text,
            finish_reason=made.finish_reason,
            prompt_tokens=len(output.prompt_token_ids),
            completion_tokens=len(made.token_ids),
            tokens=tuple(_token(i, found) for i, found in zip(made.token_ids, made.logprobs or (), strict=False)),
        )


def open_vllm_chat(model: str, options: ChatOptions, *, engine: EngineOptions, fingerprint: str) -> VllmChat:
    """Start vLLM with a model.

    Raises:
        InputError: when the model has no chat template, or ``lora`` is no adapter.
        MissingExtraError: when vLLM is not installed.
        ModelError: when vLLM cannot load the model.
    """
    ref = resolve_model(model, embedded="policy")
    lora, lora_engine = _adapter(options.lora)
    require_vllm()
    from transformers import AutoConfig

    from curation.models.policy.transformers_backend import cannot_load, load_tokenizer

    tokenizer = load_tokenizer(ref)
    if not tokenizer.chat_template:
        raise InputError(f"generator {model!r} has no chat template: give a chat model, or add a template to it")
    try:
        config = AutoConfig.from_pretrained(ref.location, revision=ref.commit, trust_remote_code=False)
    except LOADING_ERRORS as error:
        raise cannot_load(ref, "configuration", error) from error
    widths = {"dtype": options.dtype, "quantization": options.quantization}
    started = start_vllm(
        model,
        model=ref.location, revision=ref.commit, disable_log_stats=True, max_logprobs=max(options.top_logprobs, 1),
        enforce_eager=not _has_gpu(), **lora_engine, **{name: value for name, value in widths.items() if value},
        **({"max_model_len": _WHAT_FITS} | engine.given),
    )  # fmt: skip
    context = int(started.model_config.max_model_len)
    own = getattr(config.get_text_config(), "max_position_embeddings", None)
    if engine.max_model_len is None and own is not None and context < own:
        message = "generator %r: memory holds %d of its %d tokens of context; longer prompts are rejected"
        _LOG.warning(message, model, context, own)
    prompts = PromptEncoder(
        tokenizer,
        context=context,
        max_new_tokens=options.max_new_tokens,
        system_prompt=options.system_prompt,
        template_options=options.template_options,
    )
    ends = sorted(end_tokens(SimpleNamespace(config=config, generation_config=_generation_config(ref)), tokenizer))
    return VllmChat(started, prompts, options, ends=ends, lora=lora, fingerprint=fingerprint)


def _adapter(lora: str | None) -> tuple[Any, dict[str, Any]]:
    """vLLM's request for an adapter, and what the engine must be told before."""
    if lora is None:
        return None, {}
    ref = resolve_model(lora, embedded="policy")
    folder = Path(ref.location)
    if ref.kind == "hub":
        from huggingface_hub import snapshot_download

        folder = Path(snapshot_download(ref.location, revision=ref.commit))
    try:
        rank = int(json.loads((folder / "adapter_config.json").read_text())["r"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"lora {lora!r}: expected a folder with an adapter_config.json that has a rank r"
        ) from error
    try:
        from vllm.lora.request import LoRARequest
    except ImportError as error:
        raise MissingExtraError("vllm", "vllm") from error
    allowed = next((size for size in (8, 16, 32, 64, 128, 256, 320, 512) if size >= rank), rank)
    return LoRARequest(folder.name, 1, str(folder)), {"enable_lora": True, "max_lora_rank": allowed}


def _generation_config(ref: ModelRef) -> Any:
    from transformers import GenerationConfig

    try:
        return GenerationConfig.from_pretrained(ref.location, revision=ref.commit or "main")
    except OSError:
        return None


def _token(token_id: int, found: Any) -> TokenProbabilities:
    ordered = sorted(found.items(), key=lambda item: -item[1].logprob)
    return TokenProbabilities(
        str(found[token_id].decoded_token), tuple((str(p.decoded_token), float(p.logprob)) for _, p in ordered)
    )


def _plain(request_id: str) -> str:
    """vLLM adds a random part to a request's number inside the engine."""
    return str(request_id).partition("-")[0]


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()

"""The policy through vLLM: final states by ``token_embed`` pooling. Imports torch and vLLM.

vLLM returns the states of every token of a sequence and cannot reuse a cached prefix for that, so each answer
is read with its prompt: more token-forwards than ``packed``, at vLLM's throughput and on all its devices.
Log-probabilities are computed here, from the states and the output layer's matrix, which is read from the
model's files. Numbers equal those of the transformers backend up to rounding. Before any is believed, made-up
tokens are read, and what comes out is compared with what vLLM reports of them (``vllm_check``).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from curation.errors import InputError, ModelError
from curation.models.identity import ModelRef
from curation.models.policy.head import Head, make_head
from curation.models.policy.packing import IntArray
from curation.models.policy.rendering import Rendered, Renderer
from curation.models.policy.stats import PolicyStats
from curation.models.policy.summary import summarise
from curation.models.policy.transformers_backend import cannot_load, load_tokenizer, same_rope_up_to
from curation.models.policy.vllm_check import check_logps, made_up_sequences, reported_logps
from curation.models.protocols import Fault
from curation.models.vllm_engine import EngineOptions, engine_alive, require_vllm, start_vllm
from curation.models.weights import LOADING_ERRORS
from curation.text import Message

__all__ = ["VllmPolicy", "open_vllm_policy"]

_PROMPTS_AT_ONCE: Final = 64
_PROBED_CONTEXT: Final = 64
"""Tokens that a model without a limit of its own is taken to read, for the check."""
_OUTPUT_NAMES: Final = ("lm_head.weight", "embed_out.weight", "output.weight")
_INPUT_NAMES: Final = ("embed_tokens.weight", "embed_in.weight", "wte.weight", "word_embeddings.weight")


class VllmPolicy:
    """A causal language model of vLLM; see ``curation.models.policy.open_policy``.

    Attributes:
        forwarded: tokens that were given to vLLM so far.
    """

    method = "vllm"

    def __init__(
        self, engine: Any, renderer: Renderer, head: Head, *, fingerprint: str, raw: bool, output_gradients: bool
    ) -> None:
        self.fingerprint = fingerprint
        self.raw = raw
        self.hidden_size = int(head.weight.shape[1])
        self.forwarded = 0
        self._engine = engine
        self._renderer = renderer
        self._head = head
        self.output_gradients = output_gradients

    def stats(
        self, prompts: Sequence[Sequence[Message] | str], responses: Sequence[Sequence[str]]
    ) -> Iterator[PolicyStats | Fault]:
        """One entry per prompt, in order: statistics, or a Fault where the prompt cannot be used."""
        if len(prompts) != len(responses):
            raise InputError(f"found {len(prompts)} prompts and {len(responses)} lists of answers")
        for start in range(0, len(prompts), _PROMPTS_AT_ONCE):
            some = slice(start, start + _PROMPTS_AT_ONCE)
            rendered = self._renderer.render(prompts[some], responses[some])
            done = iter(self._run([group for group in rendered if not isinstance(group, Fault)]))
            for group in rendered:
                yield group if isinstance(group, Fault) else next(done)

    @torch.inference_mode()
    def _run(self, groups: list[Rendered]) -> list[PolicyStats]:
        sequences = [np.concatenate([g.prompt, answer[:-1]]) for g in groups for answer in g.answers]
        self.forwarded += sum(len(sequence) for sequence in sequences)
        starts = [len(g.prompt) - 1 for g in groups for _ in g.answers]
        pieces = [s[start:] for s, start in zip(_states(self._engine, sequences), starts, strict=True)]
        ends = np.cumsum([0, *(len(piece) for piece in pieces)]).tolist()
        spans = iter(torch.arange(a, b) for a, b in pairwise(ends))
        where = [[next(spans) for _ in g.answers] for g in groups]
        states = torch.cat(pieces) if pieces else torch.empty(0, self.hidden_size)
        return summarise(groups, states, where, self._head, output_gradients=self.output_gradients)


def _states(engine: Any, sequences: Sequence[IntArray]) -> list[torch.Tensor]:
    """Per sequence of token ids, the final state of each token."""
    from vllm import PoolingParams

    if not sequences:
        return []
    with engine_alive():
        outputs = engine.encode(
            [{"prompt_token_ids": sequence.tolist()} for sequence in sequences],
            PoolingParams(task="token_embed", use_activation=False), pooling_task="token_embed", use_tqdm=False,
        )  # fmt: skip
    return [output.outputs.data for output in outputs]


def open_vllm_policy(
    ref: ModelRef,
    *,
    fingerprint: str,
    raw: bool,
    dtype: str,
    batch_tokens: int,
    max_length: int | None,
    output_gradients: bool,
    template_options: Mapping[str, Any] | None,
    place: EngineOptions,
) -> VllmPolicy:
    """Start vLLM with a policy.

    Raises:
        InputError: when vLLM would turn short sequences otherwise than transformers does.
        MissingExtraError: when vLLM is not installed.
        ModelError: when the model's files cannot be read or hold no output layer, when vLLM cannot load it, or
            when what we make of its states is not what it reports itself.
    """
    require_vllm()
    from transformers import AutoConfig
    from vllm.config import PoolerConfig

    try:
        config = AutoConfig.from_pretrained(ref.location, revision=ref.commit, trust_remote_code=False)
    except LOADING_ERRORS as error:
        raise cannot_load(ref, "configuration", error) from error
    context = getattr(config.get_text_config(), "max_position_embeddings", None)
    limit = min((n for n in (context, max_length) if n is not None), default=None)
    _check_rope(ref, config, limit)
    tokenizer = load_tokenizer(ref)
    renderer = Renderer(tokenizer, raw=raw, max_length=limit, template_options=template_options)
    head = make_head(config, _output_weight(ref, config).to(getattr(torch, dtype)), None)
    longest = min((n for n in (limit, context and context - 1) if n is not None), default=_PROBED_CONTEXT)
    made_up = made_up_sequences(config.get_text_config().vocab_size, tokenizer.all_special_ids, longest=longest)
    reported = reported_logps(ref, made_up, dtype=dtype, place=place)
    engine = start_vllm(
        ref.given,
        model=ref.location, revision=ref.commit, runner="pooling", convert="embed", dtype=dtype,
        pooler_config=PoolerConfig(task="token_embed", tok_pooling_type="ALL", use_activation=False),
        max_model_len=limit, max_num_batched_tokens=max(batch_tokens, limit or 0),
        enable_prefix_caching=False, enforce_eager=not torch.cuda.is_available(), seed=0, **place.given,
    )  # fmt: skip
    check_logps(ref, made_up, _states(engine, made_up), reported, head, dtype=dtype)
    return VllmPolicy(engine, renderer, head, fingerprint=fingerprint, raw=raw, output_gradients=output_gradients)


def _check_rope(ref: ModelRef, config: Any, limit: int | None) -> None:
    """vLLM chooses rotary frequencies once, for the longest sequence that may come; transformers for each one."""
    same = same_rope_up_to(config.get_text_config())
    if same is not None and (limit is None or limit > same):
        raise InputError(
            f"policy {ref.given!r}: vLLM reads short sequences with the rotary frequencies of those beyond {same} "
            f"tokens, so that its numbers are others than transformers': set max_length to at most {same}, or take "
            f"backend transformers"
        )


def _output_weight(ref: ModelRef, config: Any) -> torch.Tensor:
    """The output layer's matrix from the model's safetensors: the input embeddings where they are tied."""
    from safetensors import safe_open

    folder = Path(ref.location) if ref.kind != "hub" else _download(ref)
    index = folder / "model.safetensors.index.json"
    single = folder / "model.safetensors"
    if not index.is_file() and not single.is_file():
        raise ModelError(f"policy {ref.given!r}: no model.safetensors among its files")
    if index.is_file():
        places = json.loads(index.read_text())["weight_map"]
    else:
        with safe_open(single, framework="pt") as file:
            places = dict.fromkeys(file.keys(), "model.safetensors")
    tied = bool(config.get_text_config().tie_word_embeddings)
    for wanted in (*_OUTPUT_NAMES, *(_INPUT_NAMES if tied else ())):
        for name, place in places.items():
            if name == wanted or name.endswith(f".{wanted}"):
                if name.removesuffix("weight") + "bias" in places:
                    raise ModelError(f"policy {ref.given!r}: vLLM cannot be used where the output layer has a bias")
                with safe_open(folder / place, framework="pt") as file:
                    tensor: torch.Tensor = file.get_tensor(name)
                    return tensor
    raise ModelError(f"policy {ref.given!r}: no output layer among its {len(places)} tensors; use transformers")


def _download(ref: ModelRef) -> Path:
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(ref.location, revision=ref.commit, allow_patterns=["*.safetensors", "*.json"]))

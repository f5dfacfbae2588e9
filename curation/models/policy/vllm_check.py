"""The check that vLLM's states and the output layer that we read give vLLM's own log-probabilities. Imports torch.

A pooling engine has no output layer, so a generating one of the same files is asked first, for a few made-up
tokens, and ended. What it says is compared with what we make of the states: an output layer that is tied where
we think it is not, a scale that the config names otherwise, or states from before the norm would show here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
import torch

from curation.errors import ModelError
from curation.lifetimes import ending_what_begins
from curation.models.identity import ModelRef
from curation.models.policy.head import Head, token_logps
from curation.models.policy.packing import IntArray
from curation.models.protocols import FloatArray
from curation.models.vllm_engine import EngineOptions, engine_alive, start_vllm

__all__ = ["check_logps", "made_up_sequences", "reported_logps"]

_LENGTH: Final = 24
_CACHE_BYTES: Final = 1 << 30
"""Room for the states of the made-up tokens; else vLLM would take all the memory that there is."""
_TOLERANCE: Final = {"float32": 1e-2, "bfloat16": 0.3}
"""Nats a token in the mean. bfloat16 alone is off by about a tenth, another scale or another layer by several."""

_LEAST_LENGTH: Final = 64
"""What vLLM warms its tokenizer up with has some thirty tokens, and it warns of a context that has not."""


def made_up_sequences(vocabulary: int, avoid: Iterable[int], *, longest: int) -> list[IntArray]:
    """Two sequences of token ids, none of which is special; of at most ``longest`` tokens."""
    allowed = np.setdiff1d(np.arange(min(vocabulary, 50_000)), np.fromiter(avoid, dtype=np.int64))
    length = min(_LENGTH, longest)
    return list(np.random.default_rng(0).choice(allowed, size=(2, length)).astype(np.int64))


def reported_logps(
    ref: ModelRef, sequences: Sequence[IntArray], *, dtype: str, place: EngineOptions
) -> list[FloatArray]:
    """What vLLM says of each token after the first, from an engine that is ended before this returns."""
    from vllm import SamplingParams

    with ending_what_begins(), engine_alive():
        engine = start_vllm(
            ref.given,
            model=ref.location, revision=ref.commit, runner="generate", dtype=dtype,
            max_model_len=max(_LEAST_LENGTH, max(map(len, sequences)) + 1), max_num_seqs=len(sequences),
            kv_cache_memory_bytes=_CACHE_BYTES, enable_prefix_caching=False, enforce_eager=True, seed=0,
            **place.given,
        )  # fmt: skip
        outputs = engine.generate(
            [{"prompt_token_ids": sequence.tolist()} for sequence in sequences],
            SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0, detokenize=False),
            use_tqdm=False,
        )
        found = [
            np.array([said[token].logprob for token, said in zip(ids, output.prompt_logprobs, strict=True) if said])
            for ids, output in zip((s.tolist() for s in sequences), outputs, strict=True)
        ]
        del engine, outputs
    return found


@torch.inference_mode()
def check_logps(
    ref: ModelRef,
    sequences: Sequence[IntArray],
    states: Sequence[torch.Tensor],
    reported: Sequence[FloatArray],
    head: Head,
    *,
    dtype: str,
) -> None:
    """Compare the log-probabilities of states under an output layer with those that vLLM reported.

    Args:
        sequences: token ids.
        states: per sequence, one final state a token.
        reported: per sequence, the log-probability of each token after the first.
        dtype: what the model was read in.

    Raises:
        ModelError: when they differ by more than rounding.
    """
    width = int(head.weight.shape[1])
    errors = []
    for ids, rows, theirs in zip(sequences, states, reported, strict=True):
        if rows.shape[1] != width:
            raise ModelError(
                f"policy {ref.given!r}: vLLM's states have {rows.shape[1]} numbers and its output layer {width}; "
                f"take backend transformers"
            )
        ours = token_logps(rows, torch.arange(len(ids) - 1), torch.from_numpy(ids[1:]), head).numpy()
        errors.append(np.abs(ours - theirs))
    error = float(np.concatenate(errors).mean())
    if not error <= _TOLERANCE[dtype]:
        raise ModelError(
            f"policy {ref.given!r}: its states and output layer give log-probabilities that differ from those that "
            f"vLLM reports by {error:.2g} nats a token, expected at most {_TOLERANCE[dtype]:g}: its logits hold a "
            f"scale or a step that is not known here; take backend transformers"
        )

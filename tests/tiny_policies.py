"""Tiny random causal models of many architectures, a tokenizer for them, and the slow way of scoring.

Nothing here imports ``curation``: the oracle must not share code with what it judges.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

VOCAB = 300
CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
_SMALL = {
    "vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
    "initializer_range": 0.2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
_NO_GROUPS = {key: value for key, value in _SMALL.items() if key != "num_key_value_heads"}
_OPT = {
    "vocab_size": VOCAB, "hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "max_position_embeddings": 256, "init_std": 0.2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip

ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", _SMALL | {"tie_word_embeddings": True}),
    "qwen2": ("Qwen2Config", _SMALL),
    "qwen3": ("Qwen3Config", _SMALL | {"head_dim": 8}),
    "phi3": ("Phi3Config", _SMALL),
    "opt": ("OPTConfig", _OPT | {"word_embed_proj_dim": 32}),
    "opt_350m": ("OPTConfig", _OPT | {"word_embed_proj_dim": 16, "do_layer_norm_before": False}),
    "gemma3": (
        "Gemma3TextConfig",
        _SMALL | {"head_dim": 8, "sliding_window": 6, "final_logit_softcapping": 4.0,
                  "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
    ),
    "gemma2": (
        "Gemma2Config",
        _SMALL | {"head_dim": 8, "sliding_window": 6, "final_logit_softcapping": 4.0,
                  "attn_logit_softcapping": 2.0, "query_pre_attn_scalar": 8},
    ),
    "mistral": ("MistralConfig", _SMALL | {"sliding_window": 7}),
    "gpt_neox": ("GPTNeoXConfig", _NO_GROUPS),
    "olmo": ("OlmoConfig", _SMALL | {"clip_qkv": 1.0}),
    "olmo2": ("Olmo2Config", _SMALL),
    "granite": ("GraniteConfig", _SMALL | {"logits_scaling": 3.0, "embedding_multiplier": 2.0}),
    "cohere": ("CohereConfig", _SMALL | {"logit_scale": 0.25}),
    "gpt2": ("GPT2Config", {"vocab_size": VOCAB, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 256,
                            "initializer_range": 0.2, "bos_token_id": 1, "eos_token_id": 2}),
    "phi": ("PhiConfig", _SMALL),
    "gpt_oss": (
        "GptOssConfig",
        _SMALL | {"head_dim": 8, "sliding_window": 6, "num_local_experts": 4, "num_experts_per_tok": 2,
                  "num_hidden_layers": 2, "layer_types": ["sliding_attention", "full_attention"],
                  "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}},
    ),
    "qwen3_moe": (
        "Qwen3MoeConfig",
        _SMALL | {"head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24},
    ),
    "bloom": ("BloomConfig", {"vocab_size": VOCAB, "hidden_size": 32, "n_layer": 3, "n_head": 4,
                              "initializer_range": 0.2}),
    "mamba": ("MambaConfig", {"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4,
                              "initializer_range": 0.2}),
    "phi3_longrope": (
        "Phi3Config",
        _SMALL | {"original_max_position_embeddings": 24, "max_position_embeddings": 256, "rope_parameters": {
            "rope_type": "longrope", "rope_theta": 10000.0, "factor": 10.0,
            "short_factor": [1.0, 1.0, 1.0, 1.0], "long_factor": [2.0, 3.0, 5.0, 8.0],
            "original_max_position_embeddings": 24}},
    ),
}  # fmt: skip


def tiny_model(architecture: str, *, seed: int = 0, **changes: Any) -> Any:
    """A random float32 model in evaluation mode, whose norms and biases are random as well."""
    name, options = ARCHITECTURES[architecture]
    config = getattr(transformers, name)(**(options | changes))
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.2 * torch.randn(parameter.shape))
    if architecture == "gemma2":
        # The default implementation of attention leaves the soft cap out.
        model.set_attn_implementation("eager")
    return model.eval()


def tiny_tokenizer(*, chat_template: str | None = CHAT_TEMPLATE, pad: bool = True) -> Any:
    """A byte-level BPE tokenizer that drops a character of private use, so that some texts have no tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Replace("\ue000", "")
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<pad>", "<s>", "</s>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator(["the cat sat on the mat and then the other cat sat on it"] * 8, trainer)
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>" if pad else None,
        additional_special_tokens=special[3:],
    )  # fmt: skip
    fast.chat_template = chat_template
    return fast


def save_policy(folder: Path, architecture: str, **changes: Any) -> Path:
    """A model folder as ``from_pretrained`` reads it."""
    tiny_model(architecture, **changes).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def slow_sums(model: Any, prompt: Sequence[int], answers: Sequence[Sequence[int]]) -> tuple[Any, Any, Any]:
    """(k, d) summed states, (k, d) last states, (k,) summed log-probabilities, from the definition."""
    sums, lasts, logps = [], [], []
    for answer in answers:
        ids = torch.tensor([[*prompt, *answer]])
        with torch.no_grad():
            states = model.base_model(ids, use_cache=False).last_hidden_state[0]
            logits = model(ids, use_cache=False).logits[0].double()
        total = np.zeros(states.shape[1])
        logp = 0.0
        for step, token in enumerate(answer):
            at = len(prompt) - 1 + step
            total += states[at].double().numpy()
            logp += float(torch.log_softmax(logits[at], 0)[token])
        sums.append(total)
        lasts.append(states[len(prompt) + len(answer) - 2].double().numpy())
        logps.append(logp)
    return np.stack(sums), np.stack(lasts), np.array(logps)

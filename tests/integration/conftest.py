"""What the tests of this folder share: one ``vllm serve``, and a LoRA adapter for it.

Each start of vLLM takes most of a minute on two cores.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from curation.models.identity import resolve_model
from tests.integration.vllm_server import vllm_serve


@pytest.fixture(scope="package")
def lora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter of the bundled policy that is far from nothing, as peft writes one."""
    import torch
    from safetensors.torch import save_file

    policy = Path(resolve_model("embedded", embedded="policy").location)
    config = json.loads((policy / "config.json").read_text())
    generator = torch.Generator().manual_seed(0)
    hidden, rank = config["hidden_size"], 4
    width = config["num_attention_heads"] * config.get("head_dim", hidden // config["num_attention_heads"])
    tensors = {}
    for layer in range(config["num_hidden_layers"]):
        name = f"base_model.model.model.layers.{layer}.self_attn.q_proj"
        tensors[f"{name}.lora_A.weight"] = torch.randn(rank, hidden, generator=generator)
        tensors[f"{name}.lora_B.weight"] = torch.randn(width, rank, generator=generator)
    folder = tmp_path_factory.mktemp("adapters") / "louder"
    folder.mkdir()
    save_file(tensors, str(folder / "adapter_model.safetensors"))
    adapter = {"peft_type": "LORA", "r": rank, "lora_alpha": 8, "target_modules": ["q_proj"], "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(adapter | {"base_model_name_or_path": str(policy)}))
    return folder


@pytest.fixture(scope="package")
def server(lora: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """``vllm serve`` with the bundled policy and an adapter; the policy's address."""
    folder = resolve_model("embedded", embedded="policy").location
    log = tmp_path_factory.mktemp("vllm") / "log"
    options = ("--max-num-seqs", "32", "--max-model-len", "1024", "--enable-lora", "--max-lora-rank", "8")
    # A model as small as this one writes blanks between brackets until its tokens are used up.
    options += ("--structured-outputs-config", '{"backend": "xgrammar", "disable_any_whitespace": true}')
    with vllm_serve(folder, *options, "--lora-modules", f"louder={lora}", log=log, name="policy") as root:
        yield f"{root}/v1#policy"

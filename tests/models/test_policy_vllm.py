"""The vLLM backend: equal numbers where vLLM is installed, a clear message where it is not."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig

from curation.errors import MissingExtraError, ModelError
from curation.models.identity import ModelRef
from curation.models.policy import PolicyStats, open_policy
from curation.models.policy.vllm_backend import _output_weight
from tests.tiny_policies import save_policy, tiny_model

HAS_VLLM = importlib.util.find_spec("vllm") is not None
PROMPTS = ["the cat sat on the mat. " * 3, "where is the other cat?"]
ANSWERS = [["on the mat", "on the other mat", "x"], ["the mat", ""]]
WIDE = {"hidden_size": 128, "head_dim": 32}


def test_missing_vllm_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(MissingExtraError, match=r"preference-curation\[vllm\]"):
        open_policy(str(save_policy(tmp_path, "llama")), backend="vllm")


@pytest.mark.slow
@pytest.mark.skipif(not HAS_VLLM, reason="vLLM is not installed")
@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
def test_vllm_equals_transformers(tmp_path: Path, architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    folder = str(save_policy(tmp_path, architecture, **WIDE))
    ours = open_policy(folder).stats(PROMPTS, ANSWERS)
    theirs = open_policy(folder, backend="vllm").stats(PROMPTS, ANSWERS)
    for a, b in zip(ours, theirs, strict=True):
        assert isinstance(a, PolicyStats)
        assert isinstance(b, PolicyStats)
        assert np.allclose(a.gram, b.gram, rtol=1e-4, equal_nan=True)
        assert np.allclose(a.logps, b.logps, atol=1e-3, equal_nan=True)
        assert a.faults == b.faults


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gpt_neox", "gpt2", "gemma3"])
def test_output_layer_is_found_in_the_files(tmp_path: Path, architecture: str) -> None:
    folder = save_policy(tmp_path, architecture)
    found = _output_weight(ModelRef("x", "folder", str(folder)), AutoConfig.from_pretrained(folder))
    assert torch.equal(found, tiny_model(architecture).get_output_embeddings().weight)


def test_output_layer_with_a_bias_is_refused(tmp_path: Path) -> None:
    folder = save_policy(tmp_path, "phi")
    with pytest.raises(ModelError, match="bias"):
        _output_weight(ModelRef("x", "folder", str(folder)), AutoConfig.from_pretrained(folder))

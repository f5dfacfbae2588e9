"""The vLLM backend: equal numbers where vLLM is installed, a clear message where it is not."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig

from curation.errors import InputError, MissingExtraError, ModelError
from curation.models.identity import ModelRef
from curation.models.policy import PolicyStats, open_policy
from curation.models.policy.vllm_backend import _check_rope, _output_weight
from tests.tiny_policies import save_policy, tiny_model

ROOT = Path(__file__).resolve().parents[2]
HAS_VLLM = importlib.util.find_spec("vllm") is not None
PROMPTS = ["the cat sat on the mat. " * 3, "where is the other cat?"]
ANSWERS = [["on the mat", "on the other mat", "x"], ["the mat", ""]]
WIDE = {"hidden_size": 128, "head_dim": 32}


def test_missing_vllm_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(MissingExtraError, match=r"preference-curation\[vllm\]"):
        open_policy(str(save_policy(tmp_path, "llama")), backend="vllm")


STATS = """
import json, sys
import numpy as np
from curation.models.policy import open_policy
from tests.models.test_policy_vllm import ANSWERS, PROMPTS
if __name__ == "__main__":
    for folder in sys.argv[1:]:
        found = list(open_policy(folder, backend="vllm").stats(PROMPTS, ANSWERS))
        np.savez(f"{folder}/found.npz", **{f"{n} {i}": getattr(s, n) for i, s in enumerate(found) for n in NUMBERS})
        print("FAULTS" + json.dumps([[[i, f.rule] for i, f in sorted(s.faults.items())] for s in found]))
""".replace("NUMBERS", "('gram', 'logps')")


@pytest.mark.slow
@pytest.mark.skipif(not HAS_VLLM, reason="vLLM is not installed")
def test_vllm_equals_transformers(tmp_path: Path) -> None:
    """In a process of its own: vLLM's engine, its warnings and its settings end with it."""
    folders = [str(save_policy(tmp_path / name, name, **WIDE)) for name in ("llama", "qwen3")]
    environment = os.environ | {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    script = tmp_path / "script.py"
    script.write_text(STATS)
    done = subprocess.run(
        [sys.executable, str(script), *folders], cwd=ROOT, env=environment, capture_output=True, text=True,
        check=False, timeout=1200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    said = [json.loads(line[6:]) for line in done.stdout.splitlines() if line.startswith("FAULTS")]
    for folder, faults in zip(folders, said, strict=True):
        theirs = np.load(f"{folder}/found.npz")
        for i, ours in enumerate(open_policy(folder).stats(PROMPTS, ANSWERS)):
            assert isinstance(ours, PolicyStats)
            assert np.allclose(ours.gram, theirs[f"gram {i}"], rtol=1e-4, equal_nan=True)
            assert np.allclose(ours.logps, theirs[f"logps {i}"], atol=1e-3, equal_nan=True)
            assert [[place, fault.rule] for place, fault in sorted(ours.faults.items())] == faults[i]


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gpt_neox", "gpt2", "gemma3"])
def test_output_layer_is_found_in_the_files(tmp_path: Path, architecture: str) -> None:
    folder = save_policy(tmp_path, architecture)
    found = _output_weight(ModelRef("x", "folder", str(folder)), AutoConfig.from_pretrained(folder))
    assert torch.equal(found, tiny_model(architecture).get_output_embeddings().weight)


def test_frequencies_that_vllm_would_take_for_all_lengths_are_refused(tmp_path: Path) -> None:
    """vLLM decides by the longest sequence that may come whether "longrope" is on; transformers by each one."""
    ref = ModelRef("x", "folder", str(save_policy(tmp_path, "phi3_longrope")))
    config = AutoConfig.from_pretrained(tmp_path)
    with pytest.raises(InputError, match="max_length to at most 24"):
        _check_rope(ref, config, 256)
    _check_rope(ref, config, 24)


def test_output_layer_with_a_bias_is_refused(tmp_path: Path) -> None:
    folder = save_policy(tmp_path, "phi")
    with pytest.raises(ModelError, match="bias"):
        _output_weight(ModelRef("x", "folder", str(folder)), AutoConfig.from_pretrained(folder))

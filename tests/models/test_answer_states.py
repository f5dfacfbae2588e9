"""A language model's states of answers, against plain transformers."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from curation.errors import InputError
from curation.models.answer_states import answer_states_fingerprint, open_answer_states
from curation.models.identity import EMBEDDED_DIR
from curation.models.protocols import AnswerReader
from curation.text import Message

PROMPTS: list[list[Message]] = [
    [{"role": "user", "content": "Name a river."}],
    [
        {"role": "user", "content": "Hello!"},
        {"role": "assistant", "content": "Hello, what can I do?"},
        {"role": "user", "content": "Tell me about the sea — \u6d77."},
    ],
    [{"role": "user", "content": "Name a river."}],
]
ANSWERS = ["The Danube.", "It is deep, and its water is salt. " * 5, "I do not know any \U0001f30a"]


@pytest.fixture(scope="module")
def reader() -> AnswerReader:
    return open_answer_states("embedded")


def test_the_states_are_those_of_the_model_that_reads_the_whole_dialogue(reader: AnswerReader) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = EMBEDDED_DIR / "policy"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
    layers = model.config.num_hidden_layers
    found = reader.states(PROMPTS, ANSWERS)
    assert found.faults == {}
    for row, (prompt, answer) in enumerate(zip(PROMPTS, ANSWERS, strict=True)):
        start = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=False)
        whole = tokenizer.apply_chat_template([*prompt, {"role": "assistant", "content": answer}], tokenize=False)
        first = len(tokenizer(start, add_special_tokens=False)["input_ids"])
        ids = torch.tensor([tokenizer(whole, add_special_tokens=False)["input_ids"]])
        with torch.no_grad():
            states = model(ids, output_hidden_states=True).hidden_states
        end, mean = states[round(0.4 * layers)][0, -1], states[round(0.8 * layers)][0, first:]
        np.testing.assert_allclose(found.end[row], end.float().numpy(), rtol=1e-6)
        np.testing.assert_allclose(found.mean[row], mean.float().mean(dim=0).numpy(), rtol=1e-5, atol=1e-6)


def test_neighbours_and_order_change_nothing(reader: AnswerReader) -> None:
    together = reader.states(PROMPTS, ANSWERS)
    turned = reader.states(PROMPTS[::-1], ANSWERS[::-1])
    alone = reader.states(PROMPTS[1:2], ANSWERS[1:2])
    for name in ("end", "mean"):
        np.testing.assert_array_equal(getattr(together, name), getattr(turned, name)[::-1])
        np.testing.assert_array_equal(getattr(together, name)[1:2], getattr(alone, name))


def test_what_cannot_be_read_has_a_fault_and_no_numbers(reader: AnswerReader) -> None:
    answers = ["", "word " * 20_000, "\ud800", "Fine."]
    found = reader.states([PROMPTS[0]] * 4, answers)
    rules = {row: fault.rule for row, fault in found.faults.items()}
    assert rules == {0: "empty_response", 1: "context_overflow", 2: "invalid_unicode_response"}
    assert np.isnan(found.end[:3]).all()
    assert np.isnan(found.mean[:3]).all()
    assert np.isfinite(found.end[3]).all()
    assert np.isfinite(found.mean[3]).all()


def test_no_rows_give_no_states(reader: AnswerReader) -> None:
    found = reader.states([], [])
    assert found.end.shape == found.mean.shape
    assert len(found.end) == 0
    assert found.faults == {}


def test_a_model_without_a_chat_template_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "plain"
    shutil.copytree(EMBEDDED_DIR / "policy", folder)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    config = folder / "tokenizer_config.json"
    text = config.read_text()
    assert "chat_template" not in text
    with pytest.raises(InputError, match="no chat template"):
        open_answer_states(str(folder))


def test_the_fingerprint_loads_nothing_and_names_the_states() -> None:
    script = (
        "import sys; from curation.models.answer_states import answer_states_fingerprint as f; "
        "print(f('embedded')); sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == answer_states_fingerprint("embedded")
    assert done.stdout.strip().endswith("/bfloat16/states1")

"""Reward models as they lie on the Hub: tiny ones with the same architecture, config, head names and templates."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers.processors import TemplateProcessing

from curation.errors import InputError, ModelError
from curation.models.rewards import open_reward
from tests.tiny_policies import ARCHITECTURES, tiny_tokenizer

PROMPT = [{"role": "user", "content": "the cat"}]
SYSTEM = [{"role": "system", "content": "on the mat"}, *PROMPT]
ANSWERS = ["sat", "sat on the mat and then on the floor and then on the mat again", "on"]
LLAMA = (
    "{{ bos_token }}{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content | trim }}"
    "{{ '</s>' if m.role == 'assistant' else '<|end|>' }}{% endfor %}"
)
"""Ends an answer with the token that ends texts, as Mistral's and Llama 3's do."""
DATED = (
    "{%- if not date_string is defined %}{%- set date_string = strftime_now('%d %b %Y') %}{%- endif %}"
    "<|system|>Today Date: {{ date_string }}<|end|>" + LLAMA
)
"""As Llama 3.2's and 3.3's."""
GEMMA = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content | trim + '<|end|>\n' }}{% endfor %}"
)
NO_SYSTEM = "{% for m in messages if m.role != 'system' %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
NO_THOUGHT = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content.split('</think>')[-1].lstrip('\n') }}<|end|>{% endfor %}"
)
QWEN3 = (
    "{% for m in messages %}{% set c = m.content %}{% set t = '' %}{% if '</think>' in c %}"
    "{% set t = c.split('</think>')[0].split('<think>')[-1].strip('\n') %}{% set c = c.split('</think>')[-1] %}"
    "{% endif %}<|{{ m.role }}|>{% if m.role == 'assistant' %}<think>\n{{ t }}\n</think>\n\n{% endif %}"
    "{{ c.lstrip('\n') }}<|end|>\n{% endfor %}"
)


def saved(
    folder: Path, *, architecture: str = "llama", kind: str = "ForSequenceClassification",
    template: str | None = LLAMA, tokenizer: Any = None, **changes: Any,
) -> str:  # fmt: skip
    """A model with a random head as ``from_pretrained`` reads it."""
    name, options = ARCHITECTURES[architecture]
    config = getattr(transformers, name)(**(options | {"num_labels": 1, "initializer_range": 0.5} | changes))
    torch.manual_seed(0)
    network = getattr(transformers, name.removesuffix("TextConfig").removesuffix("Config") + kind)(config)
    network.save_pretrained(folder)
    (tokenizer or tiny_tokenizer(chat_template=template)).save_pretrained(folder)
    return str(folder)


def alone(folder: str, prompt: list[dict[str, str]], answers: list[str]) -> Any:
    """What the model's card would have one write: one dialogue at a time, without padding."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    build = transformers.AutoModelForSequenceClassification.from_pretrained
    network = build(folder, attn_implementation="eager").eval()
    found = []
    for answer in answers:
        text = tokenizer.apply_chat_template([*prompt, {"role": "assistant", "content": answer}], tokenize=False)
        ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
        with torch.no_grad():
            found.append(network(ids).logits[0].numpy())
    return np.array(found)


def no_padding() -> Any:
    return tiny_tokenizer(chat_template=LLAMA, pad=False)


def eos_padding() -> Any:
    tokenizer = tiny_tokenizer(chat_template=LLAMA)
    tokenizer.pad_token = "</s>"
    return tokenizer


@pytest.mark.parametrize(
    ("architecture", "tokenizer", "changes"),
    [
        ("llama", None, {}),
        ("llama", no_padding, {"pad_token_id": None}),
        ("llama", eos_padding, {"pad_token_id": None}),
        ("llama", eos_padding, {"pad_token_id": 2}),
        ("llama", eos_padding, {"pad_token_id": 0}),
        ("llama", no_padding, {"pad_token_id": -1}),
        ("llama", None, {"pad_token_id": 9}),
        ("qwen3", None, {}),
        ("mistral", no_padding, {"pad_token_id": None}),
        ("gpt_neox", eos_padding, {}),
        ("gemma2", None, {"attn_logit_softcapping": 0.5}),
    ],
)
def test_a_batch_has_the_rewards_of_each_dialogue_alone(
    tmp_path: Path, architecture: str, tokenizer: Any, changes: dict[str, Any]
) -> None:
    """Whatever pads, and whether it also ends the answer; Gemma 2's capped attention is not left out."""
    folder = saved(tmp_path, architecture=architecture, tokenizer=tokenizer and tokenizer(), **changes)
    model = open_reward(folder, device="cpu")
    for _ in range(2):
        np.testing.assert_allclose(model.score([PROMPT] * 3, ANSWERS), alone(folder, PROMPT, ANSWERS), atol=2e-5)
    reverse = model.score([PROMPT] * 3, ANSWERS[::-1])
    np.testing.assert_allclose(reverse[::-1], model.score([PROMPT] * 3, ANSWERS), atol=2e-5)


def renamed_head(folder: str, name: str, *, keep: bool = False) -> str:
    path = Path(folder) / "model.safetensors"
    weights = load_file(path)
    weights[name] = weights["score.weight"].clone()
    if not keep:
        del weights["score.weight"]
    save_file(weights, path, metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize(
    "head",
    ["v_head.weight", "regression_layer.weight", "regression_head.weight", "score_head.weight", "score.0.weight"],
)
def test_a_head_by_another_name_is_not_filled_with_random_numbers(tmp_path: Path, head: str) -> None:
    """Athene and Starling, ArmoRM and QRM, UltraRM and Eurus, Beaver, INF-ORM and Qwen2.5-Math-RM."""
    with pytest.raises(ModelError, match=r"score\.weight.*random"):
        open_reward(renamed_head(saved(tmp_path), head), device="cpu")


def test_a_part_that_transformers_would_leave_out_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"gating\.layers\.0\.weight.*no place"):
        open_reward(renamed_head(saved(tmp_path), "gating.layers.0.weight", keep=True), device="cpu")


@pytest.mark.parametrize("left", ["lm_head.weight", "mean"])
def test_what_only_training_needed_may_lie_beside(tmp_path: Path, left: str) -> None:
    folder = renamed_head(saved(tmp_path), left, keep=True)
    np.testing.assert_allclose(
        open_reward(folder, device="cpu").score([PROMPT], ["sat"]), alone(folder, PROMPT, ["sat"]), atol=2e-5
    )


def test_a_process_reward_model_is_refused(tmp_path: Path) -> None:
    """TRL's have a head of the same name: the weights fit, and what they say of the last token is of no answer."""
    with pytest.raises(ModelError, match=r"LlamaForTokenClassification.*process reward model"):
        open_reward(saved(tmp_path, kind="ForTokenClassification", num_labels=2), device="cpu")


def test_a_language_model_is_said_to_be_a_judge(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="LlamaForCausalLM that judges in words is asked as a judge"):
        open_reward(saved(tmp_path, kind="ForCausalLM"), device="cpu")


def without(folder: str, *keys: str) -> str:
    path = Path(folder) / "config.json"
    config = {key: value for key, value in json.loads(path.read_text()).items() if key not in keys}
    path.write_text(json.dumps(config))
    return folder


def test_one_score_is_read_where_the_config_does_not_count_labels(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    expected = alone(folder, PROMPT, ANSWERS)
    found = open_reward(without(folder, "id2label", "label2id"), device="cpu").score([PROMPT] * 3, ANSWERS)
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_weights_of_another_shape_and_torn_ones_are_one_line(tmp_path: Path) -> None:
    path = Path(saved(tmp_path)) / "config.json"
    config = path.read_text()
    path.write_text(config.replace('"num_hidden_layers": 3', '"num_hidden_layers": 3, "hidden_act": "no"'))
    with pytest.raises(ModelError, match="could not be loaded"):
        open_reward(str(tmp_path), device="cpu")
    path.write_text(json.dumps(json.loads(config) | {"id2label": {"0": "a", "1": "b", "2": "c"}}))
    with pytest.raises(ModelError, match=r"another shape.*labels config\.json"):
        open_reward(str(tmp_path), device="cpu")
    path.write_text(config)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="could not be loaded"):
        open_reward(str(tmp_path), device="cpu")


@pytest.mark.parametrize(
    ("template", "prompt", "answer", "rule"),
    [
        (GEMMA, SYSTEM, "sat", "template_refuses_dialogue"),
        (GEMMA, PROMPT, "sat", None),
        (NO_SYSTEM, SYSTEM, "sat", "template_drops_message"),
        (NO_SYSTEM, PROMPT, "sat", None),
        (NO_THOUGHT, PROMPT, "<think>the cat</think>sat", "template_drops_answer"),
        (NO_THOUGHT, PROMPT, "sat", None),
        (QWEN3, SYSTEM, "<think>the cat</think>sat", None),
        (QWEN3, PROMPT, "\n sat ", None),
        (LLAMA, PROMPT, "the cat " * 300, "context_overflow"),
    ],
)
def test_a_dialogue_that_is_not_read_whole_has_no_reward_and_says_why(
    tmp_path: Path, template: str, prompt: list[dict[str, str]], answer: str, rule: str | None
) -> None:
    model = open_reward(saved(tmp_path, template=template), device="cpu")
    found = model.score([PROMPT, prompt], ["on", answer])
    assert np.isfinite(found[:, 0]).tolist() == [True, rule is None]
    assert [fault and fault.rule for fault in model.faults] == [None, rule]  # type: ignore[attr-defined]


def test_a_template_that_writes_the_date_writes_the_same_one_each_day(tmp_path: Path) -> None:
    found = open_reward(saved(tmp_path / "a", template=DATED), device="cpu").score([PROMPT] * 3, ANSWERS)
    fixed = "{% set date_string = '26 Jul 2024' %}" + DATED.partition("{%- endif %}")[2]
    expected = open_reward(saved(tmp_path / "b", template=fixed), device="cpu").score([PROMPT] * 3, ANSWERS)
    np.testing.assert_array_equal(found, expected)


def test_a_language_model_without_a_template_is_an_error(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer(chat_template=None)
    with pytest.raises(ModelError, match=r"has no chat template.*LlamaForSequenceClassification"):
        open_reward(saved(tmp_path, tokenizer=tokenizer), device="cpu")


def pairing() -> Any:
    """A tokenizer of an encoder: two texts with a token between them, and no template."""
    tokenizer = tiny_tokenizer(chat_template=None)
    tokenizer._tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B:1 </s>:1", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    tokenizer.init_kwargs["model_input_names"] = tokenizer.model_input_names
    return tokenizer


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
def test_an_encoder_reads_prompt_and_answer_as_a_pair_and_the_whole_dialogue(tmp_path: Path) -> None:
    """As OpenAssistant's DeBERTa does."""
    tokenizer = pairing()
    config = transformers.DebertaV2Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_labels=1,
        num_attention_heads=4, type_vocab_size=2, max_position_embeddings=64, initializer_range=0.5,
    )  # fmt: skip
    torch.manual_seed(0)
    network = transformers.DebertaV2ForSequenceClassification(config).eval()
    network.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model = open_reward(str(tmp_path), device="cpu")
    whole = "system: on the mat\n\nuser: the cat"
    for prompt, text in ((PROMPT, "the cat"), (SYSTEM, whole)):
        found = model.score([prompt] * 3, ANSWERS)
        for answer, reward in zip(ANSWERS, found, strict=True):
            with torch.no_grad():
                expected = network(**tokenizer(text, answer, return_tensors="pt")).logits[0].numpy()
            np.testing.assert_allclose(reward, expected, atol=2e-5)


def test_two_labels_are_two_sides_of_one_question(tmp_path: Path) -> None:
    names = {"id2label": {0: "bad", 1: "good"}, "label2id": {"bad": 0, "good": 1}}
    folder = saved(tmp_path, num_labels=2, **names)
    with pytest.raises(InputError, match=r"labels bad, good.*attributes \{good: 1, bad: -1\}"):
        open_reward(folder, device="cpu")
    expected = alone(folder, PROMPT, ANSWERS)
    one = open_reward(folder, device="cpu", attributes={"good": 1, "bad": -1}).score([PROMPT] * 3, ANSWERS)
    np.testing.assert_allclose(one[:, 0], expected[:, 1] - expected[:, 0], atol=2e-5)


@pytest.mark.parametrize(
    ("labels", "problem", "rewards"),
    [(2, "regression", True), (2, None, False), (3, None, True), (3, "single_label_classification", False),
     (2, "multi_label_classification", True)],
)  # fmt: skip
def test_labels_that_exclude_each_other_must_be_named(
    tmp_path: Path, labels: int, problem: str | None, rewards: bool
) -> None:
    folder = saved(tmp_path, num_labels=labels, problem_type=problem)
    if rewards:
        assert open_reward(folder, device="cpu").score([PROMPT], ["sat"]).shape == (1, labels)
    else:
        with pytest.raises(InputError, match="name what counts"):
            open_reward(folder, device="cpu")


def test_a_cost_is_turned_round_by_its_weight(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    cost = open_reward(folder, device="cpu").score([PROMPT] * 3, ANSWERS)
    reward = open_reward(folder, device="cpu", attributes={"LABEL_0": -1}).score([PROMPT] * 3, ANSWERS)
    np.testing.assert_array_equal(reward, -cost)


@pytest.mark.parametrize("model", ["{}", "vllm:{}"])
def test_an_adapter_is_no_reward_model(tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside whole weights too: which of the two transformers reads depends on whether peft is installed."""
    monkeypatch.setattr("curation.models.rewards.vllm.require_vllm", lambda: None)
    folder = saved(tmp_path)
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "a/b", "r": 4}')
    with pytest.raises(InputError, match=r"holds an adapter .*merge it into its model"):
        open_reward(model.format(folder))

"""Policies as they are published: templates that open a thought, models that see, adapters, Mistral's files."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from curation.errors import InputError, ModelError
from curation.models.generator import end_tokens
from curation.models.identity import resolve_model
from curation.models.policy import open_policy
from curation.models.policy.answer_reader import open_reader
from curation.models.policy.rendering import Rendered, Renderer
from curation.models.policy.stats import PolicyStats
from curation.models.policy.transformers_backend import load_model, load_tokenizer
from curation.models.rewards.classifier_inputs import load_classifier_tokenizer
from curation.models.template_options import template_variables
from tests.tiny_policies import ARCHITECTURES, CHAT_TEMPLATE, save_policy, tiny_model, tiny_tokenizer

_TURNS = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{% set c = m['content'] %}{% if m['role'] == 'assistant' %}WRITTEN"
    "{% else %}{{ c }}{% endif %}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n<think>\n{% endif %}"
)
EMPTY_THOUGHT = _TURNS.replace("WRITTEN", "{{ c if '</think>' in c else '<think>\n\n</think>\n\n' + c }}")
"""As Qwen3.5's and later: an answer without a thought gets an empty one."""
NO_THOUGHT = _TURNS.replace("WRITTEN", "{{ c.split('</think>')[-1] }}")
"""As DeepSeek-R1's: an answer's turn has no thought at all."""


def rendered(template: str, answers: list[str], prompt: str = "the cat?") -> tuple[Rendered, Any]:
    tokenizer = tiny_tokenizer(chat_template=template)
    found = Renderer(tokenizer, raw=False, max_length=None).render([prompt], [answers])[0]
    assert isinstance(found, Rendered)
    return found, tokenizer


@pytest.mark.parametrize(
    ("template", "written"),
    [(EMPTY_THOUGHT, "<think>\n\n</think>\n\non the mat<|end|>\n"), (NO_THOUGHT, "on the mat<|end|>\n")],
)
def test_a_thought_that_the_template_opens_is_the_answers(template: str, written: str) -> None:
    found, tokenizer = rendered(template, ["on the mat"])
    assert found.faults == {}
    assert tokenizer.decode(found.prompt) == "<|user|>\nthe cat?<|end|>\n<|assistant|>\n"
    assert tokenizer.decode(found.answers[0]) == written


def test_an_answer_with_its_thought_has_the_same_prompt_as_one_without() -> None:
    thought = "<think>\nit sat\n</think>\n\non the mat"
    found, tokenizer = rendered(EMPTY_THOUGHT, [thought, "no"])
    assert tokenizer.decode(found.answers[0]) == thought + "<|end|>\n"
    cut, _ = rendered(NO_THOUGHT, [thought, "no"])
    assert [(i, fault.rule) for i, fault in cut.faults.items()] == [(0, "template_drops_answer")]


def test_a_user_who_writes_the_marker_last_keeps_it() -> None:
    template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    found, tokenizer = rendered(template, ["no"], prompt="what is <think>")
    assert tokenizer.decode(found.prompt) == "what is <think>"


_TRL = find_spec("trl")
_PUBLISHED = sorted(Path(str(_TRL.origin)).parent.glob("chat_templates/*.jinja")) if _TRL else []
_TEXT_ONLY = [p for p in _PUBLISHED if not p.stem.startswith(("idefics", "llava", "smolvlm"))]


@pytest.mark.parametrize("path", _TEXT_ONLY, ids=lambda path: path.stem)
def test_published_templates_hold_an_answer_and_nothing_of_the_prompt(path: Path) -> None:
    """Those of the models that TRL trains, word for word."""
    found, tokenizer = rendered(path.read_text(), ["on the mat", "no"])
    assert found.faults == {}
    for answer, ids in zip(["on the mat", "no"], found.answers, strict=True):
        text = tokenizer.decode(ids)
        assert answer in text
        assert "the cat?" not in text
    turns = [{"role": "user", "content": "the cat?"}, {"role": "assistant", "content": "on the mat"}]
    whole = tokenizer.apply_chat_template(turns, return_dict=False, **template_variables(tokenizer))
    assert [*found.prompt, *found.answers[0]] == whole


def test_an_end_of_turn_that_is_special_by_its_mark_alone_ends_an_answer() -> None:
    tokenizer = tiny_tokenizer(chat_template=CHAT_TEMPLATE.replace("<|end|>", "<|stop|>"))
    tokenizer.add_tokens([transformers.AddedToken("<|stop|>", special=True)])
    stop = tokenizer.convert_tokens_to_ids("<|stop|>")
    assert stop not in tokenizer.all_special_ids
    assert stop in end_tokens(tiny_model("llama"), tokenizer)


_TEXT = {key: value for key, value in ARCHITECTURES["mistral"][1].items() if key != "sliding_window"}
_EYES = {
    "model_type": "pixtral", "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
    "num_attention_heads": 2, "image_size": 28, "patch_size": 14,
}  # fmt: skip


def _mistral3() -> Any:
    text = {"model_type": "mistral", "head_dim": 8} | _TEXT
    config = transformers.Mistral3Config(text_config=text, vision_config=_EYES)
    return transformers.Mistral3ForConditionalGeneration(config)


def _llama4() -> Any:
    layers = ["chunked_attention", "chunked_attention", "full_attention"]
    more = {"head_dim": 8, "num_local_experts": 2, "intermediate_size_mlp": 32, "attention_chunk_size": 8}
    config = transformers.Llama4TextConfig(**_TEXT, **more, no_rope_layers=[1, 1, 0], layer_types=layers)
    return transformers.Llama4ForCausalLM(config)


@pytest.mark.parametrize("make", [_mistral3, _llama4])
def test_models_with_a_part_that_sees_are_read(tmp_path: Path, make: Any) -> None:
    torch.manual_seed(0)
    model = make().float().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.2)
    model.save_pretrained(tmp_path)
    tokenizer = tiny_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    found = next(open_policy(str(tmp_path)).stats(["the cat"], [["on the mat", "no"]]))
    assert isinstance(found, PolicyStats)
    turns = [{"role": "user", "content": "the cat"}]
    start = len(tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False))
    turns.append({"role": "assistant", "content": "on the mat"})
    ids = tokenizer.apply_chat_template(turns, return_dict=False)
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(1)
    expected = sum(float(logits[i - 1, ids[i]]) for i in range(start, len(ids)))
    np.testing.assert_allclose(found.logps[0], expected, rtol=1e-5)


def test_a_cap_of_attention_scores_holds_for_whoever_loads_the_model(tmp_path: Path) -> None:
    """transformers' default attention leaves it out, and policy, sampler and label noise would read otherwise."""
    model, tokenizer = tiny_model("gemma2"), tiny_tokenizer()
    ref = resolve_model(str(save_policy(tmp_path, "gemma2")), embedded="policy")
    turns = [{"role": "user", "content": "the cat"}, {"role": "assistant", "content": "on the mat"}]
    ids = torch.tensor([tokenizer.apply_chat_template(turns, return_dict=False)])
    plain = tiny_model("gemma2")
    plain.set_attn_implementation("sdpa")
    with torch.no_grad():
        states = model(ids, output_hidden_states=True).hidden_states
        assert (plain(ids, output_hidden_states=True).hidden_states[2] - states[2]).abs().max() > 1e-2
        assert (load_model(ref, dtype="float32")(ids).logits - model(ids).logits).abs().max() < 1e-5
    read = open_reader(ref, dtype="float32", fingerprint="").states([turns[:1]], ["on the mat"])
    np.testing.assert_allclose(read.end[0], states[1][0, -1].numpy(), atol=1e-5)


def test_an_adapter_is_no_policy(tmp_path: Path) -> None:
    """With peft and without, transformers would read other weights, under one key."""
    folder = save_policy(tmp_path, "llama")
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "a/b", "r": 4}')
    with pytest.raises(InputError, match=r"holds an adapter .*merge it into its model"):
        open_policy(str(folder))


def test_a_package_that_a_quantised_model_needs_is_named(tmp_path: Path) -> None:
    tiny_tokenizer().save_pretrained(tmp_path)
    model = tiny_model("llama")
    model.config.quantization_config = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    model.save_pretrained(tmp_path)
    if find_spec("bitsandbytes") is not None:
        pytest.skip("bitsandbytes is installed")
    with pytest.raises(ModelError, match=r"its weights cannot be loaded: .*bitsandbytes"):
        open_policy(str(tmp_path))


@pytest.mark.skipif(find_spec("mistral_common") is None, reason="mistral-common is not installed")
@pytest.mark.parametrize("load", [load_tokenizer, load_classifier_tokenizer])
def test_a_mistral_model_keeps_its_template_where_mistral_common_is_installed(tmp_path: Path, load: Any) -> None:
    import mistral_common

    folder = save_policy(tmp_path, "mistral")
    data = Path(str(mistral_common.__file__)).parent / "data" / "tekken_240911.json"
    (folder / "tekken.json").symlink_to(data)
    assert load(resolve_model(str(folder), embedded="policy")).chat_template == CHAT_TEMPLATE

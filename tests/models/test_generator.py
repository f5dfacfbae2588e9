"""Sampling through transformers against a loop without a cache, one prompt at a time."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
import torch

from curation.candidates.checks import check_answers
from curation.errors import InputError, ModelError
from curation.models.chat.in_process_vllm import VllmChat
from curation.models.chat.protocol import ChatAnswer, ChatOptions
from curation.models.generator import TransformersGenerator, _Sampling, generator_fingerprint, open_generator
from curation.models.prompt_encoding import PromptEncoder
from curation.models.protocols import Fault, Generation
from curation.models.sampling import draw, rng_for
from curation.text import Message
from tests.tiny_policies import ARCHITECTURES, CHAT_TEMPLATE, save_policy, tiny_model, tiny_tokenizer

PROMPTS = ["the cat", "where is the other cat? " * 4, "on the mat, and then?", "x"]
DEFAULTS = {"max_new_tokens": 12, "temperature": 1.0, "top_p": 0.9, "seed": 5}
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHAT_TEMPLATE
DROPS_SYSTEM = CHAT_TEMPLATE.replace("{% for m in messages %}", "{% for m in messages if m['role'] != 'system' %}")


def ask(text: str, system: str | None = None) -> list[Message]:
    before = [] if system is None else [{"role": "system", "content": system}]
    return [*before, {"role": "user", "content": text}]


def generator(model: Any = None, tokenizer: Any = None, **options: Any) -> TransformersGenerator:
    batch_tokens = options.pop("batch_tokens", 4096)
    sampling = _Sampling(**({"system_prompt": None, "template_options": None} | DEFAULTS | options))
    return TransformersGenerator(
        tiny_model("llama") if model is None else model,
        tiny_tokenizer() if tokenizer is None else tokenizer,
        sampling,
        fingerprint="test",
        batch_tokens=batch_tokens,
    )


def answers(found: list[Generation | Fault]) -> list[Generation]:
    assert all(isinstance(answer, Generation) for answer in found)
    return [answer for answer in found if isinstance(answer, Generation)]


def slow_answer(model: Any, tokenizer: Any, prompt: list[Message], sample_index: int) -> str:
    """From the definition: no cache, no batch, no padding, one forward pass of everything per token."""
    ids = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=False)
    rng = rng_for(DEFAULTS["seed"], ids, sample_index)
    made: list[int] = []
    while len(made) < DEFAULTS["max_new_tokens"]:
        with torch.no_grad():
            logits = model(torch.tensor([[*ids, *made]]), use_cache=False).logits[0, -1].double()
        probability = torch.softmax(logits / DEFAULTS["temperature"], 0)
        waits = torch.empty_like(probability).exponential_(generator=rng)
        nucleus, mass = [], 0.0
        for token in probability.argsort(descending=True, stable=True).tolist():
            if mass >= DEFAULTS["top_p"]:
                break
            nucleus.append(token)
            mass += float(probability[token])
        token = max(nucleus, key=lambda t: float(probability[t] / waits[t]))
        if token in {tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|end|>")}:
            break
        made.append(token)
    return str(tokenizer.decode(made, skip_special_tokens=False))


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES.keys() - {"mamba"}))
def test_a_padded_batch_gives_what_the_definition_gives(architecture: str) -> None:
    model, tokenizer = tiny_model(architecture), tiny_tokenizer()
    prompts = [ask(text) for text in PROMPTS for _ in range(2)]
    indices = [0, 1] * len(PROMPTS)
    found = answers(generator(model, tokenizer).generate(prompts, indices))
    assert [a.text for a in found] == [
        slow_answer(model, tokenizer, prompt, index) for prompt, index in zip(prompts, indices, strict=True)
    ]


def test_neighbours_and_order_do_not_change_an_answer() -> None:
    together = generator()
    requests = [(ask(f"{text} {n}"), index) for text in PROMPTS for n in range(5) for index in range(3)]
    first = together.generate([p for p, _ in requests], [i for _, i in requests])
    order = list(range(len(requests)))
    random.Random(1).shuffle(order)
    small = generator(batch_tokens=150)
    shuffled = small.generate([requests[i][0] for i in order], [requests[i][1] for i in order])
    assert [first[i] for i in order] == shuffled
    alone = [together.generate([prompt], [index])[0] for prompt, index in requests[:12]]
    assert alone == first[:12]


def test_one_request_twice_gets_one_answer_and_other_indices_get_others() -> None:
    found = answers(generator().generate([ask("the cat")] * 9, [0, *range(8)]))
    assert found[0] == found[1]
    assert len({answer.text for answer in found}) == 8


def test_another_seed_gives_another_answer() -> None:
    one, two = (answers(generator(seed=s).generate([ask("the cat")], [0]))[0] for s in (1, 2))
    assert one.text != two.text


def test_temperature_zero_takes_the_likeliest_token_for_every_index() -> None:
    found = answers(generator(temperature=0.0).generate([ask("the cat")] * 3, [0, 1, 2]))
    assert found[0] == found[1] == found[2]


def test_tokens_are_drawn_with_their_probabilities() -> None:
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0, -30.0])
    rng = torch.Generator().manual_seed(0)
    n = 4000
    counts = Counter(draw(logits, temperature=2.0, top_p=1.0, rng=rng) for _ in range(n))
    expected = torch.softmax(logits.double() / 2, 0) * n
    chi_square = sum((counts[t] - float(expected[t])) ** 2 / float(expected[t]) for t in range(4))
    assert chi_square < 16.27  # 0.1 % of true samples exceed this, with 3 degrees of freedom
    assert counts[4] == 0


def test_top_p_keeps_the_token_that_crosses_it_and_none_after() -> None:
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    rng = torch.Generator().manual_seed(0)
    assert {draw(logits, temperature=1.0, top_p=0.6, rng=rng) for _ in range(300)} == {0, 1}


def test_an_answer_that_ends_says_stop_and_counts_its_end_token() -> None:
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    with torch.no_grad():
        model.lm_head.weight[tokenizer.convert_tokens_to_ids("<|end|>")] = 0.0
        model.model.norm.weight.zero_()  # all logits equal: greedy takes the first token, the pad
    endless = answers(generator(model, tokenizer, temperature=0.0).generate([ask("the cat")], [0]))[0]
    assert (endless.finish_reason, endless.completion_tokens) == ("length", 12)
    tokenizer.eos_token = "<pad>"
    ended = answers(generator(model, tokenizer, temperature=0.0).generate([ask("the cat")], [0]))[0]
    expected = len(tokenizer.apply_chat_template(ask("the cat"), add_generation_prompt=True, return_dict=False))
    assert ended == Generation("", "stop", expected, 1)


def test_a_prompt_too_long_for_the_context_is_a_fault_and_its_neighbours_are_answered() -> None:
    wanted = generator()
    prompts = [ask("the cat"), ask("the cat sat " * 90), ask("x")]
    found = wanted.generate(prompts, [0, 0, 0])
    assert isinstance(found[1], Fault)
    assert found[1].rule == "context_overflow"
    assert int(found[1].value) + 12 > 256
    assert [found[0], found[2]] == wanted.generate([prompts[0], prompts[2]], [0, 0])


def test_room_for_exactly_the_new_tokens_is_enough() -> None:
    tokenizer = tiny_tokenizer()
    used = len(tokenizer.apply_chat_template(ask("the cat"), add_generation_prompt=True, return_dict=False))
    fits = tiny_model("llama", max_position_embeddings=used + 12)
    assert isinstance(generator(fits, tokenizer).generate([ask("the cat")], [0])[0], Generation)
    lacks = tiny_model("llama", max_position_embeddings=used + 11)
    assert isinstance(generator(lacks, tokenizer).generate([ask("the cat")], [0])[0], Fault)


@pytest.mark.parametrize("template", [NO_SYSTEM, DROPS_SYSTEM])
def test_a_template_without_a_system_message_is_a_fault(template: str) -> None:
    tokenizer = tiny_tokenizer(chat_template=template)
    found = generator(tokenizer=tokenizer, system_prompt="be kind").generate([ask("the cat")], [0])
    assert isinstance(found[0], Fault)
    assert found[0].rule == "system_prompt_unsupported"
    assert isinstance(generator(tokenizer=tokenizer).generate([ask("the cat")], [0])[0], Generation)


def test_a_template_that_drops_a_part_of_the_dialogue_is_a_fault() -> None:
    """The model would answer another question than the prompt's, and be paid and judged for it."""
    tokenizer = tiny_tokenizer(chat_template=CHAT_TEMPLATE.replace("in messages %}", "in messages[-1:] %}", 1))
    turns = [*ask("the cat"), {"role": "assistant", "content": "sat"}, *ask("where?")]
    found = generator(tokenizer=tokenizer).generate([turns, ask("where?")], [0, 0])
    assert isinstance(found[0], Fault)
    assert (found[0].rule, found[0].value) == ("template_drops_message", "user")
    assert isinstance(found[1], Generation)


def test_the_system_prompt_is_put_before_prompts_that_have_none() -> None:
    given = generator(system_prompt="be kind").generate([ask("the cat"), ask("the cat", "be brief")], [0, 0])
    plain = generator().generate([ask("the cat", "be kind"), ask("the cat", "be brief")], [0, 0])
    assert given == plain


@pytest.mark.parametrize(
    ("prompt", "rule"),
    [
        ([], "empty_prompt"),
        (ask("  "), "empty_prompt"),
        (ask("a\ud800b"), "invalid_unicode_prompt"),
        (ask("a\x00b"), "nul_character_prompt"),
    ],
)
def test_a_prompt_that_cannot_be_read_is_a_fault(prompt: list[Message], rule: str) -> None:
    found = generator().generate([prompt], [0])[0]
    assert isinstance(found, Fault)
    assert found.rule == rule


def test_a_role_that_the_template_refuses_is_a_fault() -> None:
    template = "{% if messages[0]['role'] == 'tool' %}{{ raise_exception('tool') }}{% endif %}" + CHAT_TEMPLATE
    tokenizer = tiny_tokenizer(chat_template=template)
    found = generator(tokenizer=tokenizer).generate([[{"role": "tool", "content": "x"}]], [0])[0]
    assert isinstance(found, Fault)
    assert found.rule == "template_refuses_prompt"


def test_a_tokenizer_without_a_pad_token_gives_the_same_answers() -> None:
    prompts = [ask(text) for text in PROMPTS]
    without = generator(tokenizer=tiny_tokenizer(pad=False)).generate(prompts, [0] * 4)
    assert without == generator().generate(prompts, [0] * 4)


def test_a_template_that_writes_the_date_gives_the_same_answer_every_day() -> None:
    dated, fixed = (
        generator(tokenizer=tiny_tokenizer(chat_template=date + CHAT_TEMPLATE)).generate([ask("the cat")], [0])
        for date in ("{{ strftime_now('%d %b %Y') }}", "26 Jul 2024")
    )
    assert dated == fixed


def test_a_thought_that_the_template_has_opened_is_told_from_an_answer() -> None:
    """Cut before its end it would pass for an answer otherwise."""
    opens = CHAT_TEMPLATE.replace("}<|assistant|>", "}<|assistant|><think>\n")
    cut = answers(generator(tokenizer=tiny_tokenizer(chat_template=opens)).generate([ask("the cat")], [0]))[0]
    assert cut.finish_reason == "length"
    assert cut.text.startswith("<think>\n")
    found = check_answers(pl.DataFrame({"response": [cut.text]}), rules=())
    assert found["rule"].to_list() == ["unclosed_reasoning"]
    closed = opens.replace("<think>\n", "<think>\n\n</think>\n\n")
    plain = answers(generator(tokenizer=tiny_tokenizer(chat_template=closed)).generate([ask("<think>")], [0]))[0]
    assert not plain.text.startswith("<think>")


def test_nothing_asked_gives_nothing() -> None:
    assert generator().generate([], []) == []


def test_weights_that_are_not_numbers_are_a_model_error() -> None:
    model = tiny_model("llama")
    with torch.no_grad():
        model.model.norm.weight.fill_(torch.nan)
    with pytest.raises(ModelError, match="not a number"):
        generator(model).generate([ask("the cat")], [0])


def test_a_model_without_a_cache_of_keys_and_values_is_a_model_error() -> None:
    with pytest.raises(ModelError, match="Mamba"):
        generator(tiny_model("mamba")).generate([ask("the cat")], [0])


def test_a_folder_is_opened_and_equals_the_model_in_it(tmp_path: Path) -> None:
    folder = save_policy(tmp_path / "model", "llama")
    opened = open_generator(str(folder), **DEFAULTS)
    assert opened.generate([ask("the cat")], [3]) == generator().generate([ask("the cat")], [3])
    assert opened.fingerprint == generator_fingerprint(str(folder), **DEFAULTS)


def test_a_model_without_a_template_is_refused(tmp_path: Path) -> None:
    tiny_model("llama").save_pretrained(tmp_path)
    tiny_tokenizer(chat_template=None).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="no chat template"):
        open_generator(str(tmp_path), **DEFAULTS)


def test_a_folder_without_weights_is_a_model_error(tmp_path: Path) -> None:
    save_policy(tmp_path, "llama")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="cannot be loaded"):
        open_generator(str(tmp_path), **DEFAULTS)


def test_a_template_that_fails_on_an_answer_still_makes_prompts() -> None:
    """Its end token is looked for when a model is opened, in a dialogue that it may not be made for."""
    only_prompts = "{% if messages[-1]['role'] == 'assistant' %}{{ 1 / 0 }}{% endif %}" + CHAT_TEMPLATE
    found = generator(tokenizer=tiny_tokenizer(chat_template=only_prompts)).generate([ask("the cat")], [0])
    assert isinstance(found[0], Generation)


def test_a_number_of_indices_unlike_the_prompts_is_refused() -> None:
    with pytest.raises(InputError, match="1 prompts and 2"):
        generator().generate([ask("the cat")], [0, 1])


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_new_tokens": 0},
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"top_p": 0.0},
        {"top_p": 1.1},
    ],
)
def test_a_parameter_out_of_range_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        generator_fingerprint("embedded", **(DEFAULTS | wrong))


def test_the_fingerprint_depends_on_every_parameter_and_on_the_weights(tmp_path: Path) -> None:
    changes: list[dict[str, Any]] = [
        {}, {"max_new_tokens": 13}, {"temperature": 0.5}, {"top_p": 0.5}, {"seed": 6},
        {"system_prompt": "be kind"},
    ]  # fmt: skip
    folder = str(save_policy(tmp_path / "a", "llama"))
    other = str(save_policy(tmp_path / "b", "llama", seed=1))
    found = [generator_fingerprint(folder, **(DEFAULTS | change)) for change in changes]
    assert len({*found, generator_fingerprint(other, **DEFAULTS)}) == len(changes) + 1
    assert found[0] == generator_fingerprint(folder, **DEFAULTS)


def test_the_fingerprint_needs_no_torch() -> None:
    code = (
        "import sys; from curation.models.generator import generator_fingerprint as f; "
        f"f('embedded', **{DEFAULTS!r}); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_vllm_shows_the_thought_that_the_template_opened_unless_the_output_is_structured() -> None:
    tokenizer = tiny_tokenizer(chat_template=CHAT_TEMPLATE.replace("}<|assistant|>", "}<|assistant|><think>\n"))
    prompts = PromptEncoder(tokenizer, context=None, max_new_tokens=4, system_prompt=None)
    made = SimpleNamespace(finish_reason="length", text="First", token_ids=[5], logprobs=None)
    output = SimpleNamespace(outputs=[made], prompt_token_ids=prompts.encode(ask("the cat")))
    for options, text in ((ChatOptions(), "<think>\nFirst"), (ChatOptions(json_schema={}), "First")):
        found = VllmChat(None, prompts, options, ends=[], lora=None, fingerprint="test")._answer(output)
        assert isinstance(found, ChatAnswer)
        assert found.text == text

"""The packed forward pass against one forward per answer, written from the definition."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from curation.errors import InputError, ModelError
from curation.models.policy.stats import PolicyStats
from curation.models.policy.transformers_backend import TransformersPolicy
from curation.models.protocols import Fault
from tests.tiny_policies import ARCHITECTURES, CHAT_TEMPLATE, VOCAB, slow_sums, tiny_model, tiny_tokenizer

PROMPTS = ["the cat sat on the mat. " * 3, "where is the other cat?", "the cat sat on the mat. the end"]
ANSWERS = [
    ["on the mat", "on the other mat", "on the mat and then", "no"],
    ["the mat", "there"],
    ["it sat and sat and sat and sat", "x"],
]


def policy(model: Any, **options: Any) -> TransformersPolicy:
    tokenizer = options.pop("tokenizer", None) or tiny_tokenizer()
    defaults = {"raw": False, "max_length": None, "batch_tokens": 4096, "output_gradients": False}
    return TransformersPolicy(model, tokenizer, fingerprint="test", **(defaults | options))


def chat_ids(tokenizer: Any, prompt: str, answer: str) -> tuple[list[int], list[int]]:
    turns = [{"role": "user", "content": prompt}]
    start = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
    turns.append({"role": "assistant", "content": answer})
    full = tokenizer.apply_chat_template(turns, return_dict=False)
    return start, full[len(start) :]


def expected(model: Any, prompt: str, answers: list[str]) -> tuple[Any, Any, Any]:
    tokenizer = tiny_tokenizer()
    pairs = [chat_ids(tokenizer, prompt, answer) for answer in answers]
    return slow_sums(model, pairs[0][0], [answer for _, answer in pairs])


def stats_of(found: PolicyStats | Fault) -> PolicyStats:
    assert isinstance(found, PolicyStats)
    return found


def close(a: Any, b: Any, tolerance: float = 1e-5) -> bool:
    return bool(np.allclose(a, b, rtol=tolerance, atol=tolerance * np.abs(b).max()))


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_stats_equal_the_definition(architecture: str) -> None:
    found = [stats_of(s) for s in policy(tiny_model(architecture)).stats(PROMPTS, ANSWERS)]
    reference = tiny_model(architecture)
    for stats, prompt, answers in zip(found, PROMPTS, ANSWERS, strict=True):
        sums, lasts, logps = expected(reference, prompt, answers)
        assert close(stats.gram, sums @ sums.T)
        assert close(stats.last_gram, lasts @ lasts.T)
        assert np.abs(stats.logps - logps).max() < 1e-4


@pytest.mark.parametrize(
    ("architecture", "method"),
    [("llama", "packed"), ("mistral", "packed"), ("gemma3", "packed"), ("gemma2", "packed"),
     ("bloom", "shared_cache"), ("mamba", "separate")],
)  # fmt: skip
def test_method_is_the_cheapest_that_is_right(architecture: str, method: str) -> None:
    assert policy(tiny_model(architecture)).method == method


def test_fallback_says_so(caplog: pytest.LogCaptureFixture) -> None:
    policy(tiny_model("bloom"))
    assert "shared_cache" in caplog.text


@pytest.mark.parametrize("method", ["shared_cache", "separate"])
@pytest.mark.parametrize("architecture", ["llama", "gemma3", "mistral"])
def test_methods_agree(architecture: str, method: str) -> None:
    packed = policy(tiny_model(architecture)).stats(PROMPTS, ANSWERS)
    other = policy(tiny_model(architecture), method=method).stats(PROMPTS, ANSWERS)
    for a, b in zip(packed, other, strict=True):
        assert close(stats_of(a).gram, stats_of(b).gram)
        assert np.allclose(stats_of(a).logps, stats_of(b).logps, atol=1e-4)


@pytest.mark.parametrize("batch_tokens", [1, 40, 100])
def test_batch_size_changes_nothing(batch_tokens: int) -> None:
    whole = list(policy(tiny_model("llama")).stats(PROMPTS, ANSWERS))
    small = list(policy(tiny_model("llama"), batch_tokens=batch_tokens).stats(PROMPTS, ANSWERS))
    for a, b in zip(whole, small, strict=True):
        assert close(stats_of(a).gram, stats_of(b).gram, 1e-6)


def test_order_changes_nothing() -> None:
    forward = list(policy(tiny_model("qwen3")).stats(PROMPTS, ANSWERS))
    backward = list(policy(tiny_model("qwen3")).stats(PROMPTS[::-1], [a[::-1] for a in ANSWERS[::-1]]))
    for a, b in zip(forward, backward[::-1], strict=True):
        assert close(stats_of(a).gram, stats_of(b).gram[::-1, ::-1], 1e-6)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_side_changes_nothing(side: str) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.padding_side = side
    padded = list(policy(tiny_model("llama"), tokenizer=tokenizer).stats(PROMPTS, ANSWERS))
    plain = list(policy(tiny_model("llama")).stats(PROMPTS, ANSWERS))
    for a, b in zip(padded, plain, strict=True):
        assert np.array_equal(stats_of(a).gram, stats_of(b).gram)


def test_tokenizer_without_a_pad_token_is_fine() -> None:
    found = policy(tiny_model("llama"), tokenizer=tiny_tokenizer(pad=False)).stats(PROMPTS, ANSWERS)
    assert all(isinstance(stats, PolicyStats) for stats in found)


def test_no_token_is_forwarded_twice() -> None:
    prompt, answers = PROMPTS[0], ["on the mat", "x", "and then it sat"]
    model = policy(tiny_model("llama"))
    list(model.stats([prompt], [answers]))
    pairs = [chat_ids(tiny_tokenizer(), prompt, answer) for answer in answers]
    read = [tuple(start + answer[:-1]) for start, answer in pairs]
    distinct = {ids[:n] for ids in read for n in range(1, len(ids) + 1)}
    assert model.forwarded == len(distinct)


def test_raw_tokens_are_prompt_then_answer() -> None:
    tokenizer = tiny_tokenizer()
    found = stats_of(next(policy(tiny_model("llama"), raw=True).stats(["the cat"], [["sat", "on it"]])))
    answers = [tokenizer(a, add_special_tokens=False)["input_ids"] for a in ("sat", "on it")]
    sums, _, logps = slow_sums(tiny_model("llama"), tokenizer("the cat")["input_ids"], answers)
    assert close(found.gram, sums @ sums.T)
    assert np.allclose(found.logps, logps, atol=1e-4)
    assert found.tokens.tolist() == [len(a) for a in answers]


def test_tokens_count_the_end_of_turn() -> None:
    found = stats_of(next(policy(tiny_model("llama")).stats(["the cat"], [["sat"]])))
    assert found.answer_ids[0].tolist() == chat_ids(tiny_tokenizer(), "the cat", "sat")[1]
    assert found.answer_ids[0][-1] == tiny_tokenizer().convert_tokens_to_ids("<|end|>")


def test_token_logps_add_up() -> None:
    found = stats_of(next(policy(tiny_model("llama")).stats(PROMPTS[:1], ANSWERS[:1])))
    assert np.allclose([piece.sum() for piece in found.token_logps], found.logps)
    assert [len(piece) for piece in found.token_logps] == found.tokens.tolist()


@pytest.mark.parametrize("architecture", ["llama", "gemma3", "granite", "phi"])
def test_gradient_gram_equals_backward(architecture: str) -> None:
    with_gradients = policy(tiny_model(architecture), output_gradients=True)
    found = stats_of(next(with_gradients.stats(PROMPTS[:1], ANSWERS[:1])))
    model = tiny_model(architecture, tie_word_embeddings=False)
    tied = tiny_model(architecture)
    # The same weights, with the output layer apart from the input embeddings: its gradient alone is meant.
    output = tied.get_output_embeddings().weight.data.clone()
    model.load_state_dict(tied.state_dict() | {"lm_head.weight": output})
    gradients = []
    for answer in ANSWERS[0]:
        start, suffix = chat_ids(tiny_tokenizer(), PROMPTS[0], answer)
        model.zero_grad()
        logits = model(torch.tensor([start + suffix])).logits[0, len(start) - 1 : -1]
        logits.log_softmax(1).gather(1, torch.tensor(suffix)[:, None]).sum().backward()
        gradients.append(model.get_output_embeddings().weight.grad.flatten().double().numpy().copy())
    flat = np.stack(gradients)
    assert found.grad_gram is not None
    assert close(found.grad_gram, flat @ flat.T, 1e-4)


@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_gradient_gram_of_many_tokens_goes_in_blocks(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = policy(tiny_model(architecture), output_gradients=True)
    expected = stats_of(next(whole.stats(PROMPTS[:1], ANSWERS[:1]))).grad_gram
    assert expected is not None
    assert len(expected) > 2
    monkeypatch.setattr("curation.models.policy.head._GRAM_ROWS", 3)
    found = stats_of(next(whole.stats(PROMPTS[:1], ANSWERS[:1]))).grad_gram
    assert found is not None
    assert close(found, expected, 1e-5)
    assert close(found, found.T, 1e-6)


def test_memory_that_ends_after_the_forward_pass_is_a_fault_of_the_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = policy(tiny_model("llama"), output_gradients=True)
    plain = list(scorer.stats(PROMPTS, ANSWERS))
    original, refused = TransformersPolicy._summaries, stats_of(plain[0]).prompt_tokens

    def summaries(self: Any, groups: Any, states: Any) -> Any:
        if any(len(group.prompt) == refused and group.answers for group in groups):
            raise torch.OutOfMemoryError("out of memory")
        return original(self, groups, states)

    monkeypatch.setattr(TransformersPolicy, "_summaries", summaries)
    found = [stats_of(one) for one in scorer.stats(PROMPTS, ANSWERS)]
    assert {fault.rule for fault in found[0].faults.values()} == {"out_of_memory"}
    assert len(found[0].faults) == len(ANSWERS[0])
    assert np.isnan(found[0].gram).all()
    for one, before in zip(found[1:], plain[1:], strict=True):
        assert close(one.gram, stats_of(before).gram, 1e-6)


def test_bfloat16_is_near_float32() -> None:
    half = list(policy(tiny_model("llama").to(torch.bfloat16)).stats(PROMPTS, ANSWERS))
    full = list(policy(tiny_model("llama")).stats(PROMPTS, ANSWERS))
    for a, b in zip(half, full, strict=True):
        assert close(stats_of(a).gram, stats_of(b).gram, 0.05)


def test_rotary_frequencies_do_not_depend_on_the_batch() -> None:
    """Long-context models choose frequencies by the longest sequence they are read with."""
    together = list(policy(tiny_model("phi3_longrope")).stats(PROMPTS, ANSWERS))
    for prompt, answers, stats in zip(PROMPTS, ANSWERS, together, strict=True):
        alone = stats_of(next(policy(tiny_model("phi3_longrope")).stats([prompt], [answers])))
        assert close(stats_of(stats).gram, alone.gram, 1e-6)


def test_unknown_output_layer_is_refused() -> None:
    model = tiny_model("llama")
    model.lm_head.register_forward_hook(lambda module, inputs, output: output * 1.5)
    with pytest.raises(ModelError, match="output layer"):
        policy(model)


def test_long_context_faults_and_the_rest_goes_on() -> None:
    short = policy(tiny_model("llama"), max_length=30)
    found = stats_of(next(short.stats(["the cat"], [["mat", "x " * 40]])))
    assert found.faults[1].rule == "context_overflow"
    assert int(found.faults[1].value) > 30
    assert np.isfinite(found.gram[0, 0])
    assert np.isnan(found.gram[1]).all()
    assert found.tokens.tolist()[1] == 0


def test_long_prompt_is_a_fault_of_the_prompt() -> None:
    found = list(policy(tiny_model("llama")).stats(["x " * 300, "the cat"], [["a", "b"], ["c", "d"]]))
    assert isinstance(found[0], Fault)
    assert found[0].rule == "context_overflow"
    assert isinstance(found[1], PolicyStats)


@pytest.mark.parametrize(
    ("answer", "rule"),
    [("", "empty_response"), (" \n", "empty_response"), ("\ue000", "no_answer_tokens"),
     ("a\ud800", "invalid_unicode_response")],
)  # fmt: skip
@pytest.mark.parametrize("raw", [True, False])
def test_bad_answers_are_faults(answer: str, rule: str, raw: bool) -> None:
    found = stats_of(next(policy(tiny_model("llama"), raw=raw).stats(["the cat"], [["sat", answer, "mat"]])))
    assert found.faults[1].rule == rule
    assert list(found.faults) == [1]
    assert np.isfinite(found.gram[np.ix_([0, 2], [0, 2])]).all()


def test_all_answers_bad_still_gives_reasons() -> None:
    found = stats_of(next(policy(tiny_model("llama")).stats(["the cat"], [["", ""]])))
    assert sorted(found.faults) == [0, 1]


def test_template_that_rewrites_history_is_a_fault() -> None:
    template = (
        "{% for m in messages %}<|{{ m['role'] }}|>"
        "{{ m['content'][:3] if not loop.last else m['content'] }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    rewriting = tiny_tokenizer(chat_template=template)
    found = stats_of(next(policy(tiny_model("llama"), tokenizer=rewriting).stats(["the cat"], [["sat"]])))
    assert found.faults[0].rule == "template_rewrites_history"


def test_white_space_that_the_tokenizer_joins_to_the_prompt_is_named() -> None:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=VOCAB, initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator(["a\n  b"] * 20, trainer)
    template = "{% for m in messages %}{{ m['role'] }}\n{{ m['content'] }}|{% endfor %}"
    template += "{% if add_generation_prompt %}assistant\n{% endif %}"
    joining = PreTrainedTokenizerFast(tokenizer_object=bpe, chat_template=template)
    answers = ["sat", "  sat"]
    found = stats_of(next(policy(tiny_model("llama"), tokenizer=joining).stats(["hi"], [answers])))
    assert list(found.faults) == [1]
    assert "begins with white space" in found.faults[1].reason


def test_template_that_refuses_the_dialogue_is_a_fault() -> None:
    refusing = tiny_tokenizer(chat_template="{{ raise_exception('no system turn') }}")
    found = next(policy(tiny_model("llama"), tokenizer=refusing).stats(["the cat"], [["sat"]]))
    assert isinstance(found, Fault)
    assert found.rule == "template_refuses_prompt"


def faults_of(template: str, prompt: Any, answers: list[str]) -> PolicyStats | Fault:
    return next(
        policy(tiny_model("llama"), tokenizer=tiny_tokenizer(chat_template=template)).stats([prompt], [answers])
    )


def test_template_that_drops_a_message_is_a_fault() -> None:
    template = (
        "{% for m in messages if m['role'] != 'system' %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    system = {"role": "system", "content": "be brief"}
    found = faults_of(template, [system, {"role": "user", "content": "the cat"}], ["sat"])
    assert isinstance(found, Fault)
    assert (found.rule, found.value) == ("template_drops_message", "system")
    stats_of(faults_of(template, [{"role": "user", "content": "the cat"}], ["sat"]))


def test_template_that_drops_a_part_of_an_answer_is_a_fault_of_the_answer() -> None:
    """Templates of reasoning models cut what was thought, and would be scored for the rest without a word."""
    thinking = CHAT_TEMPLATE.replace("m['content']", "m['content'].split('</think>')[-1]")
    found = stats_of(faults_of(thinking, "the cat", ["<think>it is late</think>sat", "mat"]))
    assert [(i, fault.rule) for i, fault in found.faults.items()] == [(0, "template_drops_answer")]
    assert np.isfinite(found.logps[1])


def test_white_space_is_the_templates_to_set() -> None:
    trimming = CHAT_TEMPLATE.replace("m['content']", "(m['content'] | trim).replace('  ', ' ')")
    found = stats_of(faults_of(trimming, "  the  cat \n", [" sat  on\nit \n", "mat"]))
    assert found.faults == {}
    plain = stats_of(faults_of(CHAT_TEMPLATE, "the cat", ["sat on\nit", "mat"]))
    assert np.array_equal(found.logps, plain.logps)


def test_an_answer_that_the_template_refuses_leaves_the_others() -> None:
    refusing = "{% if 'q' in messages[-1]['content'] %}{{ raise_exception('no q') }}{% endif %}" + CHAT_TEMPLATE
    found = stats_of(faults_of(refusing, "the cat", ["sat", "q", "mat"]))
    assert [(i, fault.rule) for i, fault in found.faults.items()] == [(1, "template_refuses_answer")]
    assert np.isfinite(found.gram[np.ix_([0, 2], [0, 2])]).all()


def test_a_template_that_writes_the_date_gives_the_same_numbers_every_day() -> None:
    dated = stats_of(faults_of("{{ strftime_now('%d %b %Y') }}" + CHAT_TEMPLATE, "the cat", ["sat"]))
    fixed = stats_of(faults_of("26 Jul 2024" + CHAT_TEMPLATE, "the cat", ["sat"]))
    assert np.array_equal(dated.gram, fixed.gram)


def test_a_model_that_looks_ahead_is_refused() -> None:
    with pytest.raises(ModelError, match="no causal language model"):
        policy(tiny_model("gemma3", use_bidirectional_attention=True))


def test_model_without_template_needs_raw() -> None:
    with pytest.raises(InputError, match="--raw"):
        policy(tiny_model("llama"), tokenizer=tiny_tokenizer(chat_template=None))


def test_states_that_are_not_finite_are_a_fault() -> None:
    model = policy(tiny_model("llama"))
    token = int(tiny_tokenizer()("q", add_special_tokens=False)["input_ids"][0])
    with torch.no_grad():
        model.model.get_input_embeddings().weight[token] = float("nan")
    found = stats_of(next(model.stats(["the cat"], [["sat", "q sat"]])))
    # Tied to the output layer, so that every log-probability is lost too; the sums say which states were.
    assert {fault.rule for fault in found.faults.values()} == {"non_finite_states"}


def test_one_bad_answer_leaves_the_others() -> None:
    model = policy(tiny_model("qwen3"))
    token = int(tiny_tokenizer()("q", add_special_tokens=False)["input_ids"][0])
    with torch.no_grad():
        model.model.get_input_embeddings().weight[token] = float("nan")
    found = stats_of(next(model.stats(["the cat"], [["sat", "q sat", "mat"]])))
    assert list(found.faults) == [1]
    sums, _, _ = expected(tiny_model("qwen3"), "the cat", ["sat", "mat"])
    assert close(found.gram[np.ix_([0, 2], [0, 2])], sums @ sums.T)


def test_out_of_memory_halves_the_budget_and_goes_on() -> None:
    model = policy(tiny_model("llama"))
    whole = list(model.stats(PROMPTS, ANSWERS))

    def limit(module: Any, args: Any, kwargs: Any) -> None:
        if kwargs["input_ids"].numel() > 60:
            raise torch.OutOfMemoryError("out of memory")

    model.model.base_model.register_forward_pre_hook(limit, with_kwargs=True)
    again = list(model.stats(PROMPTS, ANSWERS))
    assert model.batch_tokens == 2048
    for a, b in zip(whole, again, strict=True):
        assert close(stats_of(a).gram, stats_of(b).gram, 1e-6)


def test_answer_that_fits_no_memory_is_a_fault() -> None:
    model = policy(tiny_model("llama"))

    def limit(module: Any, args: Any, kwargs: Any) -> None:
        if kwargs["input_ids"].numel() > 40:
            raise torch.OutOfMemoryError("out of memory")

    model.model.base_model.register_forward_pre_hook(limit, with_kwargs=True)
    found = stats_of(next(model.stats(["the cat"], [["x " * 30, "mat", "it sat"]])))
    assert found.faults[0].rule == "out_of_memory"
    assert np.isfinite(found.gram[1:, 1:]).all()


def test_other_errors_are_not_swallowed() -> None:
    model = policy(tiny_model("llama"))

    def fail(module: Any, args: Any, kwargs: Any) -> None:
        raise RuntimeError("a bug")

    model.model.base_model.register_forward_pre_hook(fail, with_kwargs=True)
    with pytest.raises(RuntimeError, match="a bug"):
        list(model.stats(["the cat"], [["sat"]]))


def test_lists_of_different_lengths_are_refused() -> None:
    with pytest.raises(InputError, match="2 prompts and 1"):
        list(policy(tiny_model("llama")).stats(["a", "b"], [["c"]]))

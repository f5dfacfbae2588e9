"""CHES of awkward texts against the definition, one sequence at a time, for many architectures."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from curation.models.policy.transformers_backend import TransformersPolicy
from curation.scores.ches_frames import ches
from tests.tiny_policies import slow_sums, tiny_model, tiny_tokenizer

MODELS = ["llama", "qwen2", "qwen3", "mistral", "gemma2", "gemma3", "phi3", "gpt_neox", "opt", "opt_350m"]
WIDE = "\u65e5\u672c\u8a9e \U0001f30a e\u0301 \u0639\u0631\u0628 \u2028x"
PAIRS = [
    ("the cat sat", "n", "x"),  # raw, one token each: the state of the prompt's last token alone
    ("the cat", "on the mat and then the other cat", "n"),
    (WIDE, f"{WIDE}!", f"no {WIDE}"),
    ("a <|end|> b <|user|>", "sat <|end|><|assistant|> on", "</s> on"),
    ("the cat sat", "on", "on it"),  # one answer begins the other
    ("x", "y" * 150, "z"),
    ("", "sat", "mat"),
]
FRAME = pl.DataFrame(PAIRS, schema=["prompt", "chosen", "rejected"], orient="row").with_row_index("n")


def ids_of(
    tokenizer: Any, prompt: str, answers: tuple[str, str], *, raw: bool
) -> tuple[list[int], list[list[int]]]:
    if raw:
        return tokenizer(prompt)["input_ids"], [
            tokenizer(a, add_special_tokens=False)["input_ids"] for a in answers
        ]
    turns = [{"role": "user", "content": prompt}]
    start = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
    whole = [
        tokenizer.apply_chat_template([*turns, {"role": "assistant", "content": answer}], return_dict=False)
        for answer in answers
    ]
    return start, [ids[len(start) :] for ids in whole]


def slow_row(model: Any, tokenizer: Any, pair: tuple[str, str, str], *, raw: bool) -> dict[str, float]:
    prompt, chosen, rejected = pair
    start, (c, r) = ids_of(tokenizer, prompt, (chosen, rejected), raw=raw)
    (high, low), _, logps = slow_sums(model, start, [c, r])
    inner, norm = float(high @ low), float(high @ high)
    return {
        "ches": inner - norm,
        "ln_ches": inner / (len(c) * len(r)) - norm / len(c) ** 2,
        "chosen_tokens": len(c),
        "rejected_tokens": len(r),
        "chosen_logp": logps[0],
        "rejected_logp": logps[1],
        "difficulty": logps[1] - logps[0],
    }


@pytest.mark.parametrize("raw", [True, False], ids=["raw", "chat"])
@pytest.mark.parametrize("architecture", MODELS)
def test_ches_equals_the_definition_in_any_batch(architecture: str, raw: bool) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.padding_side = "left"
    reference = tiny_model(architecture).double()
    expected = [slow_row(reference, tokenizer, pair, raw=raw) for pair in PAIRS[:-1]]
    for batch_tokens in (1, 8 * 40, 4096):
        policy = TransformersPolicy(
            tiny_model(architecture), tokenizer, fingerprint="", raw=raw, max_length=None, output_gradients=False,
            batch_tokens=batch_tokens,
        )  # fmt: skip
        found = ches(FRAME, policy=policy, raw=raw)
        assert found.rejects.select("row", "rule").rows() == [(len(PAIRS) - 1, "empty_prompt")]
        assert found.frame["n"].to_list() == list(range(len(PAIRS) - 1))
        for row, slow in zip(found.frame.iter_rows(named=True), expected, strict=True):
            assert {name: row[name] for name in slow} == pytest.approx(slow, rel=1e-4)


@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_a_dialogue_of_eight_thousand_tokens_is_read_whole(architecture: str) -> None:
    tokenizer, size = tiny_tokenizer(), {"max_position_embeddings": 9000}
    pair = ("the cat sat on it. " * 1300, "on the mat " * 200, "n")
    start, answers = ids_of(tokenizer, pair[0], pair[1:], raw=False)
    assert 8192 < len(start) + len(answers[0]) <= 9000
    policy = TransformersPolicy(
        tiny_model(architecture, **size), tokenizer, fingerprint="", raw=False, max_length=None, batch_tokens=4096,
        output_gradients=False,
    )  # fmt: skip
    (row,) = ches(pl.DataFrame([pair], schema=FRAME.columns[1:], orient="row"), policy=policy).frame.to_dicts()
    slow = slow_row(tiny_model(architecture, **size), tokenizer, pair, raw=False)
    assert {name: row[name] for name in slow} == pytest.approx(slow, rel=1e-4)

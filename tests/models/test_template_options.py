"""Variables of a chat template: the tokens are those of transformers' own rendering, and keys say so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner

from curation.cli_files import files
from curation.errors import InputError
from curation.models.chat import ChatOptions, chat_fingerprint, open_chat
from curation.models.chat.protocol import ChatAnswer, ChatRequest
from curation.models.policy import policy_fingerprint
from curation.models.prompt_encoding import PromptEncoder
from curation.models.template_options import named_options, template_variables
from curation.recipe import Generation, Policy
from curation.scores.ches_frames import ches
from curation.stages.generations import GenerationStep
from curation.stages.policy_stats import PolicyStep
from tests.tiny_policies import CHAT_TEMPLATE, save_policy, slow_sums, tiny_model, tiny_tokenizer

SILENT: dict[str, Any] = {"enable_thinking": False}
THINKS = (
    "{% for m in messages %}<|{{ m['role'] }}|>"
    "{% if m['role'] == 'assistant' %}<think>\n\n</think>\n\n{% endif %}{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
"""As Qwen3's: an empty thought is the answer's, or the prompt's where thinking is turned off."""
PAIR = {"prompt": "where is the cat?", "chosen": "on the mat", "rejected": "the other cat sat"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = save_policy(tmp_path_factory.mktemp("thinks"), "llama")
    tiny_tokenizer(chat_template=THINKS).save_pretrained(path)
    return path


def slow_row(answers: tuple[str, str], **variables: Any) -> tuple[float, list[int]]:
    """CHES and token counts by transformers' own rendering, one forward per answer."""
    tokenizer = tiny_tokenizer(chat_template=THINKS)
    asked = [{"role": "user", "content": PAIR["prompt"]}]
    start = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=False, **variables)
    made = [
        tokenizer.apply_chat_template(
            [*asked, {"role": "assistant", "content": answer}], return_dict=False, **variables
        )
        for answer in answers
    ]
    assert all(ids[: len(start)] == start for ids in made)
    rest = [ids[len(start) :] for ids in made]
    (c, r), _, _ = slow_sums(tiny_model("llama"), start, rest)
    return float(c @ r - c @ c), [len(ids) for ids in rest]


@pytest.mark.parametrize("options", [None, SILENT])
def test_a_variable_moves_the_thought_into_the_prompt(folder: Path, options: dict[str, Any] | None) -> None:
    expected, counts = slow_row((PAIR["chosen"], PAIR["rejected"]), **(options or {}))
    row = ches(pl.DataFrame([PAIR]), policy=str(folder), template_options=options).frame.row(0, named=True)
    assert row["ches"] == pytest.approx(expected, rel=1e-4)
    assert [row["chosen_tokens"], row["rejected_tokens"]] == counts


def test_the_two_ways_are_not_the_same() -> None:
    thinking, silent = slow_row(("on", "mat")), slow_row(("on", "mat"), **SILENT)
    assert silent[1][0] < thinking[1][0]
    assert silent[0] != pytest.approx(thinking[0], rel=0.05)


@pytest.mark.parametrize("written", ["enable_thinking=false", "enable_thinking=False"])
def test_the_command_takes_variables(folder: Path, tmp_path: Path, written: str) -> None:
    (tmp_path / "in.jsonl").write_text(json.dumps(PAIR) + "\n")
    arguments = ["ches", str(tmp_path / "in.jsonl"), "-o", str(tmp_path / "out.parquet"), "--policy", str(folder)]
    done = CliRunner().invoke(files, [*arguments, "--template-option", written], catch_exceptions=False)
    assert done.exit_code == 0
    found = pl.read_parquet(tmp_path / "out.parquet")["ches"].item()
    assert found == pytest.approx(slow_row((PAIR["chosen"], PAIR["rejected"]), **SILENT)[0], rel=1e-4)


def test_generation_in_this_process_reads_the_same_prompt(folder: Path) -> None:
    tokenizer = tiny_tokenizer(chat_template=THINKS)
    asked = [{"role": "user", "content": "the cat"}]
    lengths, texts = [], []
    for options in (None, SILENT):
        expected = tokenizer.apply_chat_template(
            asked, add_generation_prompt=True, return_dict=False, **(options or {})
        )
        encoder = PromptEncoder(
            tokenizer, context=None, max_new_tokens=4, system_prompt=None, template_options=options
        )
        assert list(encoder.encode(asked)) == expected
        model = open_chat(str(folder), ChatOptions(max_new_tokens=4, template_options=options))
        (reply,) = model.chat([ChatRequest("a", tuple(asked))])
        assert isinstance(reply.answer, ChatAnswer)
        assert reply.answer.prompt_tokens == len(expected)
        lengths.append(len(expected))
        texts.append(reply.answer.text)
    assert lengths[0] < lengths[1]
    assert texts[0] != texts[1]


@pytest.mark.parametrize("options", [None, SILENT])
def test_a_recipes_steps_read_with_its_variables(folder: Path, options: dict[str, Any] | None) -> None:
    asked = [{"role": "user", "content": "the cat"}]
    tokenizer = tiny_tokenizer(chat_template=THINKS)
    expected = tokenizer.apply_chat_template(
        asked, add_generation_prompt=True, return_dict=False, **(options or {})
    )
    worker: Any = PolicyStep(Policy(model=str(folder), template_options=options)).open()
    assert next(worker.policy.stats([asked], [["on", "mat"]])).prompt_tokens == len(expected)
    maker = Generation(model=str(folder), template_options=options, max_new_tokens=2)
    stream: Any = GenerationStep(maker, seed=0).open()
    (reply,) = stream.model.chat([ChatRequest("a", tuple(asked))])
    assert reply.answer.prompt_tokens == len(expected)


def test_keys_change_with_the_variables_and_only_with_them(folder: Path) -> None:
    model = str(folder)
    assert policy_fingerprint(model, template_options={}) == policy_fingerprint(model)
    assert policy_fingerprint(model, template_options=SILENT) == f"{policy_fingerprint(model)}/template:08166224"
    for backend, name in (("transformers", model), ("vllm", model), ("server", "http://localhost:1/v1#m")):
        keys = {
            chat_fingerprint(name, ChatOptions(template_options=given), backend=backend)
            for given in (None, SILENT, {"enable_thinking": True})
        }
        assert len(keys) == 3
    plain, silent = Policy(model=model), Policy(model=model, template_options=SILENT)
    assert PolicyStep(silent).key.producer == PolicyStep(plain).key.producer.replace(" ", "/template:08166224 ")
    makers = [Generation(model=model, template_options=given) for given in (None, {}, SILENT)]
    none, empty, told = (GenerationStep(maker, seed=0).key.producer for maker in makers)
    assert none == empty != told
    assert makers[2].parameters["template_options"] == SILENT


def test_the_keys_of_before_are_the_same(folder: Path) -> None:
    """Answers that somebody has paid for are found again."""
    plain = ChatOptions(max_new_tokens=16, temperature=0.7, seed=3)
    assert chat_fingerprint("http://localhost:1/v1#m", plain, revision="r") == "m@r/openai1/bd43524fc9c7"
    assert chat_fingerprint(str(folder), plain).rpartition("/")[2] == "9ce869f1ebbd"


def test_a_variable_that_the_template_never_reads_is_an_error(folder: Path) -> None:
    with pytest.raises(InputError, match=r"never reads \(did you mean 'enable_thinking'\?\)"):
        ches(pl.DataFrame([PAIR]), policy=str(folder), template_options={"enable_thinkng": False})
    with pytest.raises(InputError, match=r"'enable_thinking', which the chat template of .* never reads"):
        template_variables(tiny_tokenizer(chat_template=CHAT_TEMPLATE), SILENT)


@pytest.mark.parametrize("name", ["tokenize", "messages", "chat_template", "strftime_now", "no word"])
def test_what_is_decided_elsewhere_is_no_variable(folder: Path, name: str) -> None:
    with pytest.raises(InputError, match="no variable of a chat template's own"):
        policy_fingerprint(str(folder), template_options={name: 1})
    with pytest.raises(InputError, match="no variable of a chat template's own"):
        chat_fingerprint(str(folder), ChatOptions(template_options={name: 1}))


def test_raw_texts_have_no_template_to_tell(folder: Path) -> None:
    with pytest.raises(InputError, match="no use with raw"):
        PolicyStep(Policy(model=str(folder), raw=True, template_options=SILENT)).key  # noqa: B018


def test_options_of_a_command_line_are_json_or_text() -> None:
    assert named_options([]) is None
    given = ["a=false", "b=False", "c=3", "d=high", "e=[1, 2]", "f=x=y"]
    assert named_options(given) == {"a": False, "b": False, "c": 3, "d": "high", "e": [1, 2], "f": "x=y"}
    for wrong in (["a"], ["=1"], ["a="], ["a=1", "a=2"]):
        with pytest.raises(InputError, match="expected NAME=VALUE"):
            named_options(wrong)

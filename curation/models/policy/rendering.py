"""Prompts and answers to token ids, by a model's chat template or raw, with the faults that rows can have.

Tokens are decided here and nowhere else. With a template, the prompt's ids are the rendered dialogue with
the generation prompt, and the answer's ids are what the rendered dialogue *with* the answer has after
them: the end-of-turn token and whatever else the template writes are the answer's. A thought that the template
opens for the model at the end of the prompt is the answer's too, as the dialogue has it. Raw, they are
``tok(prompt)`` and ``tok(answer, add_special_tokens=False)``. A template is a program of somebody else: what
it leaves out of a dialogue is a fault, and a date that it asks for is always the same one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, cast

import numpy as np

from curation.candidates.reasoning import REASONING_MARKERS
from curation.errors import InputError
from curation.models.policy.packing import IntArray
from curation.models.prompt_encoding import TemplateRefusal, holds, left_out, render_dialogue
from curation.models.protocols import Fault
from curation.models.template_options import template_variables
from curation.text import Message, fault_in_text, messages_text

__all__ = ["Rendered", "Renderer"]

_SHORT_ANSWER = 8
"""Only an answer of so few tokens can be nothing but the template's own."""
_CUT: Final = Fault("template_drops_answer", "", "the policy's template leaves out the answer, or a part of it")


class Rendered(NamedTuple):
    """One prompt and its k candidates as token ids."""

    prompt: IntArray
    answers: list[IntArray]
    """The tokens of each candidate without a fault."""
    candidates: list[int]
    """Which candidate each entry of ``answers`` is."""
    faults: dict[int, Fault]
    """The other candidates, and why."""
    size: int
    """k."""


class Renderer:
    """Token ids of prompts and candidates.

    Args:
        tokenizer: a tokenizer of transformers.
        raw: no chat template.
        max_length: the most tokens that a prompt and an answer may have together.
        template_options: variables of the template.

    Raises:
        InputError: when there is no template, or it reads no variable of such a name.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        raw: bool,
        max_length: int | None,
        template_options: Mapping[str, Any] | None = None,
    ) -> None:
        if not raw and not tokenizer.chat_template:
            raise InputError(
                f"policy {tokenizer.name_or_path!r} has no chat template: give one that has, or "
                "score the text as it is with --raw"
            )
        self._tokenizer = tokenizer
        self._variables = template_variables(tokenizer, template_options)
        self._raw = raw
        self._max_length = max_length

    def render(
        self, prompts: Sequence[Sequence[Message] | str], responses: Sequence[Sequence[str]]
    ) -> list[Rendered | Fault]:
        """Each prompt's ids and those of its candidates; a Fault where the prompt itself cannot be used."""
        faults = [_prompt_fault(prompt) for prompt in prompts]
        usable = [i for i, fault in enumerate(faults) if fault is None]
        texts: list[str] = []
        jobs: list[tuple[int, list[int], dict[int, Fault]]] = []
        for i in usable:
            wrong = {j: f for j, r in enumerate(responses[i]) if (f := _answer_fault(r)) is not None}
            good = [j for j in range(len(responses[i])) if j not in wrong]
            rendered = self._texts(prompts[i], [responses[i][j] for j in good])
            if isinstance(rendered, Fault):
                faults[i] = rendered
                continue
            wrong |= {j: text for j, text in zip(good, rendered[1:], strict=True) if isinstance(text, Fault)}
            good = [j for j in good if j not in wrong]
            texts += [text for text in rendered if not isinstance(text, Fault)]
            jobs.append((i, good, wrong))
        ids = self._encode(texts, [len(good) for _, good, _ in jobs])
        out: list[Rendered | Fault | None] = list(faults)
        at = 0
        for i, good, wrong in jobs:
            prompt, full = ids[at], ids[at + 1 : at + 1 + len(good)]
            at += 1 + len(good)
            out[i] = self._split(prompt, full, good, wrong, responses[i])
        return cast("list[Rendered | Fault]", out)

    def _texts(self, prompt: Sequence[Message] | str, answers: Sequence[str]) -> list[str | Fault] | Fault:
        """The text of the prompt, then one text per answer, or why there is none."""
        if self._raw:
            return [prompt if isinstance(prompt, str) else messages_text(prompt), *answers]
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
        start = self._dialogue(messages, add_generation_prompt=True)
        if isinstance(start, Fault):
            return start
        if fault := left_out(messages, start, whose="policy"):
            return fault
        start = _without_open_thought(start, messages[-1]["content"])
        texts: list[str | Fault] = [start]
        for answer in answers:
            text = self._dialogue([*messages, {"role": "assistant", "content": answer}])
            if isinstance(text, Fault):
                texts.append(text._replace(rule="template_refuses_answer"))
            else:
                texts.append(text if holds(text.removeprefix(start), answer) else _CUT)
        return texts

    def _dialogue(self, messages: list[Message], *, add_generation_prompt: bool = False) -> str | Fault:
        try:
            return render_dialogue(
                self._tokenizer, messages, self._variables, add_generation_prompt=add_generation_prompt
            )
        except TemplateRefusal as error:
            return Fault("template_refuses_prompt", str(error), "the policy's template cannot hold it")

    def _encode(self, texts: list[str], counts: list[int]) -> list[IntArray]:
        if not texts:
            return []
        if not self._raw:
            return self._ids(texts, special=False)
        starts = np.cumsum([0, *(1 + count for count in counts)])[:-1]
        is_prompt = set(starts.tolist())
        prompts = iter(self._ids([texts[i] for i in sorted(is_prompt)], special=True))
        rest = [text for i, text in enumerate(texts) if i not in is_prompt]
        answers = iter(self._ids(rest, special=False))
        return [next(prompts) if i in is_prompt else next(answers) for i in range(len(texts))]

    def _ids(self, texts: list[str], *, special: bool) -> list[IntArray]:
        if not texts:
            return []
        encoded = self._tokenizer(
            texts, add_special_tokens=special, truncation=False, padding=False,
            return_attention_mask=False, verbose=False,
        )  # fmt: skip
        return [np.asarray(ids, dtype=np.int64) for ids in encoded["input_ids"]]

    def _split(
        self, prompt: IntArray, full: list[IntArray], good: list[int], wrong: dict[int, Fault],
        texts: Sequence[str],
    ) -> Rendered | Fault:  # fmt: skip
        if len(prompt) == 0:
            return Fault("no_prompt_tokens", "0", "the prompt has no tokens, so no state precedes the answer")
        if self._max_length is not None and len(prompt) >= self._max_length:
            return _overflow(len(prompt), self._max_length, "the prompt alone fills the policy's context")
        answers, candidates, faults = [], [], dict(wrong)
        for j, ids in zip(good, full, strict=True):
            answer = self._answer(prompt, ids, texts[j])
            if isinstance(answer, Fault):
                faults[j] = answer
            else:
                answers.append(answer)
                candidates.append(j)
        return Rendered(prompt, answers, candidates, faults, len(texts))

    def _answer(self, prompt: IntArray, ids: IntArray, text: str) -> IntArray | Fault:
        if self._raw:
            answer = ids
        elif len(ids) < len(prompt) or not np.array_equal(ids[: len(prompt)], prompt):
            same = int((ids[: len(prompt)] == prompt[: len(ids)]).cumprod().sum())
            joined = same >= len(prompt) - 1 and text[:1].isspace()
            return Fault(
                "template_rewrites_history", str(same),
                f"the rendered prompt has {len(prompt)} tokens, but only {same} of them begin the dialogue "
                "with the answer" + (_JOINED if joined else ""),
            )  # fmt: skip
        else:
            answer = ids[len(prompt) :]
        if len(answer) <= _SHORT_ANSWER and len(self._ids([text], special=False)[0]) == 0:
            return Fault("no_answer_tokens", "0", "the policy's tokenizer makes nothing of the answer")
        length = len(prompt) + len(answer)
        if self._max_length is not None and length > self._max_length:
            return _overflow(length, self._max_length, "prompt and answer are longer than the context")
        return answer

    def identity(self) -> str:
        """12 hex digits over the template in force."""
        return hashlib.sha256(str(self._tokenizer.chat_template).encode()).hexdigest()[:12]


_JOINED: Final = (
    ": the answer begins with white space, which the tokenizer joins to the prompt's last token; take it away"
)


def _overflow(length: int, limit: int, reason: str) -> Fault:
    return Fault("context_overflow", str(length), f"{reason}: {length} tokens, at most {limit}")


def _without_open_thought(start: str, last: str) -> str:
    """A prompt up to where the model's turn begins.

    Templates of models that reason end it with "<think>", and write an answer's turn otherwise: with an empty
    thought (Qwen3.5 and later), or with none (DeepSeek-R1). So no dialogue would begin with its prompt.
    """
    text = start.rstrip()
    opening = next((o for o, _ in REASONING_MARKERS if text.endswith(o)), None)
    return start if opening is None or last.rstrip().endswith(opening) else text.removesuffix(opening)


def _prompt_fault(prompt: Sequence[Message] | str) -> Fault | None:
    contents = [prompt] if isinstance(prompt, str) else [message["content"] for message in prompt]
    if not contents:
        return Fault("empty_prompt", "", "the prompt has no messages")
    found = [fault for content in contents if (fault := fault_in_text(content)) not in {None, "empty"}]
    if found:
        return Fault(f"{found[0]}_prompt", "", "the prompt holds what no tokenizer takes")
    if all(fault_in_text(content) == "empty" for content in contents):
        return Fault("empty_prompt", "", "the prompt is empty")
    return None


def _answer_fault(answer: str | None) -> Fault | None:
    fault = fault_in_text(answer)
    if fault is None:
        return None
    reason = "the answer is empty" if fault == "empty" else "the answer holds what no tokenizer takes"
    return Fault(f"{fault}_response", "", reason)

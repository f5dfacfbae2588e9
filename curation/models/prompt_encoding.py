"""Prompts as the tokens that a model in this process reads, or the reason why it cannot. Nothing is sampled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from curation.candidates.reasoning import REASONING_MARKERS
from curation.models.protocols import Fault
from curation.models.template_options import template_variables
from curation.text import Message, fault_in_text

__all__ = [
    "TEMPLATE_ERRORS",
    "PromptEncoder",
    "TemplateRefusal",
    "holds",
    "left_out",
    "render_dialogue",
    "text_fault",
]

TEMPLATE_ERRORS: Final = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What a model's template can raise besides Jinja's own errors: it is a program of somebody else."""
_END: Final = 32
"""Tokens at the end of a prompt in which a template may open the model's thought."""


class PromptEncoder:
    """A tokenizer with its chat template.

    Args:
        context: tokens that the model can read, prompt and answer together; None where there is no limit.
        max_new_tokens: room that is kept for the answer.
        system_prompt: put before every prompt that has no system message of its own.
        template_options: variables of the template.

    Raises:
        InputError: when the template reads no variable of such a name.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        context: int | None,
        max_new_tokens: int,
        system_prompt: str | None,
        template_options: Mapping[str, Any] | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self._context = context
        self._max_new_tokens = max_new_tokens
        self._system_prompt = system_prompt
        self._variables = template_variables(tokenizer, template_options)

    def encode(self, prompt: Sequence[Message]) -> tuple[int, ...] | Fault:
        """The tokens of a prompt with the opening of its answer, or why there are none."""
        messages = [dict(message) for message in prompt]
        if fault := text_fault(messages):
            return fault
        if self._system_prompt is not None and messages[0]["role"] != "system":
            messages.insert(0, {"role": "system", "content": self._system_prompt})
        text = self._render(messages)
        if isinstance(text, Fault):
            return text
        ids = self._tokenizer(text, add_special_tokens=False, return_attention_mask=False, verbose=False)[
            "input_ids"
        ]
        needed = len(ids) + self._max_new_tokens
        if self._context is not None and needed > self._context:
            reason = (
                f"{len(ids)} tokens and room for {self._max_new_tokens} more are longer than "
                f"the model's context of {self._context}"
            )
            return Fault("context_overflow", str(len(ids)), reason)
        return tuple(ids)

    def opened_thought(self, ids: Sequence[int]) -> str:
        """The opening marker of reasoning with which the template ends a prompt, with the white space after it.

        The model goes on inside the thought, so that its text alone does not say where the thought begins: one that
        is cut before its end would pass for an answer. Nothing where the model opens its thought by itself.
        """
        end: str = self._tokenizer.decode(
            list(ids[-_END:]), skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        opening = next((o for o, _ in REASONING_MARKERS if end.rstrip().endswith(o)), None)
        return "" if opening is None else end[end.rindex(opening) :]

    def _render(self, messages: list[Message]) -> str | Fault:
        """The prompt as text, or a fault: a template may also drop a message without a word."""
        system = messages[0]["content"] if messages[0]["role"] == "system" else None
        try:
            text = render_dialogue(self._tokenizer, messages, self._variables, add_generation_prompt=True)
        except TemplateRefusal as error:
            if system is not None and len(messages) > 1 and not isinstance(self._render(messages[1:]), Fault):
                return _no_system_prompt()
            return Fault("template_refuses_prompt", str(error), "the generator's template cannot hold the prompt")
        dropped = left_out(messages, text, whose="generator")
        if dropped is None:
            return text
        return _no_system_prompt() if dropped.value == "system" else dropped


class TemplateRefusal(Exception):
    """What a model's template raised in place of a text."""


def render_dialogue(
    tokenizer: Any,
    messages: Sequence[Message],
    variables: Mapping[str, Any],
    *,
    add_generation_prompt: bool = False,
) -> str:
    """A dialogue as a model's template writes it.

    Raises:
        TemplateRefusal: whatever the template raises.
    """
    from jinja2.exceptions import TemplateError

    try:
        text: str = tokenizer.apply_chat_template(
            list(messages), add_generation_prompt=add_generation_prompt, tokenize=False, **variables
        )
    except (TemplateError, *TEMPLATE_ERRORS) as error:
        raise TemplateRefusal(str(error)) from error
    return text


def left_out(messages: Sequence[Message], text: str, *, whose: str) -> Fault | None:
    """Some templates have no place for a system message, and say nothing. What an earlier answer thought may go."""
    for message in messages:
        if message["role"] in {"system", "user"} and not holds(text, message["content"]):
            reason = f"the {whose}'s template leaves out a message of the {message['role']}, or a part of it"
            return Fault("template_drops_message", message["role"], reason)
    return None


def holds(text: str, part: str) -> bool:
    """Whether a text was rendered whole; white space is the template's to set."""
    return part.strip() in text or "".join(part.split()) in "".join(text.split())


def text_fault(messages: Sequence[Message]) -> Fault | None:
    """Why no model can read a prompt: all of it blank, or text that cannot be encoded."""
    faults = [fault_in_text(message["content"]) for message in messages]
    if all(fault == "empty" for fault in faults):
        return Fault("empty_prompt", "", "the prompt is empty")
    wrong = next((fault for fault in faults if fault not in (None, "empty")), None)
    return Fault(f"{wrong}_prompt", "", "the prompt holds what no tokenizer takes") if wrong else None


def _no_system_prompt() -> Fault:
    return Fault("system_prompt_unsupported", "", "the generator's template has no place for a system message")

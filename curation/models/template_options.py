"""What a model's chat template is told besides the dialogue: a fixed date, and a user's own variables.

Qwen3 thinks unless it is told ``enable_thinking: false``; Granite, DeepSeek and gpt-oss have such variables too.
They change the tokens, so they are part of every key that depends on tokens. Nothing is rendered here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from curation.errors import InputError, closest
from curation.text import canonical_json, content_hash, json_or_text

__all__ = ["TODAY", "check_template_options", "named_options", "template_options_key", "template_variables"]

_TODAY: Final = datetime(2024, 7, 26, tzinfo=UTC)
"""For a template that writes the date: what a model reads would change from day to day, and no key would say so.
Llama's own templates write this one where they cannot ask."""
TODAY: Final = f"{_TODAY:%d %b %Y}"
"""The same as Llama's templates write it, which take it as ``date_string`` and then do not ask."""
_OURS: Final = frozenset({
    "add_generation_prompt", "chat_template", "continue_final_message", "conversation", "documents", "max_length",
    "messages", "padding", "return_assistant_tokens_mask", "return_dict", "return_tensors", "strftime_now",
    "tokenize", "tokenizer_kwargs", "tools", "truncation",
})  # fmt: skip
"""What is decided elsewhere: the dialogue, what becomes of it, and the clock."""


def check_template_options(options: Mapping[str, Any] | None) -> None:
    """
    Raises:
        InputError: for a name that is no variable of a template, or a value that JSON has no form for.
    """
    for name in options or ():
        if name in _OURS or not name.isidentifier():
            raise InputError(f"template_options names {name!r}, which is no variable of a chat template's own")
    try:
        canonical_json(options)
    except (ValueError, TypeError) as error:
        raise InputError(f"template_options holds what JSON has no form for: {error}") from None


def template_options_key(options: Mapping[str, Any] | None) -> list[str]:
    """The part of a fingerprint that they are; none where there are none, so that no key of before has changed."""
    return [f"template:{content_hash(canonical_json(options))[:8]}"] if options else []


def template_variables(tokenizer: Any, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What to give ``apply_chat_template`` besides the dialogue.

    Raises:
        InputError: for an option that the template never reads: it would change nothing, without a word.
    """
    template = str(tokenizer.chat_template)
    words = set(re.findall(r"\w+", template)) if options else set()
    for name in options or ():
        if name not in words:
            raise InputError(
                f"template_options names {name!r}, which the chat template of {tokenizer.name_or_path!r} never "
                f"reads{closest(name, words)}: correct it, or leave it out"
            )
    clock = {"strftime_now": _TODAY.strftime} if "strftime_now" in template else {}
    return clock | dict(options or {})


def named_options(given: Sequence[str]) -> dict[str, Any] | None:
    """Options from a command line, each ``NAME=VALUE``; None where there are none.

    Raises:
        InputError: for one without a name or a value, or one that is given twice.
    """
    found: dict[str, Any] = {}
    for text in given:
        name, _, value = text.partition("=")
        if not name or not value or name in found:
            raise InputError(
                f"template option {text!r}: expected NAME=VALUE, such as enable_thinking=false, once each"
            )
        found[name] = json_or_text(value)
    return found or None

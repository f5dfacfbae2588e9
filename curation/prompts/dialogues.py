"""One row's texts and dialogues: strings, message lists and hh-rlhf strings as messages, pairs split.

Each function handles one value and raises RowError with the rule it breaks. Columns and frames are in
``shapes``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, NoReturn

from curation.files.rejects import RowError
from curation.text import ROLES, Message, calls_tool, fault_in_text, normalise
from curation.validation_words import kind_of

__all__ = [
    "Pair",
    "as_dialogue",
    "as_prompt",
    "as_response",
    "is_hh",
    "is_message",
    "role_of",
    "split_last",
    "split_pair",
    "with_system",
]

_HH_START: Final = re.compile(r"\s*Human:")
_HH_ASSISTANT: Final = re.compile(r"\n\nAssistant:")
_HH_TURN: Final = re.compile(r"(?:^\s*|\n\n)(Human|Assistant):")
_HH_ROLES: Final = {"Human": "user", "Assistant": "assistant"}
_ALIASES: Final = {
    "human": "user", "prompter": "user", "gpt": "assistant", "bot": "assistant", "chatgpt": "assistant",
}  # fmt: skip

_REASONS: Final = {
    "null": "{} is null",
    "empty": "{} is empty, or white space and invisible characters",
    "nul_character": "{} holds a NUL character",
    "invalid_unicode": "{} holds half of a surrogate pair, which is not Unicode text",
}


class Pair(NamedTuple):
    """A preference pair with its dialogue split off."""

    prompt: list[Message]
    chosen: str
    rejected: str


def is_hh(text: str) -> bool:
    """Whether a string is a dialogue as hh-rlhf writes it: ``\\n\\nHuman: … \\n\\nAssistant: …``."""
    return _HH_START.match(text) is not None and _HH_ASSISTANT.search(text) is not None


def as_dialogue(value: Any, column: str) -> str | list[Message]:
    """A cell as the plain string it is, or as the messages that it lists or spells (hh-rlhf).

    Raises:
        RowError: ``null_*``, ``empty_*``, ``not_text``, ``unknown_role``, ``nul_character``, …
    """
    if isinstance(value, str):
        _check_text(value, column)
        return _hh_messages(value) if is_hh(value) else value
    if isinstance(value, Mapping):
        value = [value]
    if isinstance(value, list) and value and all(isinstance(turn, str) for turn in value):
        # Sets of prompts list the user's turns; of several, the answers between them are not known.
        if len(value) > 1:
            raise RowError("not_text", column, f"{column} lists {len(value)} texts without roles, expected one")
        return as_dialogue(value[0], column)
    if value is None or (isinstance(value, Sequence) and not value):
        _fault("null" if value is None else "empty", column)
    if not isinstance(value, list | tuple):
        raise RowError("not_text", column, f"{column} is {kind_of(value)}, expected text or messages")
    return [_message(item, column) for item in value]


def as_prompt(value: Any, column: str = "prompt") -> list[Message]:
    """A cell as the messages of a prompt; a string is one user message.

    Raises:
        RowError: as :func:`as_dialogue`; ``empty_prompt`` when no message says anything.
    """
    messages = _as_list(as_dialogue(value, column), "user")
    if messages[-1]["role"] == "assistant" and not messages[-1]["content"].strip():
        # hh-rlhf prompts end with the name of who speaks next.
        messages = messages[:-1]
    if not any(m["content"].strip() for m in messages if m["role"] != "system"):
        _fault("empty", column)
    return messages


def with_system(messages: list[Message], value: Any) -> list[Message]:
    """A prompt with the system message that stands in a column of its own; null and blank for none.

    Raises:
        RowError: ``not_text``, ``nul_character``, …; ``two_system_messages`` when the prompt brings another one.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return messages
    if not isinstance(value, str):
        raise RowError("not_text", "system", f"system is {kind_of(value)}, expected text")
    _check_text(value, "system")
    if messages[0]["role"] != "system":
        return [{"role": "system", "content": value}, *messages]
    if normalise(messages[0]["content"]) != normalise(value):
        reason = "the prompt begins with a system message, and the column system holds another one"
        raise RowError("two_system_messages", "system", reason)
    return messages


def as_response(value: Any, column: str, *, prompt: Sequence[Message] = ()) -> str:
    """A cell as the text of one answer; a message list may repeat the prompt before it.

    Raises:
        RowError: as :func:`as_dialogue`; ``no_assistant_turn``, ``prompts_differ``.
    """
    dialogue = as_dialogue(value, column)
    if isinstance(dialogue, str):
        return dialogue
    before, response = split_last(dialogue, column)
    if before and prompt and not _starts_with(list(before), prompt, whole=True):
        raise RowError("prompts_differ", column, f"the dialogue in {column} is not the row's prompt")
    return response


def split_last(dialogue: Sequence[Message], column: str) -> tuple[list[Message], str]:
    """A dialogue as what comes before the last message and the last message's text.

    Raises:
        RowError: ``no_assistant_turn`` when the assistant does not speak last; ``empty_*``.
    """
    if dialogue[-1]["role"] != "assistant":
        reason = f"the last message of {column} is not the assistant's"
        raise RowError("no_assistant_turn", dialogue[-1]["role"], reason)
    _check_text(dialogue[-1]["content"], column)
    return list(dialogue[:-1]), dialogue[-1]["content"]


def split_pair(prompt: Any, chosen: Any, rejected: Any, *, has_prompt: bool) -> Pair:
    """The prompt and the two answers of a row, whichever of them repeats the dialogue.

    Args:
        prompt: the prompt's cell; ignored without ``has_prompt``.
        chosen: text, or messages that may repeat the dialogue.
        rejected: the same.
        has_prompt: whether there is a prompt column. Without one the prompt is the common prefix.

    Raises:
        RowError: ``prompts_differ``, ``chosen_equals_rejected``, ``null_prompt``, and as above.
    """
    given = as_prompt(prompt) if has_prompt and prompt is not None else []
    if has_prompt and prompt is None:
        _fault("null", "prompt")
    two = as_dialogue(chosen, "chosen"), as_dialogue(rejected, "rejected")
    if isinstance(two[0], str) and isinstance(two[1], str):
        if not given:
            raise RowError("null_prompt", "prompt", "there is no prompt: chosen and rejected hold no dialogue")
        pair = Pair(given, two[0], two[1])
    else:
        pair = _split_common(given, _as_list(two[0], "assistant"), _as_list(two[1], "assistant"))
    if normalise(pair.chosen) == normalise(pair.rejected):
        raise RowError("chosen_equals_rejected", "rejected", "chosen and rejected are the same text")
    return pair


def _split_common(given: list[Message], chosen: list[Message], rejected: list[Message]) -> Pair:
    if given and _starts_with(chosen, given) and _starts_with(rejected, given):
        chosen, rejected = chosen[len(given) :], rejected[len(given) :]
        repeated = False
    else:
        # A dialogue that starts with the assistant goes on from the prompt.
        repeated = chosen[0]["role"] != "assistant"
    before, answer = split_last(chosen, "chosen")
    before_rejected, answer_rejected = split_last(rejected, "rejected")
    if not _same(before, before_rejected):
        raise RowError("prompts_differ", "rejected", "chosen and rejected answer different dialogues")
    prompt = _longer(given, before) if given and before and repeated else [*given, *before]
    if not any(m["content"].strip() for m in prompt if m["role"] != "system"):
        raise RowError("null_prompt", "prompt", "there is no prompt before the two answers")
    return Pair(prompt, answer, answer_rejected)


def _longer(given: list[Message], dialogue: list[Message]) -> list[Message]:
    """The prompt column or the dialogue of the answers, whichever holds the other; no turn of either is lost."""
    if _same(given[-len(dialogue) :], dialogue):
        return given
    said = {normalise(m["content"]) for m in dialogue}
    system = [m for m in given if m["role"] == "system" and normalise(m["content"]) not in said]
    others = [m for m in given if m["role"] != "system"]
    clash = system and dialogue[0]["role"] == "system"
    if clash or not others or not all(normalise(m["content"]) in said for m in others):
        raise RowError("prompts_differ", "prompt", "the prompt is not in the dialogue of chosen and rejected")
    return [*system, *dialogue]


def role_of(name: str) -> str:
    """A role by the name that we use for it."""
    return _ALIASES.get(name, name)


def is_message(value: Any) -> bool:
    """Whether a value is one turn of a dialogue: a known role beside a text, not any object with a role."""
    try:
        _message(value, "")
    except RowError:
        return False
    return True


def _message(item: Any, column: str) -> Message:
    if not isinstance(item, Mapping):
        found = type(item).__name__
        raise RowError("not_text", column, f"a message of {column} is a {found}, expected role and content")
    role = item.get("role") or item.get("from")
    content = item.get("content") if item.get("content") is not None else item.get("value")
    role = role_of(role) if isinstance(role, str) else role
    if role not in ROLES:
        reason = f"a message of {column} has an unknown role, expected one of {', '.join(ROLES)}"
        raise RowError("unknown_role", str(role)[:64], reason)
    if calls_tool(item):
        raise RowError("tool_calls", column, f"a message of {column} calls a tool, which its text does not say")
    if content is None:
        _fault("null", column)
    content = _only_text(content)
    if not isinstance(content, str):
        raise RowError("not_text", column, f"a message of {column} has no text content")
    fault = fault_in_text(content)
    if fault is not None and fault != "empty":
        _fault(fault, column)
    return {"role": str(role), "content": content}


def _only_text(content: Any) -> Any:
    """The text of content that is a list of one part, {type: text, text: …}; other content as it is."""
    if not isinstance(content, list | tuple) or len(content) != 1 or not isinstance(content[0], Mapping):
        return content
    said = {key: value for key, value in content[0].items() if value is not None}
    return said["text"] if said.keys() == {"type", "text"} and said["type"] == "text" else content


def _hh_messages(text: str) -> list[Message]:
    """The turns of an hh-rlhf string; the spaces around a turn belong to its marker."""
    parts = _HH_TURN.split(text)[1:]
    return [
        {"role": _HH_ROLES[who], "content": said.strip()} for who, said in zip(parts[::2], parts[1::2], strict=True)
    ]


def _as_list(dialogue: str | list[Message], role: str) -> list[Message]:
    return [{"role": role, "content": dialogue}] if isinstance(dialogue, str) else dialogue


def _same(a: Sequence[Message], b: Sequence[Message]) -> bool:
    return len(a) == len(b) and all(
        x["role"] == y["role"] and normalise(x["content"]) == normalise(y["content"])
        for x, y in zip(a, b, strict=True)
    )


def _starts_with(dialogue: list[Message], prompt: Sequence[Message], *, whole: bool = False) -> bool:
    long_enough = len(dialogue) == len(prompt) if whole else len(dialogue) > len(prompt)
    return long_enough and _same(dialogue[: len(prompt)], prompt)


def _check_text(text: str, column: str) -> None:
    fault = fault_in_text(text)
    if fault is not None:
        _fault(fault, column)


def _fault(fault: str, column: str) -> NoReturn:
    """Raises the RowError of a fault that ``fault_in_text`` names, said of a column."""
    field = "prompt" if column in {"prompt", "messages"} else "response"
    rule = f"{fault}_{field}" if fault in {"null", "empty"} else fault
    raise RowError(rule, column, _REASONS[fault].format(column))

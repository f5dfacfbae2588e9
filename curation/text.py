"""Text: chat messages, normalisation and content hashes. No files, no models.

Identifiers are the first 32 hex digits of a SHA-256 over an unambiguous encoding of the *normalised*
content, so that two rows which differ only in invisible ways share one identifier. The text that is
stored is always the text that was given.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, Final

from curation.validation_words import kind_of

__all__ = [
    "BLANK",
    "ROLES",
    "Message",
    "as_messages",
    "calls_tool",
    "canonical_json",
    "content_hash",
    "fault_in_text",
    "json_or_text",
    "last_user_text",
    "messages_text",
    "normalise",
    "pair_id",
    "prompt_id",
    "response_id",
]

Message = dict[str, str]
"""One chat turn: ``{"role": ..., "content": ...}``."""

ROLES: Final = ("system", "user", "assistant", "tool")

_WHITE: Final = "".join(sign for sign in map(chr, range(0x3001)) if sign.isspace())
_IGNORABLE: Final = (
    "\u00ad", "\u034f", "\u061c", "\u115f\u1160", "\u17b4\u17b5", "\u180b\u180f", "\u200b\u200f", "\u202a\u202e",
    "\u2060\u206f", "\u2800", "\u3164", "\ufe00\ufe0f", "\ufeff", "\uffa0",
)  # fmt: skip
"""First and last of Unicode's default ignorable code points (of the first plane), and the empty Braille."""
BLANK: Final = _WHITE + "".join(chr(n) for span in _IGNORABLE for n in range(ord(span[0]), ord(span[-1]) + 1))
"""Signs that nobody sees: a text of them alone says nothing."""

_ID_HEX_DIGITS: Final = 32
_TRAILING_SPACES: Final = re.compile(r"[^\S\n]+$", re.MULTILINE)


def normalise(text: str) -> str:
    """The form of a text that is compared and hashed.

    NFC, one kind of line end, no white space at the end of a line or around the text. Case and inner
    white space are kept: they can change what an answer means (source code, for one).
    """
    text = unicodedata.normalize("NFC", text).replace("\r\n", "\n").replace("\r", "\n")
    return _TRAILING_SPACES.sub("", text).strip()


def content_hash(*parts: str) -> str:
    """32 hex digits that depend on every part and on where each one ends."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()[:_ID_HEX_DIGITS]


def prompt_id(messages: Sequence[Mapping[str, str]]) -> str:
    """The identifier of a prompt: its roles and normalised contents, in order."""
    parts = [part for m in messages for part in (m["role"], normalise(m["content"]))]
    return content_hash("prompt", *parts)


def pair_id(prompt: str, chosen: str, rejected: str) -> str:
    """The identifier of the pair of two answers with these identifiers."""
    return content_hash("pair", prompt, chosen, rejected)


def response_id(prompt: str, response: str) -> str:
    """The identifier of a response to the prompt with identifier ``prompt``."""
    return content_hash("response", prompt, normalise(response))


def as_messages(value: Any, *, role: str = "user") -> list[Message]:
    """A string, or a list of {role, content}, as a list of messages.

    Raises:
        ValueError: when the value is neither, with what was found instead.
    """
    if isinstance(value, str):
        return [{"role": role, "content": value}]
    if not isinstance(value, Sequence) or isinstance(value, bytes):
        raise ValueError(f"expected a string or a list of messages, found {kind_of(value)}")
    messages: list[Message] = []
    for position, item in enumerate(value):
        if not isinstance(item, Mapping):
            raise ValueError(f"message {position} is {kind_of(item)}, expected role and content")
        content = item.get("content")
        if not isinstance(content, str):
            raise ValueError(f"message {position} has no text content")
        if item.get("role") not in ROLES:
            raise ValueError(
                f"message {position} has role {item.get('role')!r}, expected one of {', '.join(ROLES)}"
            )
        messages.append({"role": str(item["role"]), "content": content})
    return messages


def calls_tool(message: Mapping[str, Any]) -> bool:
    """Whether a message calls a tool, and its text, if it has any, is not all that it says."""
    return bool(message.get("tool_calls") or message.get("function_call"))


def messages_text(messages: Sequence[Mapping[str, str]]) -> str:
    """The contents of a dialogue joined by blank lines: what encoders and detectors read of a prompt.

    A single message is its content alone. With several, each is preceded by its role.
    """
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n\n".join(f"{m['role']}: {m['content']}" for m in messages)


def last_user_text(prompt: Sequence[Mapping[str, str]]) -> str:
    """What a dialogue asks: its last user turn, or its last turn where no user speaks."""
    for message in reversed(prompt):
        if message["role"] == "user":
            return message["content"]
    return prompt[-1]["content"] if prompt else ""


def fault_in_text(text: str | None) -> str | None:
    """The rule that a text breaks, or None: ``null``, ``empty``, ``invalid_unicode``, ``nul_character``."""
    if text is None:
        return "null"
    if not text.strip(BLANK):
        return "empty"
    if "\x00" in text:
        return "nul_character"
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return "invalid_unicode"
    return None


def json_or_text(text: str) -> Any:
    """A value of an option as it is typed: what is no JSON is a text, but for Python's ``True`` and ``False``."""
    try:
        return json.loads(text.lower() if text in {"True", "False"} else text)
    except (ValueError, RecursionError):
        return text


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal strings."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)

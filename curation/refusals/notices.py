"""Answers that are none: empty, error objects of a server, notices of a content filter. No model."""

from __future__ import annotations

import json
import re
from typing import Final

__all__ = ["is_empty_or_filtered"]

_ERROR_KEYS: Final = frozenset({"error", "errors", "error_message", "exception"})
_NOTICE: Final = re.compile(
    r"^[\[(<{*\s]*(?:"
    r"(?:this )?(?:content|response|message|answer|output|text|reply) (?:was |has been |is |got )?"
    r"(?:filtered|removed|blocked|withheld|redacted|censored|flagged)"
    r"|(?:blocked|filtered|removed|flagged) (?:by|due to|because of) (?:the |our |a )?"
    r"(?:content|safety|moderation|policy|provider)"
    r"|content[_ ]filter(?:ed|ing)?"
    r"|redacted|removed by moderator|no response|no output|empty response"
    r"|(?:http )?(?:error|status)(?: code)?[: ]+[45]\d\d"
    r"|(?:4\d\d|5\d\d) (?:bad request|unauthorized|forbidden|not found|too many requests"
    r"|internal server error|bad gateway|service unavailable|gateway time-?out)"
    r"|(?:rate limit|context length|request timed? ?out|connection (?:error|reset|refused))\b"
    r"|<!doctype html>\s*<html[^>]*>\s*<head>\s*<title>\s*[45]\d\d"
    r")",
    re.IGNORECASE,
)
_BARE: Final = frozenset({"null", "none", "nan", "n/a", "undefined", "...", "…", "-", "[]", "{}", '""'})
_MAX_NOTICE: Final = 400


def is_empty_or_filtered(answer: str) -> bool:
    """Whether nothing was answered: no text, a filter's notice, or an error object in JSON.

    An emoji, a number or a piece of code is an answer.
    """
    text = answer.strip().strip("\ufeff\u200b\u200c\u200d\u2060").strip()
    if not text or text.lower() in _BARE:
        return True
    if text[0] in "{[" and _is_error_object(text):
        return True
    return len(text) <= _MAX_NOTICE and _NOTICE.match(text) is not None


def _is_error_object(text: str) -> bool:
    try:
        value = json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        return False
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, dict):
        return False
    keys = {str(key).lower() for key in value}
    if keys & _ERROR_KEYS and any(value[key] for key in value if str(key).lower() in _ERROR_KEYS):
        return not keys & {"answer", "result", "data", "output", "choices", "content"}
    return str(value.get("finish_reason", "")).lower() == "content_filter"

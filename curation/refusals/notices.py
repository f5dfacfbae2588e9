"""Answers that are none: empty, error objects of a server, notices of a content filter. No model."""

from __future__ import annotations

import ast
import json
import re
from typing import Any, Final

from curation.text import BLANK

__all__ = ["is_empty_or_filtered", "may_be_no_answer"]

_ANSWER_KEYS: Final = frozenset({"answer", "result", "data", "output", "choices", "content"})
_ERROR_KEYS: Final = frozenset({"error", "errors", "error_message", "exception"})
_ENDS: Final = r"[ \t\"'*]*(?:$|[\r\n\])}>.,:;!(|/–—-])"
_GIVES_CAUSE: Final = r"\s+(?:by|due|because|since|owing|for|as|at|in|to|under|per|after|pending)\b"
_PHRASE: Final = (
    r"(?:bad request|unauthorized|forbidden|not found|too many requests|internal server error|bad gateway"
    r"|service unavailable|gateway time-?out)"
)
# Each phrase with what may follow: "404 Not Found means that …" explains one, and is an answer.
_NOTICES: Final = (
    (
        r"(?:this )?(?:content|response|message|answer|output|text|reply) (?:was |has been |is |got )?"
        r"(?:filtered|removed|blocked|withheld|redacted|censored|flagged)",
        _GIVES_CAUSE,
    ),
    (
        r"(?:blocked|filtered|removed|flagged) (?:by|due to|because of) (?:the |our |a )?"
        r"(?:content|safety|moderation|policy|provider)",
        "",
    ),
    (r"content[_ ]filter(?:ed|ing)?", rf"{_GIVES_CAUSE}|\s+(?:was\s+|has been\s+)?(?:triggered|error|activated)\b"),
    (r"redacted|removed by moderator", _GIVES_CAUSE),
    (
        r"no response|no output|empty response",
        r"\s+(?:(?:was|has been|could be)\s+)?(?:received|generated|returned|available|given|provided|produced)\b"
        r"|\s+(?:from|due|within|after)\b",
    ),
    (r"(?:http )?(?:error|status)(?: code)?[: ]+[45]\d\d", rf"\s+{_PHRASE}{_ENDS}|\s+(?:while|from|on|returned)\b"),
    (rf"[45]\d\d {_PHRASE}", r"\s+(?:error|while|from|on|for url|nginx|openresty|cloudflare)\b"),
    (
        r"rate limit|context length|request timed? ?out|connection (?:error|reset|refused)",
        r"\s+(?:(?:was|has been)\s+)?(?:exceeded|reached|hit|error|by|while|after|to|try|please)\b",
    ),
)
_NOTICE: Final = re.compile(
    r"^[\[(<{*\s]*(?:"
    + "|".join(f"(?:{phrase})(?:{_ENDS}{f'|{after}' if after else '|'})" for phrase, after in _NOTICES)
    + ")",
    re.IGNORECASE,
)
_ERROR_PAGE: Final = re.compile(
    r"\s*(?:<!doctype html[^>]*>\s*)?<html[^>]*>\s*<head[^>]*>\s*(?:<meta[^>]*>\s*)*<title>\s*"
    r"(?:[^<|]{0,80}\|\s*)?(?:error\s+)?[45]\d\d:?\s+"
    r"(?:bad request|unauthori[sz]ed|authorization required|forbidden|not found|request time-?out|too many requests"
    r"|(?:internal )?server error|bad gateway|service (?:temporarily )?unavailable|gateway time-?out)",
    re.IGNORECASE,
)
_BARE: Final = frozenset({"null", "nan", "undefined", "...", "…", "-", "–", "—"})
_NOTHING: Final = frozenset(
    {"none", "n/a", "[]", "{}", "()", '""', "''", "[null]", "[none]", '[""]', "[{}]", "[[]]"}
)
_MAX_NOTICE: Final = 400
_MAX_PRINTED: Final = 2_000
_PRINTED: Final = re.compile(
    r"[\[\s]*\{\s*'(?:error|errors|error_message|exception|object|type|status|code)'\s*:", re.IGNORECASE
)
_INVISIBLE: Final = BLANK + "".join(map(chr, range(32)))
_DETAIL: Final = re.compile(
    r"(?:not authenticated|not found|method not allowed|unauthori[sz]ed|forbidden|too many requests"
    r"|(?:internal )?server error|service unavailable|rate limit.{0,80})[.!]?",
    re.IGNORECASE,
)
_STATUS_KEYS: Final = frozenset({"code", "status", "status_code", "statuscode"})
_BESIDE_STATUS: Final = frozenset(
    {"message", "detail", "title", "type", "object", "param", "request_id", "success", "timestamp"}
)


def is_empty_or_filtered(answer: str) -> bool:
    """Whether nothing was answered: no text, a filter's notice, or an error object in JSON.

    An emoji, a number or a piece of code is an answer.
    """
    text = answer.strip(_INVISIBLE)
    if not text or text.lower() in _BARE:
        return True
    # A streamed event is its object after "data:".
    streamed = text.removeprefix("data:").lstrip()
    if streamed and streamed[0] in "{[" and _is_error_object(streamed):
        return True
    if text[0] == "<" and _ERROR_PAGE.match(text):
        return True
    return len(text) <= _MAX_NOTICE and _NOTICE.match(text) is not None


def may_be_no_answer(answer: str) -> bool:
    """Whether an answer is only ``None``, ``N/A``, ``[]`` or the like.

    It is right where there is nothing to list, and what a program writes where a model said nothing: only the
    request can tell.
    """
    return len(answer) <= _MAX_NOTICE and "".join(answer.lower().split()).removesuffix(".") in _NOTHING


def _is_error_object(text: str) -> bool:
    value = _read_object(text)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, dict):
        return False
    keys = {str(key).lower() for key in value}
    if keys & _ERROR_KEYS and any(value[key] for key in value if str(key).lower() in _ERROR_KEYS):
        # GraphQL sends "data": null beside its errors, servers of models "choices": [].
        return not any(value[key] for key in value if str(key).lower() in _ANSWER_KEYS)
    if _is_status(value, keys):
        return True
    return str(value.get("finish_reason", "")).lower() == "content_filter"


def _read_object(text: str) -> Any:
    """JSON, or a dict as Python prints it; None where it is neither."""
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        pass
    if len(text) > _MAX_PRINTED or not _PRINTED.match(text):
        return None
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None


def _is_status(value: dict[str, object], keys: set[str]) -> bool:
    """An error without a field of that name: ``{"object": "error", …}``, ``{"status": 500, …}`` with words."""
    if keys in ({"detail"}, {"message"}):
        return _is_detail(value)
    lower = {str(key).lower(): item for key, item in value.items()}
    if not keys <= _STATUS_KEYS | _BESIDE_STATUS:
        return False
    if "error" in (lower.get("object"), lower.get("type"), lower.get("status")):
        return True
    numbers = [lower[key] for key in _STATUS_KEYS & keys]
    says = keys & {"message", "detail", "title"}
    if says and lower.get("success") is False:
        return True
    return bool(says) and any(isinstance(n, int | str) and re.fullmatch(r"[45]\d\d", str(n)) for n in numbers)


def _is_detail(value: dict[str, object]) -> bool:
    """What FastAPI (and so vLLM) or a gateway says of a request it refuses: a short phrase, or the wrong fields."""
    detail = next(iter(value.values()))
    if isinstance(detail, str):
        return _DETAIL.fullmatch(detail.strip()) is not None
    faults = detail if isinstance(detail, list) else []
    return bool(faults) and all(isinstance(fault, dict) and {"loc", "msg"} <= fault.keys() for fault in faults)

"""What a server's reply means: an answer, a fault of this one request, something to try again, or the end.

Plain functions over status codes and bodies; nothing is sent here. A server's own words are never repeated
in a reason, for they may quote the prompt: only its error code is, where it is one word.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final, NamedTuple

from curation.models.chat.protocol import ChatAnswer, TokenProbabilities
from curation.models.protocols import Fault

__all__ = [
    "Broken",
    "Refusal",
    "Retry",
    "Stop",
    "answer_in",
    "meaning_of_status",
    "refused_fields",
    "retry_after",
    "said_in",
]

RETRIED: Final = frozenset({408, 409, 425, 429})
"""And everything from 500 on."""
_CONTEXT: Final = re.compile(
    r"context[ _](length|window|size)|max_model_len|maximum (model|context|input)|too many tokens"
)
_SYSTEM: Final = re.compile(r"system.{0,40}(not supported|unsupported|not allowed)|(not support|only).{0,40}system")
_TEMPLATE: Final = re.compile(r"must alternate|chat template|templateerror")
_NOT_TAKEN: Final = re.compile(
    r"unsupported|n['o]t support|not (allowed|permitted|enabled|available|implemented|defined)|unavailable"
    r"|forbidden|unknown|unrecogni[sz]ed|unexpected|extra (inputs|fields)|invalid|must be|cannot (both )?be"
    r"|deprecated|range"
)
_FIELDS: Final = {
    "max_tokens": re.compile(r"use '?max_completion_tokens"),
    "seed": re.compile(r"\bseed\b"),
    "top_logprobs": re.compile(r"\btop_logprobs\b"),
    "logprobs": re.compile(r"\blogprobs\b"),
    "top_p": re.compile(r"\btop_?p\b"),
    "temperature": re.compile(r"\btemperature\b"),
    "chat_template_kwargs": re.compile(r"\bchat_template_kwargs\b"),
    "response_format": re.compile(r"\bresponse_?format\b|json_?schema|structured.outputs?"),
}
"""What a server may not take, and how an error names it."""
_WORD: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{1,60}")
_LONGEST_WAIT: Final = 600.0
_CUT: Final = frozenset({"max_tokens", "model_length", "max_output_tokens"})
"""What gateways to other makers' models say where OpenAI says ``length``."""
_ROUNDING: Final = 1e-3
"""A log-probability may be above 0 by so much."""


class Retry(NamedTuple):
    """Send it again, after at least ``wait`` seconds."""

    fault: Fault
    """What to say when it has been sent often enough."""
    wait: float = 0.0
    broken_off: bool = False
    """Whether the server may have answered all the same, and charged for it."""


class Refusal(NamedTuple):
    """The server will not answer this request, however often it is sent."""

    fault: Fault


class Stop(NamedTuple):
    """No request can succeed."""

    reason: str


class Broken(Exception):
    """A reply of status 200 that holds no answer; its text is the rule."""


def answer_in(body: bytes) -> ChatAnswer:
    """The answer in a chat completion.

    Of several choices (one was asked for) the first with index 0 is the answer.

    Raises:
        Broken: ``broken_json``, ``missing_choice``, ``broken_off`` or ``invalid_unicode_answer``.
    """
    try:
        reply = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Broken("broken_json") from error
    choices = reply.get("choices") if isinstance(reply, dict) else None
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict) and (choice.get("index") or 0) == 0 and isinstance(choice.get("message"), dict):
            if choice.get("error") or choice.get("finish_reason") == "error":
                raise Broken("broken_off")  # a gateway (OpenRouter) whose provider failed on the way
            return _answer(choice, reply.get("usage"))
    raise Broken("missing_choice")


def _answer(choice: dict[str, Any], usage: Any) -> ChatAnswer:
    message = choice["message"]
    text = next((t for k in ("content", "refusal") if (t := _text(message.get(k)))), "")
    thoughts = (*(message.get(k) for k in ("reasoning", "reasoning_content")), _thinking(message.get("content")))
    reasoning = next((t for one in thoughts if (t := _text(one)) is not None), None)
    reason = str(choice.get("finish_reason") or "unknown")
    reason = "length" if reason.lower() in _CUT else reason
    for part in (text, reasoning or "", reason):
        try:
            part.encode()
        except UnicodeEncodeError as error:
            raise Broken("invalid_unicode_answer") from error
    usage = usage if isinstance(usage, dict) else {}
    prompt, completion, both = (_count(usage.get(f"{kind}_tokens")) for kind in ("prompt", "completion", "total"))
    return ChatAnswer(
        text=text,
        finish_reason=reason,
        prompt_tokens=prompt,
        # Google and xAI count what a model thought in the total alone, and charge for it.
        completion_tokens=max(completion, both - prompt) if prompt else completion,
        reasoning=reasoning,
        tokens=_tokens(choice.get("logprobs")),
    )


def _text(content: Any) -> str | None:
    """A text, or the parts of one that are text or a refusal; None for anything else."""
    if isinstance(content, str) or not isinstance(content, list):
        return content if isinstance(content, str) else None
    said = (one.get("text", one.get("refusal")) for one in content if isinstance(one, dict))
    parts = [part for part in said if isinstance(part, str)]
    return "".join(parts) if parts else None


def _thinking(content: Any) -> list[Any] | None:
    """The parts that a server which writes an answer in parts (Mistral's) sets apart as reasoning."""
    parts = [one.get("thinking") for one in content if isinstance(one, dict)] if isinstance(content, list) else []
    return [piece for part in parts if isinstance(part, list) for piece in part] or None


def _tokens(logprobs: Any) -> tuple[TokenProbabilities, ...]:
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    found = []
    for item in content if isinstance(content, list) else ():
        own = _alternative(item)
        if own is None:
            continue
        given = item.get("top_logprobs")
        listed = (_alternative(other) for other in (given if isinstance(given, list) else ()))
        alternatives = dict(alternative for alternative in listed if alternative is not None)
        alternatives.setdefault(*own)
        ordered = sorted(alternatives.items(), key=lambda pair: -pair[1])
        found.append(TokenProbabilities(own[0], tuple(ordered)))
    return tuple(found)


def _alternative(item: Any) -> tuple[str, float] | None:
    """A token and its log-probability; None where a server gives something else, which is no reason to stop."""
    if not isinstance(item, dict) or not isinstance(item.get("token"), str):
        return None
    try:
        logprob = float(item["logprob"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    # Lone surrogates are halves of a character that a tokenizer cut; nothing could store them.
    token = item["token"].encode("utf-8", "replace").decode()
    return None if math.isnan(logprob) or logprob > _ROUNDING else (token, logprob)


def _count(value: Any) -> int:
    counts = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31
    return int(value) if counts else 0


def meaning_of_status(
    status: int, body: bytes, headers: Any, *, model: str, key_variable: str, has_key: bool
) -> Retry | Refusal | Stop:
    """What an error status asks for."""
    error, text = _error_in(body)
    code, said = _code(error), said_in(status, body)
    if status in (401, 403):
        what = f"refused the key in {key_variable}" if has_key else f"wants a key, and {key_variable} is not set"
        return Stop(f"the server {what}: {said}; put a valid key into the environment variable {key_variable}")
    if status == 402 or code in ("insufficient_quota", "billing_hard_limit_reached"):
        return Stop(f"the account behind {key_variable} has no credit left: {said}")
    if status == 404:
        return Stop(f"the server has no model {model!r}, or no chat API at this address: {said}")
    if status in RETRIED or status >= 500:
        rule = "rate_limited" if status == 429 else "server_error"
        return Retry(Fault(rule, str(status), f"the server kept answering with {said}"), retry_after(headers))
    return Refusal(_refusal(status, code, text, said))


def refused_fields(status: int, body: bytes, sent: Mapping[str, Any]) -> list[str]:
    """The fields of a request that an error says the server does not take; empty for any other error.

    OpenAI names the field in ``param``, Mistral and other pydantic servers in ``loc``, and gateways in a sentence.

    Args:
        sent: the request, of which only the names of its fields are looked at.
    """
    if status not in (400, 403, 422):
        return []
    error, text = _error_in(body)
    in_words = isinstance(error.get("message"), str)
    text = text if in_words else body[:20_000].decode("utf-8", "replace").lower()
    if _CONTEXT.search(text) or not _NOT_TAKEN.search(text):
        return []
    named = error.get("param")
    if isinstance(named, str) and named in sent:
        return [] if named in ("model", "messages") else [named]
    if in_words:
        return [name for name, pattern in _FIELDS.items() if name in sent and pattern.search(text)]
    return [name for name in _FIELDS if name in sent and f'"{name}"' in text]


def said_in(status: int, body: bytes) -> str:
    """An error in as many words as may be repeated: its status, and its code where that is one word."""
    error, _ = _error_in(body)
    code = _code(error)
    return f"status {status}" + (f" ({code})" if code else "")


def _refusal(status: int, code: str, text: str, said: str) -> Fault:
    value = str(status)
    if _CONTEXT.search(text) or code == "context_length_exceeded" or status == 413:
        return Fault("context_overflow", value, "the prompt and its answer are longer than the context")
    if _SYSTEM.search(text):
        return Fault("system_prompt_unsupported", value, "the model's template has no place for a system message")
    if _TEMPLATE.search(text):
        return Fault("template_refuses_prompt", value, "the model's template cannot hold the prompt")
    return Fault("bad_request", value, f"the server refused the request: {said}")


def retry_after(headers: Any, *, now: datetime | None = None) -> float:
    """Seconds to wait by ``Retry-After-Ms`` or ``Retry-After`` (seconds or a date), at most ten minutes; else 0."""
    try:
        if milliseconds := headers.get("retry-after-ms"):
            return _wait(float(milliseconds) / 1000)
        given = headers.get("retry-after")
        if given is None:
            return 0.0
        try:
            return _wait(float(given))
        except ValueError:
            then = parsedate_to_datetime(given)
            then = then if then.tzinfo else then.replace(tzinfo=UTC)
            return _wait((then - (now or datetime.now(UTC))).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return 0.0


def _wait(seconds: float) -> float:
    return 0.0 if math.isnan(seconds) else min(max(0.0, seconds), _LONGEST_WAIT)


def _error_in(body: bytes) -> tuple[dict[str, Any], str]:
    """The error object of a body, and its message in lower case for matching."""
    text = body[:20_000].decode("utf-8", "replace")
    try:
        reply = json.loads(body)
    except (ValueError, RecursionError):
        return {}, text.lower()
    error = reply.get("error", reply) if isinstance(reply, dict) else {}
    error = error if isinstance(error, dict) else {"message": str(error)}
    return error, str(error.get("message", text)).lower()


def _code(error: Mapping[str, Any]) -> str:
    return next((str(error[k]) for k in ("code", "type") if _is_word(error.get(k))), "")


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and _WORD.fullmatch(value) is not None

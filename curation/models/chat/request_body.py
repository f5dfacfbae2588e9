"""What one request says to a server, and which of its fields are left out where the server takes none.

Servers of the same API differ in the fields they take: OpenAI's reasoning models have no temperature but 1 and
no log-probabilities, Anthropic's models take temperature or top_p but not both, Mistral's API has no seed. Such a
server answers nothing at all, so what may go without a loss goes, and for the rest there is one clear error.
Nothing is sent here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from curation.models.chat.protocol import ChatOptions, ChatRequest
from curation.text import canonical_json, content_hash

__all__ = ["FIELDS", "RequestBody", "request_seed"]

FIELDS: Final = (
    "model",
    "messages",
    "n",
    "stream",
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "top_p",
    "seed",
    "response_format",
    "logprobs",
    "top_logprobs",
)
"""What is decided here, and by no extra_body."""

_FEW_LOGPROBS: Final = 5
"""What servers allow that do not allow what was asked for."""
_ADVICE: Final = {
    "temperature": "give it temperature 1, which is then left out",
    "top_p": "give it top_p 1, which is then left out",
    "response_format": "leave json_schema out, or ask a server with structured outputs",
    "chat_template_kwargs": "leave template_options out, or give what this server has instead as extra_body",
}


class RequestBody:
    """The body of every request of one ``chat``."""

    def __init__(self, name: str, options: ChatOptions) -> None:
        self._name = name
        self._options = options
        self._length_field = "max_tokens"
        self._top_logprobs = options.top_logprobs
        self._left_out: set[str] = set()

    def of(self, request: ChatRequest) -> dict[str, Any]:
        """What is sent for one answer."""
        o = self._options
        messages = list(request.messages)
        if o.system_prompt is not None and messages[0]["role"] != "system":
            messages.insert(0, {"role": "system", "content": o.system_prompt})
        body: dict[str, Any] = {
            "model": self._name,
            "messages": messages,
            self._length_field: o.max_new_tokens,
            "temperature": o.temperature,
            "top_p": o.top_p,
            "seed": request_seed(o.seed, request),
        }
        if o.json_schema is not None:
            schema = {"name": "answer", "schema": dict(o.json_schema), "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        if self._top_logprobs:
            body |= {"logprobs": True, "top_logprobs": self._top_logprobs}
        if o.template_options:
            body["chat_template_kwargs"] = dict(o.template_options)
        return {name: value for name, value in body.items() if name not in self._left_out} | dict(
            o.extra_body or {}
        )

    def without(self, refused: Sequence[str], sent: Mapping[str, Any]) -> bool:
        """Leave out what a server does not take; whether the same request may be sent again.

        Args:
            refused: the fields that the server named.
            sent: the body that it refused, which may be older than what others have been told since.
        """
        for name in sorted((name for name in refused if name in sent), key=self._cost):
            if name not in self._left_out and self._differs(name, sent):
                return True
            if name in self._left_out or self._leave_out(name):
                return True
        return False

    def untaken(self, refused: Sequence[str]) -> str:
        """What to say of fields that a server does not take and that cannot be left out."""
        o = self._options
        values = {"temperature": f" {o.temperature:g}", "top_p": f" {o.top_p:g}"}
        name = min(refused, key=self._cost)
        if name in (o.extra_body or {}):
            return f"the server takes no {name!r} as extra_body has it: correct it, or leave it out"
        return (
            f"the server takes no {name}{values.get(name, '')} for this model: {_ADVICE.get(name, 'leave it out')}"
        )

    def _differs(self, name: str, sent: Mapping[str, Any]) -> bool:
        """Whether the next request has another value in this field already."""
        return name == "top_logprobs" and sent[name] != self._top_logprobs

    def _leave_out(self, name: str) -> bool:
        o = self._options
        if name == "max_tokens":
            self._length_field = "max_completion_tokens"
            return True
        if name == "top_logprobs" and self._top_logprobs > _FEW_LOGPROBS:
            self._top_logprobs = _FEW_LOGPROBS
            return True
        if name in ("logprobs", "top_logprobs"):
            self._left_out |= {"logprobs", "top_logprobs"}
            return True
        at_rest = {
            "seed": True,
            "top_p": o.top_p == 1.0,
            "temperature": o.temperature == 1.0,
            "response_format": o.json_schema_optional,
        }
        if at_rest.get(name):
            self._left_out.add(name)
            return True
        return False

    def _cost(self, name: str) -> int:
        """The least loss first."""
        order = ("max_tokens", "seed", "top_p", "top_logprobs", "logprobs", "temperature", "response_format")
        return order.index(name) if name in order else len(order)


def request_seed(seed: int, request: ChatRequest) -> int:
    """The seed of one answer: 31 bits from the run's seed, the messages and the sample index."""
    digest = content_hash("seed", str(seed), canonical_json(list(request.messages)), str(request.sample_index))
    return int(digest[:8], 16) & 0x7FFFFFFF

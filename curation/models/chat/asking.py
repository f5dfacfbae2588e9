"""How a judge's chat model is asked, by what stands behind its name: ``…?temperature=1&body.reasoning_effort=low``.

The same words are keys of the judges in a recipe. What a judge is asked, and how it is called, is not here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, TypeVar
from urllib.parse import parse_qs

from curation.errors import InputError, closest
from curation.models.chat.connection import DEFAULT_KEY_VARIABLE
from curation.models.chat.protocol import ChatOptions
from curation.text import json_or_text

__all__ = ["VERDICT", "Asking", "read_asking", "split_options"]

_BODY: Final = "body."
_Number = TypeVar("_Number", int, float)


class Asking(NamedTuple):
    """The options that every judge takes."""

    max_new_tokens: int
    """Of a reply; a model that reasons first needs a thousand or more."""
    temperature: float = 0.0
    extra_body: Mapping[str, Any] | None = None
    """See :class:`curation.models.chat.ChatOptions`."""
    key_variable: str = DEFAULT_KEY_VARIABLE
    """The environment variable with a server's key."""

    def chat_options(self, schema: Mapping[str, Any] | None, *, top_logprobs: int = 0) -> ChatOptions:
        """Structured outputs and log-probabilities; a ``schema`` of None is for a backend that has neither."""
        if schema is None:
            return ChatOptions(self.max_new_tokens, self.temperature, extra_body=self.extra_body)
        return ChatOptions(
            self.max_new_tokens,
            self.temperature,
            json_schema=schema,
            top_logprobs=top_logprobs,
            extra_body=self.extra_body,
            json_schema_optional=True,
        )


VERDICT: Final = Asking(max_new_tokens=48)
"""Of a judge that names a class, or a category."""


def split_options(model: str) -> tuple[str, dict[str, str]]:
    """A MODEL and what stands behind its question mark, by name.

    Raises:
        InputError: when an option stands there twice, or has no value.
    """
    name, _, query = model.partition("?")
    found = parse_qs(query, keep_blank_values=True)
    for option, values in found.items():
        if len(values) > 1 or not values[0]:
            raise InputError(f"option {option!r} behind {name!r} has {len(values)} values, or none: expected one")
    return name, {option: values[0] for option, values in found.items()}


def read_asking(options: dict[str, str], *, max_new_tokens: int, others: tuple[str, ...] = ()) -> Asking:
    """The options of a judge.

    Args:
        options: by name, as ``split_options`` gives them.
        max_new_tokens: where none is given.
        others: names that mean something to the caller, and are passed over here.

    Raises:
        InputError: when one is not known, or has a value that it cannot have.
    """
    asking = Asking(max_new_tokens)
    body: dict[str, Any] = {}
    for name, text in options.items():
        if name in others:
            continue
        if name.startswith(_BODY):
            _place(body, name, text)
        elif name not in Asking._fields or name == "extra_body":
            known = (*others, *(field for field in Asking._fields if field != "extra_body"), "body.<field>")
            raise InputError(f"option {name!r} is not known{closest(name, known)}; there are {', '.join(known)}")
        elif name == "key_variable":
            asking = asking._replace(key_variable=text)
        elif name == "temperature":
            asking = asking._replace(temperature=_number(name, text, float))
        else:
            asking = asking._replace(max_new_tokens=_number(name, text, int))
    return asking._replace(extra_body=body or None)


def _number(name: str, text: str, kind: Callable[[str], _Number]) -> _Number:
    try:
        return kind(text)
    except ValueError:
        raise InputError(f"option {name} is {text!r}, expected a number") from None


def _place(body: dict[str, Any], name: str, text: str) -> None:
    """``body.a.b=true`` is {"a": {"b": true}}; what is no JSON is a text."""
    *path, last = name.removeprefix(_BODY).split(".")
    for step in path:
        inner = body.setdefault(step, {})
        if not isinstance(inner, dict):
            raise InputError(f"option {name} names a field inside {step!r}, which another option gives a value")
        body = inner
    if last in body:
        raise InputError(f"option {name} is given twice, as a field and as what holds fields")
    body[last] = json_or_text(text)

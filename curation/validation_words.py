"""What is wrong of a value, in the words of files and the command line. Where it stands is said elsewhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

__all__ = ["fault_words", "kind_of", "shown_value"]

_EXPECTED: Final = {
    "tuple_type": "expected a list",
    "list_type": "expected a list",
    "invalid_key": "expected a key that is text",
    "model_type": "expected keys with values",
    "dict_type": "expected keys with values",
    "string_type": "expected text",
    "int_type": "expected a whole number",
    "int_parsing": "expected a whole number",
    "int_parsing_size": "expected a smaller number",
    "int_from_float": "expected a whole number",
    "float_type": "expected a number",
    "float_parsing": "expected a number",
    "bool_type": "expected true or false",
    "bool_parsing": "expected true or false",
}
"""In words of YAML and the command line what pydantic says in words of Python."""

_OF_NOTHING: Final = {
    "tuple_type": "[] for none",
    "list_type": "[] for none",
    "model_type": "leave the key out for its defaults",
}
"""What to give in place of a value that is not there."""


def fault_words(fault: Mapping[str, Any]) -> str:
    """One of ``ValidationError.errors()`` in words, without the value that was found."""
    if fault["type"] == "too_short":
        return f"expected at least {fault['ctx']['min_length']} of them"
    if fault["type"] == "too_long":
        return f"expected at most {fault['ctx']['max_length']} of them"
    if fault["type"] == "string_pattern_mismatch":
        return f"expected text of the form {fault['ctx']['pattern']}"
    if fault.get("input", "") in (None, "none") and fault["type"] in _OF_NOTHING:
        return f"{_EXPECTED[fault['type']]} ({_OF_NOTHING[fault['type']]})"
    said = str(fault["msg"]).removeprefix("Value error, ").replace("Input should be ", "expected ", 1)
    return _EXPECTED.get(fault["type"], said)


def shown_value(value: Any) -> str:
    """The value that was found, cut where it is long."""
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."


def kind_of(value: Any) -> str:
    """What a value read from JSON or YAML is: a list, text, a number, and so on."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    kinds = ((str, "text"), (int | float, "a number"), (Mapping, "an object"), (list | tuple, "a list"))
    return next((word for kind, word in kinds if isinstance(value, kind)), f"a {type(value).__name__}")

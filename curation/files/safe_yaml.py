"""Reading YAML that somebody else may have written: plain values only, of bounded size, each key once.

What the values mean is not known here. Custom tags (``!!python/…``) are refused by PyYAML's safe loader.
"""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any, Final

import yaml

from curation.errors import InputError

__all__ = ["read_yaml"]

_MOST_VALUES: Final = 1_000_000
_DEEPEST: Final = 64
_HINTS: Final = {
    "character '\\t'": "indent with spaces, not with tabs",
    "mapping values are not allowed": "put quotes around a text that holds ': ', and indent a section's keys alike",
    "expected <block end>": "indent a section's keys alike",
    "undefined alias": "put quotes around a text that begins with *",
}
"""What is mostly meant by what PyYAML says."""


def read_yaml(path: Path, *, what: str, wrong: type[InputError] = InputError) -> Any:
    """The content of a file.

    Args:
        path: of the file.
        what: how an error names it.
        wrong: the error to raise.

    Raises:
        InputError: (or ``wrong``) when it cannot be read, is not YAML, or has a key twice, a value that refers to
            itself, or references that unfold to more than a million values.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_StrictLoader)  # noqa: S506 - a SafeLoader
    except OSError as error:
        raise wrong(f"{what}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise wrong(f"{what}: not YAML: it is no text in UTF-8 (byte {error.start})") from error
    except yaml.YAMLError as error:
        said = " ".join(str(error).replace('in "<unicode string>", ', "in ").split())
        hint = next((f"; {hint}" for found, hint in _HINTS.items() if found in said), "")
        raise wrong(f"{what}: not YAML: {said}{hint}") from error
    except RecursionError as error:
        raise wrong(f"{what}: nested too deeply, expected at most {_DEEPEST} levels") from error
    except (ValueError, TypeError, OverflowError) as error:
        # A date or a number that there is not.
        raise wrong(f"{what}: not YAML: {' '.join(str(error).split())}; put quotes around a text") from error
    _check_size(content, {}, frozenset(), what, wrong)
    return content


class _StrictLoader(yaml.SafeLoader):
    """The safe loader, but a key that stands twice is an error and not the later value."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue  # the keys of another mapping: its own stand before them
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise yaml.constructor.ConstructorError(
                    None, None, "a list or a mapping cannot be a key", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def _check_size(
    value: Any, known: dict[int, int], above: frozenset[int], what: str, wrong: type[InputError]
) -> int:
    """How many values a value unfolds to; each shared part is looked at once."""
    if not isinstance(value, list | dict | tuple | set):
        if isinstance(value, str) and not value.isascii():
            _check_text(value, what, wrong)
        return 1
    if id(value) in above:
        raise wrong(f"{what}: a value refers to itself (an alias inside its own anchor)")
    if len(above) >= _DEEPEST:
        raise wrong(f"{what}: nested too deeply, expected at most {_DEEPEST} levels")
    if id(value) not in known:
        parts = [part for pair in value.items() for part in pair] if isinstance(value, dict) else value
        inside = above | {id(value)}
        known[id(value)] = 1 + sum(_check_size(part, known, inside, what, wrong) for part in parts)
        if known[id(value)] > _MOST_VALUES:
            raise wrong(f"{what}: its references unfold to more than {_MOST_VALUES:,} values")
    return known[id(value)]


def _check_text(text: str, what: str, wrong: type[InputError]) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise wrong(f"{what}: holds half of a surrogate pair (\\ud800 to \\udfff), which is not text") from error
